"""The worker's processes for bodies: enough of them, each clean, none that outlives the worker.

Usage, in the worker's event loop::

    pool = Pool(settings, on_output)
    await pool.start()
    if pool.free("sync"):
        end = await pool.run(claim)     # claimed in Redis before
    await pool.close()

One child stands ready while others work. A child is given back its place among the idle ones while it is
clean, newest first, since that one has the user's modules loaded. It runs the bodies of one user only: what
a body leaves in its process does not reach another's. All async bodies, whosever they are, share one child;
a run that was in it when it died goes on in a child of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass

from .births import BIRTH_TRIES, LONGEST_PAUSE, Births
from .child import DEFAULT_PERFORMER, Upbringing
from .childhandle import ChildHandle
from .running import Claim, End, OnOutput, PoolError, Running
from .settings import NbJobs
from .stalls import StallWatch
from .tasks import end_all
from .wire import Message

__all__ = ["Claim", "End", "OnOutput", "Pool", "PoolError"]

_REMEMBERED = 10_000
_END_PATIENCE = 0.05  # for an end to be written; a new child costs less than a longer wait

logger = logging.getLogger("nbjobs.pool")


@dataclass
class _Held:
    """An attempt in the pool's care, from `run` to its end."""

    child: ChildHandle | None = None
    running: Running | None = None
    stop: str = ""
    killed: bool = False


