from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import pickle
import sys
import types
from collections import OrderedDict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from nbjobs import codec
from nbjobs.codec import decode, encode, fingerprint, json_safe
from nbjobs.errors import BadData, NotData, TooLarge

from .test_keys import ANY_CHARACTER


@dataclasses.dataclass
class Row:
    name: Any
    values: list[Any] = dataclasses.field(default_factory=list)
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = 0
    ran: list[str] = dataclasses.field(default_factory=list, init=False, compare=False)

    def __post_init__(self) -> None:
        self.ran.append("init")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    size: Any
    mode: str = "fast"


class Strict(msgspec.Struct):
    size: int

    def __post_init__(self) -> None:
        self.size = min(self.size, 10)


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    pass


class MyDict(dict):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class DataList(list):  # type: ignore[type-arg]
    x: int = 0


class SubRow(Row):
    pass


Pair = namedtuple("Pair", "a b")


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type, at every depth; NaN is the same as NaN."""
    return shape(one) == shape(other)


def shape(value: Any) -> Any:
    """What can be compared of a value: its type, and its content as shapes."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [shape(item) for item in value]
    if kind is dict:
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return kind, sorted(repr(shape(item)) for item in value)
    if kind in (Row, Point, Options):
        names = getattr(value, "__struct_fields__", None) or [f.name for f in dataclasses.fields(value)]
        return kind, [shape(getattr(value, name)) for name in names]
    if kind in (datetime, time):
        zone = value.tzinfo
        return kind, value.isoformat(), value.fold, type(zone), str(zone), value.tzname()
    return kind, repr(value) if kind in (float, Decimal) else value


ZONES = st.one_of(
    st.none(),
    st.just(timezone.utc),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu"]).map(ZoneInfo),
    st.builds(
        timezone,
        st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
    ),
    st.builds(timezone, st.just(timedelta(hours=1)), st.text(max_size=5)),
)
TEXT = st.text(ANY_CHARACTER, max_size=20)
DATETIMES = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),
    ZONES,
    st.integers(0, 1),
)
SCALARS = st.deferred(lambda: _SCALARS)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    TEXT,
    st.binary(max_size=20),
    st.dates(),
    st.builds(lambda t, z, f: t.replace(tzinfo=z, fold=f), st.times(), ZONES, st.integers(0, 1)),
    DATETIMES,
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    TEXT.filter(lambda text: "\0" not in text).map(Path),
)
HASHABLE = st.deferred(lambda: _HASHABLE)
_HASHABLE = st.recursive(
    SCALARS.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(HASHABLE, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.dictionaries(st.sampled_from(["$", "$tuple", "$x", "a", ""]), inner, max_size=2),
        st.builds(Row, inner, st.lists(inner, max_size=2), TEXT),
        st.builds(Point, inner, inner),
        st.builds(Options, size=inner, mode=TEXT),
    ),
    max_leaves=12,
)


@given(DATA)
@settings(deadline=None)
@pytest.mark.fault(37)
def test_data_comes_back_equal_in_value_and_type(value: Any) -> None:
    """Whatever is encoded is decoded as the same value of the same type, at every depth."""
    text = encode(value)
    text.encode("utf-8")
    json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert same(decode(text), value)


ODD = st.one_of(
    st.sampled_from([Colour.RED, object, len, range(3), 1j, bytearray(b"x"), slice(1), ..., msgspec.UNSET]),
    TEXT.map(Word),
    st.builds(object),
)
ANYTHING = st.recursive(
    SCALARS | ODD,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.builds(Pair, inner, inner),
        st.dictionaries(HASHABLE | TEXT.map(Word) | st.builds(object), inner, max_size=3),
        st.dictionaries(TEXT, inner, max_size=2).map(OrderedDict),
        st.builds(Row, inner, st.lists(inner, max_size=2)),
        st.builds(Options, size=inner),
    ),
    max_leaves=8,
)


@given(ANYTHING)
@settings(deadline=None)
@pytest.mark.fault(37)
def test_anything_comes_back_as_it_was_or_is_refused(value: Any) -> None:
    """Never as something else: not as the base of its class, nor as a list for a deque."""
    try:
        text = encode(value)
    except NotData as refused:
        event("refused")
        assert refused.path and refused.found
    else:
        event("encoded")
        assert same(decode(text), value)


