from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbjobs import keys
from nbjobs.keys import Keys, dec, enc

ANY_CHARACTER = st.characters() | st.sampled_from("\ud800\udfff\0\u202e$-")
ANY_TEXT = st.text(ANY_CHARACTER, min_size=1, max_size=80)
HOSTILE = ["*", "?", "[a]", "}", "{", "}evil", "a:b", "../x", "\n", "\0", "h-", "--", "-2a", "Ada", "ada ", "ädä", "🙂"]


@given(ANY_TEXT)
def test_an_encoded_user_has_no_special_character(user: str) -> None:
    """No user's name can be a pattern, end the hash tag, or make a key longer than 64 characters."""
    assert re.fullmatch(r"[a-z0-9-]{1,64}", enc(user))


@given(ANY_TEXT, ANY_TEXT)
def test_two_users_never_share_their_keys(one: str, other: str) -> None:
    """The encoding is injective."""
    assert (enc(one) == enc(other)) == (one == other)


@given(st.lists(st.sampled_from(["h", "-", "--", "0", "a", "\x00", "-2a", "*"]), min_size=1, max_size=64))
def test_no_name_can_imitate_the_encoding_of_another(parts: list[str]) -> None:
    """Names made of the encoding's own pieces come back as themselves."""
    user = "".join(parts)
    assert dec(enc(user)) in (user, None)


def test_no_name_can_imitate_a_hash() -> None:
    """A long name is hashed; the hash's text as a name of its own has other keys."""
    hashed = enc("x" * 100)
    assert dec(hashed) is None
    assert enc(hashed) != hashed
    assert hashed.startswith("h--")


@given(ANY_TEXT.filter(lambda user: len(enc(user)) < 40))
def test_an_encoding_that_is_no_hash_can_be_undone(user: str) -> None:
    """`dec` gives the name back."""
    assert dec(enc(user)) == user


@pytest.mark.parametrize("text", ["", "A", "-", "-4", "-zz", "a*", "-61", "-ff", "h--12"])
def test_what_enc_cannot_have_written_is_not_undone(text: str) -> None:
    """`dec` answers None for anything but an encoding."""
    assert dec(text) is None


def test_an_empty_user_is_refused() -> None:
    """Without a name there are no keys."""
    with pytest.raises(ValueError, match="NBJOBS_USER"):
        enc("")
    with pytest.raises(TypeError, match="NoneType"):
        enc(None)  # type: ignore[arg-type]


def test_all_keys_of_a_user_share_the_tag() -> None:
    """Every key of a user is in one slot, under one prefix."""
    k = Keys("Ada")
    found = [*k.script_keys("r1"), k.map("r1", 2), k.code("ab"), k.user_events, k.runs, k.due]
    assert all(key.startswith("nbjobs:{-41da}:") for key in found)


def test_scripts_get_six_keys_in_their_order() -> None:
    """The scripts' keys: run, its events, its log, the user's events, runs, due."""
    k = Keys("ada")
    assert k.script_keys("r1") == [k.run("r1"), k.events("r1"), k.log("r1"), k.user_events, k.runs, k.due]
    assert k.script_keys("r1")[1:3] == ["nbjobs:{ada}:run:r1:events", "nbjobs:{ada}:run:r1:log"]
    assert k.map("r1", 3) == "nbjobs:{ada}:run:r1:map:3"


def test_keys_can_be_made_from_the_encoded_user() -> None:
    """A worker that reads an encoded user reaches the same keys, and the name where it is in there."""
    for user in ["ada", "Ada *", "x" * 200]:
        k = Keys.of(enc(user))
        assert k.script_keys("r") == Keys(user).script_keys("r")
        assert k.user in (user, "")
    assert Keys.of(enc("Ada")).user == "Ada"
    assert repr(Keys("ada")) == "Keys.of('ada')"


@pytest.mark.parametrize("user", HOSTILE)
def test_arq_ids_can_be_taken_apart(user: str) -> None:
    """The id of an attempt gives back user, run and attempt, whatever the user is called."""
    run = keys.new_run_id()
    assert keys.parse_arq_id(keys.arq_id(user, run, 12)) == (enc(user), run, 12)


@pytest.mark.parametrize(
    "text", ["", "r1", "{ada}:r1", "{ada}:r1:x", "{a}b}:r:1", "{ada}:r:1:2", "{Ada}:r:1", "{ada}:r:1\n", "x" * 999]
)
def test_other_ids_in_arqs_queue_are_refused(text: str) -> None:
    """What is no id of an attempt raises and is named, shortened."""
    with pytest.raises(ValueError, match="no id of an attempt") as caught:
        keys.parse_arq_id(text)
    assert len(str(caught.value)) < 300


def test_names_without_a_user_are_as_arq_and_workers_expect() -> None:
    """Keys outside the users' slots."""
    assert keys.USERS == "nbjobs:users"
    assert keys.workers("gpu") == "nbjobs:workers:gpu"
    assert keys.wake("gpu") == "nbjobs:wake:gpu"
    assert keys.arq_queue("gpu") == "arq:queue:gpu"
    assert (keys.arq_job("i"), keys.arq_in_progress("i"), keys.arq_retry("i")) == (
        "arq:job:i",
        "arq:in-progress:i",
        "arq:retry:i",
    )


def test_new_ids_are_short_unique_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids have 16 characters of a-z and 0-9; a later millisecond gives a greater one."""
    now = 1_790_000_000_000_000_000
    found = []
    for ms in range(300):
        monkeypatch.setattr("time.time_ns", lambda ms=ms: now + ms * 1_000_000)
        found.append(keys.new_run_id())
    assert all(re.fullmatch("[a-z0-9]{16}", id) for id in found)
    assert len({id[8:] for id in found}) == 300
    assert found == sorted(found)


@pytest.mark.parametrize("text", ["a", "import-2024_01.csv", "A" * 64, "..."])
def test_run_ids_of_ones_own_are_kept(text: str) -> None:
    """Letters, digits, dot, underscore and hyphen make an id."""
    assert keys.check_run_id(text) == text


@pytest.mark.parametrize("text", ["", "a b", "a:b", "a/b", "*", "ä", "a\n", "A" * 65, "{x}", "\ud800", None, 7])
def test_other_run_ids_are_refused_with_the_way_out(text: object) -> None:
    """The message says which characters there are."""
    with pytest.raises(ValueError, match=r"expected 1 to 64 of the characters A-Z a-z 0-9 \. _ -"):
        keys.check_run_id(text)  # type: ignore[arg-type]


def test_queues_have_names_that_are_no_patterns() -> None:
    """A queue's name is checked like a run's id, with a colon allowed."""
    assert keys.check_queue("gpu:large") == "gpu:large"
    for bad in ("", "a b", "*", "a\n"):
        with pytest.raises(ValueError, match="cannot be used"):
            keys.check_queue(bad)