class Pool:
    """Runs attempts in processes; belongs to one event loop.

    Args:
        settings: `children`, `async_runs`, `child_runs` are heeded; all travel to the children.
        on_output: gets what bodies print: the claim (None where it cannot be told) and lines.
        on_over: called when a body is over and there is room for another, though its end is not written yet.
        performer: ``module:function`` that makes an attempt from a claim as a dict, for tests.
        birth: ``fork`` or ``spawn``; default: what is safe on this platform.
        stall_warning: seconds of silence of an async child's loop until its stack is printed.
        stall_limit: until a shared one is ended, so that its runs go on elsewhere.
    """

    def __init__(
        self,
        settings: NbJobs,
        on_output: OnOutput,
        *,
        on_over: Callable[[], None] = lambda: None,
        performer: str = DEFAULT_PERFORMER,
        birth: str = "",
        stall_warning: float = 5.0,
        stall_limit: float = 30.0,
    ) -> None:
        self._settings = settings
        upbringing = Upbringing(settings.to_wire(), performer, list(sys.path), settings.children)
        self._births = Births(upbringing, owner=self, on_output=on_output, birth=birth, on_nursery=self._want_spare)
        self._stalls = StallWatch(self, warning=stall_warning, limit=stall_limit)
        self._closing = False
        self._idle: list[ChildHandle] = []
        self._shared: ChildHandle | None = None
        self._sharing = asyncio.Lock()
        self._held: dict[str, _Held] = {}
        self._places = {"sync": 0, "async": 0}
        self._lent = {"sync": 0, "async": 0}
        self._on_over = on_over
        self._finishing: set[ChildHandle] = set()
        self._came = asyncio.Event()
        self._alone: dict[tuple[str, str], None] = {}
        self._spare: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the nursery and the first child.

        Raises:
            PoolError: no process for bodies can be started here.
        """
        if sys.platform == "win32":
            raise PoolError(
                "a worker needs Unix processes, and this is Windows: run the worker in WSL, "
                "and use nbjobs here as a client only"
            )
        self._births.start()
        try:
            self._idle.append(await self._take())
        except PoolError:
            await self.close()
            raise

    @property
    def trouble(self) -> str:
        """Why no child can be started at present; empty where they can."""
        return self._births.trouble

    @property
    def nursery_pid(self) -> int | None:
        """Process id of the nursery, None while there is none."""
        return self._births.nursery_pid

    def pids(self) -> list[int]:
        """Process ids of the children."""
        return self._births.pids()

    def free(self, kind: str) -> int:
        """How many more bodies of a kind (``sync``, ``async``) may be claimed now."""
        if self.trouble or not self._births.possible:
            return 0
        limit = self._settings.async_runs if kind == "async" else self._settings.children
        over = len(self._finishing) if kind == "sync" else 0
        return max(0, limit - self._places[kind] + self._lent[kind] + over)

    async def run(self, claim: Claim) -> End:
        """Has an attempt performed, and says how it ended. Cancelling this kills its process.

        Never raises for anything that a body or a process does.
        """
        held = self._held[claim.owner] = _Held()
        self._places[claim.kind] += 1
        try:
            return await self._run(claim, held)
        finally:
            self._places[claim.kind] -= 1
            del self._held[claim.owner]

    def stop(self, owner: str, reason: str) -> bool:
        """Asks a body to end at its next checkpoint; whether the attempt is here."""
        held = self._held.get(owner)
        if held is None:
            return False
        held.stop = reason
        self._send_stop(owner, held)
        return True

    def go_on(self, owner: str) -> None:
        """Takes back a pause that `stop` asked for, where the body has not stopped yet."""
        held = self._held.get(owner)
        if held is not None and held.stop == "pause":
            held.stop = ""
            self._tell(held, {"op": "go_on", "owner": owner})

    def cancel(self, owner: str) -> bool:
        """Cancels the task of an async body; whether the attempt is here."""
        held = self._held.get(owner)
        if held is None:
            return False
        self._tell(held, {"op": "cancel", "owner": owner})
        return True

    def kill(self, owner: str) -> bool:
        """Ends the process in which an attempt runs, at once; whether the attempt is here."""
        held = self._held.get(owner)
        if held is None:
            return False
        held.killed = True
        if held.child is not None:
            held.child.kill("killed")
        return True

    async def close(self) -> None:
        """Ends all processes; attempts that still run end as died, reason ``closed``."""
        self._closing = True
        self._stalls.close()
        if self._spare is not None:
            await end_all([self._spare])
        await self._births.close()

    # What the handles tell.

    def request(self, message: Message) -> None:
        """Passes a request on to the nursery."""
        self._births.request(message)

    def on_idle(self, child: ChildHandle, dirty: list[str]) -> None:
        """A run of the child has ended: it is used again, or replaced."""
        self._finishing.discard(child)
        if dirty:
            logger.debug("child %d is replaced: %s", child.pid, "; ".join(dirty))
        worn = bool(dirty) or child.retiring or child.alone or child.served >= self._settings.child_runs
        if worn and child is self._shared:
            self._shared = None
        if child.kind == "async":
            if worn and not child.runs:
                self._births.retire(child)
        elif worn:
            self._births.retire(child)
        else:
            self._idle.append(child)
            self._thin_out()
        self._came.set()
        self._want_spare()

    def on_over(self, child: ChildHandle) -> None:
        """A body is over: another one may begin while its end is written."""
        if len(self._finishing) < self._settings.children:
            self._finishing.add(child)
            self._on_over()

    def on_lend(self, child: ChildHandle, running: Running, lending: bool) -> None:
        """A body waits for another run, or no longer does."""
        kind = child.kind
        limit = self._settings.async_runs if kind == "async" else self._settings.children
        granted = lending and self._lent[kind] < limit
        if running.lent != granted:
            running.lent = granted
            self._lent[kind] += 1 if granted else -1
        if lending and kind == "sync":
            child.send({"op": "lent", "ok": granted, "lent": self._lent[kind]})

    def on_gone(self, child: ChildHandle) -> None:
        """The child is dead."""
        self._births.forget(child)
        self._finishing.discard(child)
        with contextlib.suppress(ValueError):
            self._idle.remove(child)
        if child is self._shared:
            self._shared = None
        self._came.set()
        self._want_spare()

    # Runs.

    async def _run(self, claim: Claim, held: _Held) -> End:
        end = None
        for _ in range(BIRTH_TRIES):
            try:
                child = await self._child_for(claim)
            except PoolError as error:
                return End(died=True, reason="no child", last_lines=[str(error)])
            end = await self._perform(child, claim, held)
            if end is not None and (end.started or not end.died or end.reason):
                return end
            # Refused, or dead before the body began: nothing has happened, another child may have it.
        return end or End(died=True, reason="no child", last_lines=["code on disk changes all the time"])

    async def _perform(self, child: ChildHandle, claim: Claim, held: _Held) -> End | None:
        if held.killed:
            self._give_back(child)
            return End(died=True, reason="killed")
        held.child = child
        held.running = running = child.begin(claim)
        self._send_stop(claim.owner, held)
        try:
            end = await running.ended
        except asyncio.CancelledError:
            child.kill("killed")
            raise
        finally:
            held.child = held.running = None
            self._lent[claim.kind] -= running.lent
        self._remember(claim, end)
        return end

    def _send_stop(self, owner: str, held: _Held) -> None:
        if held.stop:
            self._tell(held, {"op": "stop", "owner": owner, "reason": held.stop})

    def _tell(self, held: _Held, message: Message) -> None:
        if held.child is not None:
            held.child.send(message)

    def _give_back(self, child: ChildHandle) -> None:
        if child is not self._shared:
            self.on_idle(child, [])

    def _remember(self, claim: Claim, end: End | None) -> None:
        """Whose shared child died has one of its own from then on."""
        whose = claim.user, claim.run
        if end is not None and end.died and end.shared:
            self._alone[whose] = None
            if len(self._alone) > _REMEMBERED:
                del self._alone[next(iter(self._alone))]
        elif end is not None and end.outcome is not None and end.outcome["code"] in ("completed", "failed"):
            self._alone.pop(whose, None)

    async def _child_for(self, claim: Claim) -> ChildHandle:
        if claim.kind != "async":
            return await self._take(claim.user)
        if (claim.user, claim.run) in self._alone:
            child = await self._take(claim.user)
            child.alone = True
        else:
            async with self._sharing:
                shared = self._shared
                child = shared if shared is not None and shared.usable else await self._take()
                self._shared = child
        child.kind = "async"
        self._stalls.watch(child)
        return child

    async def _take(self, user: str = "") -> ChildHandle:
        """Return an idle child of this user, else an unused one, else a new one; a spare is made ready behind it.

        Where as many are in use as may be, one of this user that will be idle in a moment goes before an unused one: it
        would take the place of another.
        """
        try:
            child = self._pick(user) or (self._pick("") if self._in_use <= self._settings.children else None)
            child = child or await self._coming(user) or self._pick("")
            if child is not None:
                return child
            for _ in range(BIRTH_TRIES - 1):
                with contextlib.suppress(PoolError):
                    return await self._births.bear()
            return await self._births.bear()
        finally:
            self._thin_out()
            self._want_spare()

    def _pick(self, user: str) -> ChildHandle | None:
        """Take the newest idle child of this user; of nobody, one that has run nothing yet."""
        child = next((child for child in reversed(self._idle) if child.usable and child.user == user), None)
        if child is not None:
            self._idle.remove(child)
        return child

    async def _coming(self, user: str) -> ChildHandle | None:
        """Waits a moment for the children of this user whose bodies are over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _END_PATIENCE
        while any(child.user == user for child in self._finishing) and loop.time() < until:
            self._came.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._came.wait(), until - loop.time())
            if (child := self._pick(user)) is not None:
                return child
        return None

    def _thin_out(self) -> None:
        """Ends idle children where more are in use than there are places and one: those first that are idle longest."""
        used = [child for child in self._idle if child.user]
        for child in used[: max(0, self._in_use - self._settings.children - 1)]:
            self._idle.remove(child)
            self._births.retire(child)

    @property
    def _in_use(self) -> int:
        """How many children run sync bodies, or have run some; those that lend their place are not counted."""
        spare = self._spare is not None and not self._spare.done()
        unused = sum(not child.user for child in self._idle)
        return self._births.serving - unused - spare - self._lent["sync"]

    def _lacks_spare(self) -> bool:
        return all(child.user for child in self._idle)

    def _want_spare(self) -> None:
        wanted = self._lacks_spare() and not self._finishing and not self._closing and self._births.possible
        if wanted and (self._spare is None or self._spare.done()):
            self._spare = asyncio.get_running_loop().create_task(self._bear_spare())

    async def _bear_spare(self) -> None:
        pause = 0.1
        while self._lacks_spare():
            try:
                child = await self._births.bear()
            except PoolError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._idle.insert(0, child)