@given(DATA)
@settings(deadline=None)
def test_encoding_is_stable(value: Any) -> None:
    """What was decoded is encoded as the same text, so that fingerprints hold over attempts."""
    text = encode(value)
    assert encode(decode(text)) == text
    assert fingerprint(decode(text)) == fingerprint(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(),
        lambda i: st.lists(i) | st.dictionaries(st.text(), i),
    )
)
def test_plain_json_stays_plain(value: Any) -> None:
    """What JSON has is written as JSON has it, except an object that would look like a tag."""
    text = encode(value)
    if "$" not in text:
        assert json.loads(text) == value


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_foreign_text_never_breaks_the_decoder(text: str | bytes) -> None:
    """Any text is decoded or refused as BadData."""
    with contextlib.suppress(BadData):
        decode(text)


TAGS = ["$int", "$float", "$str", "$bytes", "$date", "$time", "$datetime", "$timedelta", "$decimal", "$uuid", "$path"]
TAGS += ["$tuple", "$set", "$frozenset", "$dict", "$data", "$new"]


@given(
    st.sampled_from(TAGS),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
        lambda i: st.lists(i, max_size=3) | st.dictionaries(st.sampled_from(TAGS), i, max_size=1),
    ),
)
def test_forged_tags_never_break_the_decoder(tag: str, content: Any) -> None:
    """A tag with any content is decoded or refused as BadData."""
    with contextlib.suppress(BadData):
        decode(json.dumps({tag: content}))


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Word("x"),
        MyDict(a=1),
        OrderedDict(a=1),
        Pair(1, 2),
        DataList(),
        SubRow("a"),
        object(),
        Hostile(),
        range(3),
        (x for x in "ab"),
        bytearray(b"x"),
        complex(1, 2),
        PurePosixPath("a"),
        Row,
        len,
        ValueError("x"),
        sys,
        datetime(2026, 1, 1, tzinfo=type("Zone", (tzinfo,), {"utcoffset": lambda s, d: None})()),
        time(1, tzinfo=type("Zone", (tzinfo,), {"utcoffset": lambda s, d: None})()),
        msgspec.UNSET,
        Options(size=msgspec.UNSET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_data_is_refused_with_its_path(value: Any) -> None:
    """A value that would come back as something else raises, and the message says where it was."""
    with pytest.raises(NotData) as caught:
        encode({"rows": [1, value]}, what="args[0]")
    assert caught.value.path.startswith("args[0]['rows'][1]")
    assert str(caught.value).startswith("args[0]['rows'][1]")
    assert caught.value.found


def test_paths_name_fields_keys_and_items() -> None:
    """The path reads like the expression that gets at the value."""
    value = [Row("a", [{"k": (1, {object()})}])]
    with pytest.raises(NotData) as caught:
        encode(value, what="args")
    assert caught.value.path == "args[0].values[0]['k'][1]{object}"
    with pytest.raises(NotData) as caught:
        encode({Colour.RED: 1})
    assert caught.value.path.startswith("value[<Colour.RED: 1>]")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Colour.RED, ".value"),
        (Word("x"), r"str\(…\)"),
        (MyDict(), r"dict\(…\)"),
        (Pair(1, 2), r"tuple\(…\)"),
        (iter([]), "inside the job"),
        (type("DataFrame", (), {})(), "pass the path"),
    ],
)
def test_refusals_say_what_to_do(value: Any, hint: str) -> None:
    """The message of a common mistake holds its way out."""
    with pytest.raises(NotData, match=hint):
        encode(value)


def test_values_that_contain_themselves_are_refused() -> None:
    """A cycle raises NotData, not RecursionError."""
    rows: list[Any] = [1]
    rows.append({"again": rows})
    with pytest.raises(NotData, match="contains itself") as caught:
        encode(rows)
    assert len(str(caught.value)) < 400


def test_values_nested_too_deep_are_refused() -> None:
    """Depth 2,000 raises NotData; 90 goes."""
    deep: Any = 1
    for _ in range(90):
        deep = [deep]
    assert decode(encode(deep)) == deep
    for _ in range(1910):
        deep = [deep]
    with pytest.raises(NotData, match="levels deep"):
        encode(deep)


