"""Structured events: a name, a payload, and what was true around it.

`notify` reports that something happened. Whoever subscribed to the name gets an `Event`, at once and in the
caller's thread: a sink that writes to `logging`, the run's stream, a test, your own function.

>>> @subscribe
... def show(event):
...     print(event.name, event.payload, dict(event.tags), dict(event.context))
>>> set_context(user_id="ada")
mappingproxy({'user_id': 'ada'})
>>> with tagged("nightly", source="crm"):
...     notify("import.prepared", total=3)
import.prepared {'total': 3} {'nightly': True, 'source': 'crm'} {'user_id': 'ada'}

**Tags** hold for a block, **context** from `set_context` to `clear_context`. Both live in context variables:
an asyncio task begins with a copy of its creator's, a thread with nothing. nbjobs clears both before and
after each run and carries them into the threads that it starts.

**Names** are dotted, ``noun.past_verb``; those that begin with ``job.`` are nbjobs' own. A subscriber names
what it wants (``names="import.*"``), which costs nothing for the rest, and may give a `filter` that sees the
whole event.

**Errors** of a subscriber are logged as warnings to ``nbjobs.events`` and harm nobody; with
``raise_on_error`` they reach the caller of `notify`, which is for tests. A payload's parameters that look
like secrets are replaced by ``[FILTERED]``, at any depth: `EventReporter.filter_parameters`.

>>> unsubscribe(show)
>>> clear_context()
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

from . import around, forks
from . import event as _event
from .around import (
    check_tags,
    clear_context,
    get_context,
    isolated_context,
    set_context,
    tagged,
    with_debug,
)
from .event import Event, decode
from .filtering import DEFAULTS, Parameter, ParameterFilter
from .plain import safe_repr

__all__ = [
    "Event",
    "EventReporter",
    "check_tags",
    "clear_context",
    "debug",
    "decode",
    "emit",
    "encode",
    "get_context",
    "isolated_context",
    "notify",
    "reporter",
    "set_context",
    "subscribe",
    "tagged",
    "unsubscribe",
    "with_debug",
]

NAME_LIMIT = 200
_ROUTES = 1024
_QUALIFIED = sys.version_info >= (3, 11)

_log = logging.getLogger("nbjobs.events")


class HasEmit(Protocol):
    """A subscriber that is an object."""

    def emit(self, event: Event, /) -> object:
        """Take an event."""


Subscriber = HasEmit | Callable[[Event], object]
Filter = Callable[[Event], object]
S = TypeVar("S", bound=Subscriber)


class _Subscription:
    __slots__ = ("call", "filter", "names", "subscriber")

    def __init__(self, subscriber: Any, names: Iterable[str], filter: Filter | None) -> None:
        call = getattr(subscriber, "emit", subscriber)
        if not callable(call):
            raise TypeError(
                f"subscriber is of type {type(subscriber).__name__}, expected a callable or an object with emit(event)"
            )
        self.subscriber = subscriber
        self.call: Callable[[Event], object] = call
        self.names = (names,) if isinstance(names, str) else tuple(names)
        self.filter = filter

    def wants(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.names)

    def is_of(self, what: object) -> bool:
        subscriber = self.subscriber
        return what is subscriber or what == subscriber or (isinstance(what, type) and isinstance(subscriber, what))


class EventReporter:
    """Hands events to its subscribers, in the order in which they subscribed.

    Args:
        *subscribers: subscribed to all names.
        raise_on_error: let errors of subscribers, and wrong arguments, reach the caller of `notify`.

    Attributes:
        raise_on_error: as above; may be changed at any time.
        debug_mode: whether `debug` reports.
        filter_parameters: a list of what is hidden in payloads; changes count at once (`ParameterFilter`).
        clock: function that returns the time in nanoseconds.

    >>> seen = []
    >>> reporter = EventReporter(seen.append)
    >>> reporter.notify("user.signed_up", id=7, password="x")
    >>> seen[0].payload
    {'id': 7, 'password': '[FILTERED]'}
    """

    def __init__(self, *subscribers: Subscriber, raise_on_error: bool = False) -> None:
        self.raise_on_error = raise_on_error
        self.debug_mode = False
        self.filter_parameters: list[Parameter] = list(DEFAULTS)
        self.clock: Callable[[], int] = time.time_ns
        self._filter = ParameterFilter(self.filter_parameters)
        self._lock = forks.lock()
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._routes: dict[str, tuple[_Subscription, ...]] = {}
        for subscriber in subscribers:
            self.subscribe(subscriber)

    # --- Who listens ---------------------------------------------------------------------------------------

    def __reduce__(self) -> str:
        if self is not reporter:
            raise TypeError("an EventReporter cannot be pickled: its subscribers belong to this process")
        return "reporter"  # by reference: a job sent by value refers to `notify`

    def subscribe(self, subscriber: S, names: str | Iterable[str] = "*", filter: Filter | None = None) -> S:
        """Hand events to subscriber from now on, and return it, so that this can decorate a function.

        Args:
            subscriber: a callable, or an object with ``emit(event)``. Subscribed twice, it
                gets each event twice.
            names: names wanted, with ``*`` for any characters; or several of them.
            filter: gets the whole event; a false answer leaves it out.
        """
        subscription = _Subscription(subscriber, names, filter)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
            self._routes = {}
        return subscriber

    def unsubscribe(self, subscriber: object) -> None:
        """Hand nothing more to subscriber; a class stands for its instances. An unknown one is no error."""
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if not s.is_of(subscriber))
            self._routes = {}

    def listens(self, name: str) -> bool:
        """Return whether anyone subscribed to events of that name, so that others need not be made."""
        routes = self._routes.get(name)
        return bool(self._route(name) if routes is None else routes)

    def _route(self, name: str) -> tuple[_Subscription, ...]:
        routes = self._routes  # before the subscriptions: an outdated answer goes into the outdated dict
        found = tuple(s for s in self._subscriptions if s.wants(name))
        if len(routes) >= _ROUTES:
            routes.clear()
        routes[name] = found
        return found

    # --- Reporting -----------------------------------------------------------------------------------------

    def notify(self, name: object, payload: object = None, /, *, stacklevel: int = 1, **parameters: Any) -> None:
        """Report that something happened.

        Args:
            name: the event's name, at most 200 characters. Any other object is the payload as it is, and its
                class the name.
            payload: a mapping, in place of keywords.
            stacklevel: 1 is the line that calls this; a helper around it passes 2, as in `logging`.
            **parameters: the payload.

        >>> notify("import.prepared", total=3)
        """
        text = name if type(name) is str else _name_of(name)
        targets = self._routes.get(text)
        if targets is None:
            if not text or len(text) > NAME_LIMIT:
                raise ValueError(f"name of an event has {len(text)} characters, expected 1 to {NAME_LIMIT}")
            targets = self._route(text)
        if targets:
            if payload is not None or name is not text:
                parameters = self._payload(name, payload, parameters)
            else:
                parameters = self.filtered(parameters)
            location = _location(stacklevel + 1)
            found = _event.new(text, parameters, around.tags(), around.get_context(), self.clock(), location)
            self._hand(targets, found, self.raise_on_error)

    def debug(self, name: object, payload: object = None, /, *, stacklevel: int = 1, **parameters: Any) -> None:
        """Report like `notify`, but only where `debug_mode` or `with_debug` is on.

        Args:
            name: as in `notify`.
            payload: a mapping, or a function without arguments that returns one and is called only if on.
            stacklevel: as in `notify`.
            **parameters: the payload.
        """
        if self.debug_mode or around.debugging():
            if callable(payload):
                payload = {**parameters, **payload()}
                parameters = {}
            self.notify(name, payload, stacklevel=stacklevel + 1, **parameters)

    def emit(self, event: Event, /) -> None:
        """Hand on an event that is ready, as nbjobs does with its own; subscribers' errors stay away.

        So does what else they raise: an attempt's end must not hang on it.
        """
        targets = self._routes.get(event.name)
        if targets is None:
            targets = self._route(event.name)
        if targets:
            try:
                self._hand(targets, event, False)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a SystemExit, say
                _log.warning("A subscriber of %s wanted to end what reported it", event.name, exc_info=True)

    def filtered(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return payload with what looks like a secret hidden."""
        return self._current_filter().apply(payload)

    def hides(self, name: str) -> bool:
        """Return whether parameters of that name are hidden."""
        return self._current_filter().hides(name)

    def _current_filter(self) -> ParameterFilter:
        current = self._filter
        if current.parameters != self.filter_parameters:
            current = self._filter = ParameterFilter(self.filter_parameters)
        return current

    def _payload(self, name: object, payload: object, parameters: dict[str, Any]) -> Any:
        """Return the payload where it is not just keywords."""
        if not isinstance(name, str):
            if payload is not None or parameters:
                self._misused(f"an object of class {type(name).__name__} is the payload itself", payload, parameters)
            return name
        if payload is None:
            return self.filtered(parameters)
        if isinstance(payload, Mapping) and not parameters:
            return self.filtered({str(key): value for key, value in payload.items()})
        self._misused("a payload is one mapping, or keywords", payload, parameters)
        return self.filtered(parameters)

    def _misused(self, rule: str, payload: object, parameters: dict[str, Any]) -> None:
        message = (
            f"{rule}; found a payload of type {type(payload).__name__} "
            f"and the keywords {sorted(parameters)}: pass one of them"
        )
        if self.raise_on_error:
            raise TypeError(message)
        _log.warning("notify: %s", message, stack_info=True)

    def _hand(self, targets: tuple[_Subscription, ...], found: Event, raising: bool) -> None:
        for target in targets:
            try:
                if target.filter is None or target.filter(found):
                    target.call(found)
            except Exception:  # subscribers are foreign code
                if raising:
                    raise
                _log.warning("Subscriber %s failed on %s", safe_repr(target.subscriber, 200), found.name, exc_info=True)

    # Tags and context belong to the thread or task, whichever reporter they are set through.
    tagged = staticmethod(around.tagged)
    with_debug = staticmethod(around.with_debug)
    set_context = staticmethod(around.set_context)
    clear_context = staticmethod(around.clear_context)
    get_context = staticmethod(around.get_context)


def _name_of(name: object) -> str:
    return str.__str__(name) if isinstance(name, str) else type(name).__name__


def _location(depth: int) -> dict[str, Any] | None:
    try:
        frame = sys._getframe(depth)
    except ValueError:  # the stack is not that deep
        return None
    code: Any = frame.f_code
    label = code.co_qualname if _QUALIFIED else code.co_name
    return {"filepath": code.co_filename, "lineno": frame.f_lineno, "label": label}


def encode(event: Event, limit: int = _event.EVENT_LIMIT) -> str:
    """Return the event's JSON for a stream, its secrets hidden as the default reporter hides them."""
    return _event.encode(event, limit, reporter.hides)


reporter = EventReporter()
"""The reporter that the functions of this module speak to, and nbjobs itself."""

notify = reporter.notify
debug = reporter.debug
emit = reporter.emit
subscribe = reporter.subscribe
unsubscribe = reporter.unsubscribe
