"""Which classes the codec takes as data: dataclasses and msgspec Structs that can be found again by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from . import modules
from .errors import BadData

_BUILTIN_DATA = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, BaseException)


def name_of(cls: type) -> str:
    """Return the name under which `find` looks for cls: ``module:qualname``."""
    return f"{cls.__module__}:{cls.__qualname__}"


def fields(cls: Any) -> tuple[str, ...]:
    """Return the names of a dataclass's or Struct's fields, in order."""
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    return tuple(field.name for field in dataclasses.fields(cls))


def problem(cls: type) -> str | None:
    """Return why objects of cls are no data, as the end of a sentence, or None where they are."""
    if issubclass(cls, msgspec.Struct):
        if cls is msgspec.Struct:
            return ""
    elif "__dataclass_fields__" not in vars(cls):
        return ""
    elif issubclass(cls, _BUILTIN_DATA) or cls.__new__ is not object.__new__:
        return ", a dataclass with a base of its own content"
    if "<locals>" in cls.__qualname__:
        return ", a class made inside a function, which cannot be found again (move it to the module's top)"
    try:
        found = _lookup(name_of(cls))
    except BadData:
        return ", which cannot be found again under its module and name"
    return None if found is cls else ", a class that was defined anew since (make the object again)"


def build(name: str, values: dict[str, Any]) -> Any:
    """Return an object of the named class with these fields, without running its ``__init__``."""
    cls = find(name)
    known = fields(cls)
    unknown = [key for key in values if key not in known]
    if unknown:
        raise BadData(f"stored data of class {name} has the field {unknown[0]!r}, the class has {known}")
    if issubclass(cls, msgspec.Struct):
        return _build_struct(cls, values)
    self = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(self, field.name, _value(field, values, name))
    return self


def _build_struct(cls: Any, values: dict[str, Any]) -> Any:
    self = cls(**values)
    for key, value in values.items():  # as they were, whatever __post_init__ made of them
        msgspec.structs.force_setattr(self, key, value)
    return self


def _value(field: dataclasses.Field[Any], values: dict[str, Any], name: str) -> Any:
    if field.name in values:
        return values[field.name]
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise BadData(f"stored data of class {name} lacks the field {field.name!r}, which has no default")


def find(name: str) -> Any:
    """Return the dataclass or Struct of that name, importing its module if need be; see `modules.imported`."""
    cls = _lookup(name)
    if not isinstance(cls, type) or problem(cls) is not None:
        raise BadData(f"stored data is of class {name}, which is no dataclass or Struct here")
    return cls


def _lookup(name: str) -> Any:
    module_name, _, qualname = name.partition(":")
    try:
        found: Any = modules.imported(module_name, qualname)
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs foreign code
        raise BadData(
            f"stored data is of class {name}, which is not there ({type(error).__name__}: {error}): "
            "keep the class where it was, or import the module that defines it"
        ) from None
    return found