@pytest.mark.parametrize(
    "value", [math.nan, [math.nan], {"a": (1, math.nan)}, Decimal("NaN"), Decimal("sNaN"), Point(math.nan)]
)
@pytest.mark.fault(36)
def test_nan_is_no_cursor(value: Any) -> None:
    """With nan=False a NaN at any depth is refused with its path; without, it comes back."""
    with pytest.raises(NotData, match="NaN") as caught:
        encode(value, what="cursor", nan=False)
    assert caught.value.path.startswith("cursor")
    assert same(decode(encode(value)), value)


def test_infinity_may_be_a_cursor() -> None:
    """Infinity is equal to itself, so it comes back also as a cursor."""
    assert decode(encode(-math.inf, nan=False)) == -math.inf


def test_too_large_data_is_refused_with_size_and_limit() -> None:
    """The limit counts bytes of the text, and one byte decides."""
    assert encode("x" * 98, limit=100)
    with pytest.raises(TooLarge, match="cursor has 101 bytes as JSON, at most 100") as caught:
        encode("x" * 99, what="cursor", limit=100)
    assert (caught.value.what, caught.value.size, caught.value.limit) == ("cursor", 101, 100)
    with pytest.raises(TooLarge):
        encode("ä" * 50, limit=100)


def test_the_limits_are_those_of_the_scripts() -> None:
    """Arguments and values 64 KiB, cursors 8 KiB, results 1 MiB."""
    assert (codec.ARGS_LIMIT, codec.VALUE_LIMIT, codec.CURSOR_LIMIT) == (65536, 65536, 8192)
    assert codec.RESULT_LIMIT == 1048576


def test_huge_integers_are_exact() -> None:
    """Integers of more digits than Python prints come back, and those of JavaScript's range stay numbers."""
    for number in (2**53, 2**53 + 1, -(2**63), 10**5000, -(10**5000)):
        assert decode(encode(number)) == number
    assert encode(2**53) == "9007199254740992"
    assert encode(2**53 + 1) == '{"$int":"0x20000000000001"}'


def test_zones_are_kept() -> None:
    """An aware datetime keeps its zone by name, and its fold; a foreign tzinfo becomes its offset."""
    berlin = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    back = decode(encode(berlin))
    assert (back.tzinfo, back.fold, back.utcoffset()) == (ZoneInfo("Europe/Berlin"), 1, timedelta(hours=1))
    foreign = type("Zone", (tzinfo,), {"utcoffset": lambda self, moment: timedelta(minutes=5)})
    back = decode(encode(datetime(2026, 1, 1, tzinfo=foreign())))
    assert back == datetime(2026, 1, 1, tzinfo=timezone(timedelta(minutes=5)))


def test_records_come_back_without_their_init() -> None:
    """A dataclass is filled field by field; its __post_init__ does not run a second time."""
    point = Point(1)
    assert decode(encode(point)).ran == ["init"]
    strict = Strict(5)
    strict.size = 99
    assert decode(encode(strict)).size == 99


def test_records_that_gained_a_field_take_its_default() -> None:
    """Stored data of an older class is read where the new fields have defaults."""
    assert decode('{"$data":["tests.test_codec:Row",{"name":1}]}') == Row(1)
    assert decode('{"$data":["tests.test_codec:Options",{"size":1}]}') == Options(size=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"$data":["tests.test_codec:Row",{}]}', "lacks the field 'name'"),
        ('{"$data":["tests.test_codec:Options",{}]}', "size"),
        ('{"$data":["tests.test_codec:Row",{"name":1,"gone":2}]}', "has the field 'gone'"),
        ('{"$data":["tests.test_codec:Gone",{}]}', "tests.test_codec:Gone"),
        ('{"$data":["no.such.module:Row",{}]}', "no.such.module:Row"),
        ('{"$data":["os:environ",{}]}', "no dataclass or Struct"),
        ('{"$data":["subprocess:Popen",{}]}', "no dataclass or Struct"),
        ('{"$data":["msgspec:Struct",{}]}', "no dataclass or Struct"),
        ('{"$data":["",{}]}', "not there"),
        ('{"$new":1}', r"\$new.*does not know"),
        ('{"$tuple":"ab"}', "expected an array"),
        ("[1", "not of nbjobs' codec"),
        ("", "not of nbjobs' codec"),
        ("[" * 5000 + "]" * 5000, "not of nbjobs' codec"),
    ],
)
def test_stored_text_that_cannot_be_read_is_bad_data(text: str, message: str) -> None:
    """The error names the class or tag and says why."""
    with pytest.raises(BadData, match=message):
        decode(text)


