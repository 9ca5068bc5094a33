"""Secrets in payloads: which parameters are replaced by ``[FILTERED]`` before anyone sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any

from .plain import MASK

Parameter = str | re.Pattern[str] | Callable[[str, Any], Any]

DEFAULTS: tuple[str, ...] = (
    "passw",
    "email",
    "secret",
    "token",
    "_key",
    "crypt",
    "salt",
    "certificate",
    "otp",
    "ssn",
    "cvv",
    "cvc",
)

"""Rails' own list."""

_MAPPINGS = (dict, MappingProxyType)
_SCALARS = frozenset((str, int, float, bool, type(None), bytes))
_DEPTH = 32
_CACHED = 4096


class ParameterFilter:
    """Replaces the values of parameters whose names look like secrets, at any depth.

    Args:
        parameters: a str matches each name that contains it, in any case; with a dot in it, it is matched
            against the dotted path instead. A compiled pattern is searched for in the name. A function of
            name and value returns what to show.

    >>> ParameterFilter(["token", "card.number"]).apply({"db": [{"apiToken": "x"}], "card": {"number": 4}})
    {'db': [{'apiToken': '[FILTERED]'}], 'card': {'number': '[FILTERED]'}}
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = list(parameters)
        words = [item.lower() for item in self.parameters if isinstance(item, str)]
        self._words = [word for word in words if "." not in word]
        self._paths = [word for word in words if "." in word]
        self._patterns = [item for item in self.parameters if isinstance(item, re.Pattern)]
        self._functions: list[Any] = [item for item in self.parameters if callable(item)]
        self._by_name_only = not self._paths and not self._functions
        self._shown: set[str] = set()  # names known to be harmless

    def hides(self, name: str) -> bool:
        """Return whether the values of parameters of that name are hidden, wherever they stand."""
        if name in self._shown:
            return False
        lower = name.lower()
        if any(word in lower for word in self._words) or any(p.search(name) for p in self._patterns):
            return True
        if len(self._shown) >= _CACHED:
            self._shown.clear()
        self._shown.add(name)
        return False

    def apply(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the payload, or a copy of it where something had to be hidden."""
        if self._by_name_only:
            shown = self._shown
            for name, value in payload.items():
                if type(value) not in _SCALARS or name not in shown:
                    break
            else:
                return payload
        filtered: dict[str, Any] = self._walk(payload, "", 0, {})
        return filtered

    def _walk(self, value: Any, path: str, level: int, seen: dict[Any, Any]) -> Any:
        """Return a container filtered; one that is met again, or inside itself, is walked once."""
        key = (id(value), path if self._paths else "")
        if key in seen:
            return seen[key]
        seen[key] = MASK
        if level >= _DEPTH:
            return MASK
        if isinstance(value, _MAPPINGS):
            seen[key] = self._mapping(value, path, level, seen)
        else:
            seen[key] = self._sequence(value, path, level, seen)
        return seen[key]

    def _mapping(self, value: Any, path: str, level: int, seen: dict[Any, Any]) -> Any:
        filtered = {}
        changed = False
        for name, item in list(value.items()):
            shown = self._item(str(name), item, f"{path}{name}".lower() if self._paths else "", level, seen)
            changed = changed or shown is not item
            filtered[name] = shown
        return filtered if changed else value

    def _sequence(self, value: Any, path: str, level: int, seen: dict[Any, Any]) -> Any:
        items = list(value)
        filtered = [self._nested(item, path, level, seen) for item in items]
        if all(old is new for old, new in zip(items, filtered, strict=True)):
            return value
        return tuple(filtered) if isinstance(value, tuple) else filtered

    def _item(self, name: str, value: Any, path: str, level: int, seen: dict[Any, Any]) -> Any:
        if self.hides(name) or any(word in path for word in self._paths):
            return MASK
        if isinstance(value, (*_MAPPINGS, list, tuple)):
            return self._nested(value, path + ".", level, seen)
        for function in self._functions:
            try:
                value = function(name, value)
            except Exception:  # the user's function; what it could not judge stays hidden
                return MASK
        return value

    def _nested(self, value: Any, path: str, level: int, seen: dict[Any, Any]) -> Any:
        if isinstance(value, (*_MAPPINGS, list, tuple)):
            return self._walk(value, path, level + 1, seen)
        return value