@pytest.mark.fault(57)
def test_a_pickle_is_never_loaded() -> None:
    """Bytes of a pickle are refused, and nothing in them runs."""
    ran: list[int] = []
    canary = types.SimpleNamespace(ran=ran)

    class Canary:
        def __reduce__(self) -> Any:
            return (exec, ("import sys; sys.nbjobs_canary = 1",))

    with pytest.raises(BadData):
        decode(pickle.dumps(Canary()))
    assert not hasattr(sys, "nbjobs_canary")
    assert canary.ran == []


def test_messages_do_not_show_stored_data() -> None:
    """What was stored may be a secret, so the error of bad text does not repeat it."""
    with pytest.raises(BadData) as caught:
        decode('{"$uuid": "hunter2"}')
    assert "hunter2" not in str(caught.value)
    with pytest.raises(BadData) as caught:
        decode("hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_class_made_in_a_function_is_refused() -> None:
    """A class that cannot be found by name again is refused when it is written."""

    @dataclasses.dataclass
    class Local:
        x: int

    with pytest.raises(NotData, match="inside a function"):
        encode(Local(1))


def test_an_object_of_a_class_defined_anew_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a cell is run again, objects of the old class are no longer what would be read back."""
    old = Row("a")
    monkeypatch.setattr(sys.modules[__name__], "Row", dataclasses.make_dataclass("Row", ["name"]))
    with pytest.raises(NotData, match="defined anew"):
        encode(old)
    monkeypatch.delattr(sys.modules[__name__], "Row")
    with pytest.raises(NotData, match="cannot be found again"):
        encode(old)


def test_classes_of_a_notebook_are_found_in_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of `__main__` are looked up in the module that is there, never imported anew."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec("import dataclasses\n@dataclasses.dataclass\nclass Cell:\n    x: int", vars(main))
    value = vars(main)["Cell"](3)
    assert decode(encode(value)) == value


def test_a_record_without_one_of_its_fields_is_refused() -> None:
    """A field that was deleted cannot be stored."""
    row = Row("a")
    del row.name
    with pytest.raises(NotData, match="without its field 'name'"):
        encode(row)


def test_fingerprints_differ_for_different_data() -> None:
    """64 bits as hex; equal types count, and what is not data has none."""
    found = {fingerprint(value) for value in (1, 1.0, True, "1", b"1", (1,), [1], {1}, None)}
    assert len(found) == 9
    assert all(len(text or "") == 16 for text in found)
    assert fingerprint({1, 2, 3}) == fingerprint({3, 2, 1})
    assert fingerprint(object()) is None


class Scalar:
    def __init__(self, item: Any) -> None:
        self._item = item

    def item(self) -> Any:
        return self if self._item is None else self._item


class Datetime64(Scalar):
    pass


class Timedelta64(Scalar):
    pass


def test_numpy_scalars_become_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NumPy scalar is stored as the value of its `item`, unless that would say less."""
    numpy: Any = types.ModuleType("numpy")
    numpy.generic, numpy.datetime64, numpy.timedelta64 = Scalar, Datetime64, Timedelta64
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    assert encode([numpy.generic(3), numpy.generic(0.5), numpy.generic(True)]) == "[3,0.5,true]"
    assert decode(encode(numpy.datetime64(date(2026, 1, 1)))) == date(2026, 1, 1)
    assert json_safe([numpy.generic(3), numpy.generic(math.nan)]) == [3, None]
    for value in (numpy.generic(None), numpy.datetime64(17), numpy.timedelta64(17)):
        with pytest.raises(NotData):
            encode(value)
    assert isinstance(json_safe(numpy.generic(None)), str)
    assert isinstance(json_safe(numpy.datetime64(17)), str)


def test_lone_surrogates_come_back() -> None:
    """Text that UTF-8 cannot hold, as names of files may be, is kept, also as a key and in a path."""
    value = {"\udcff": ["a\ud800", Path("x\udcff")]}
    assert decode(encode(value)) == value
