"""What the owner asks of a run that this worker holds, carried out on its body.

=========  =======================================================================
asked      what happens
=========  =======================================================================
pause      the body stops at its next checkpoint, however far that is
(nothing)  a pause was taken back: the body goes on
cancel     as a pause; who has not stopped by the end of the grace is ended
now        the body is ended at once
=========  =======================================================================

A sync body is ended with its process, also where it holds the interpreter in C code. An async one is cancelled as a
task; where it goes on all the same, its process is ended, and the other bodies in there begin again elsewhere. How
the run ends is for Redis to say, when the end of the body is told: a cancel makes it cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from .answers import Reply
from .claim import Claim
from .leases import Held
from .pool import Pool

logger = logging.getLogger("nbjobs.worker")

_ENDED = ("completed", "failed", "cancelled", "dead")
_FENCED_PATIENCE = 2.0  # seconds for a body that no longer holds its run to reach a checkpoint
_TASK_PATIENCE = 1.0  # seconds for an async body that was cancelled
_HASTY_PATIENCE = 0.5  # the same where the run is to end at once


@dataclass
class Holding:
    """An attempt under way in a child.

    Attributes:
        release: why it is ended by us without fault of its own; empty where it is not.
        fenced: somebody else holds the run; its body is being ended.
        asked: what its owner asks of it at present.
        ended: why its process is ended, as a sentence for the card; empty where it is not.
    """

    held: Held
    claim: Claim
    release: str = ""
    fenced: bool = False
    asked: str = ""
    ended: str = ""


class Asked:
    """Carries out what is asked of the runs that a worker holds.

    Args:
        pool: has their bodies.
        grace: seconds that a body has to stop after a cancel.
    """

    def __init__(self, pool: Pool, grace: float) -> None:
        self._pool = pool
        self._grace = grace

    def heed(self, holding: Holding, reply: Reply) -> None:
        """Do what the answer to a renewal asks for; the same answer again changes nothing."""
        if reply.code in ("FENCED", "GONE"):
            self._fence(holding, reply)
        elif reply.control != holding.asked:
            holding.asked = reply.control
            self._ask(holding)

    def _ask(self, holding: Holding) -> None:
        owner, loop = holding.held.owner, asyncio.get_running_loop()
        if holding.asked == "now":
            self._end(holding, "it was ended at once, as its owner asked", _HASTY_PATIENCE)
        elif holding.asked == "cancel":
            self._pool.stop(owner, "cancel")
            why = f"it did not stop within the grace of {self._grace:g} s after it was cancelled"
            loop.call_later(self._grace, self._end, holding, why, _TASK_PATIENCE)
        elif holding.asked:
            self._pool.stop(owner, holding.asked)
        else:
            self._pool.go_on(owner)

    def _end(self, holding: Holding, why: str, patience: float) -> None:
        owner = holding.held.owner
        if holding.claim.kind != "async":
            self._kill(holding, why)
        elif self._pool.cancel(owner):
            asyncio.get_running_loop().call_later(patience, self._kill, holding, why)

    def _kill(self, holding: Holding, why: str) -> None:
        holding.ended = holding.ended or why
        if self._pool.kill(holding.held.owner):
            logger.info("run %s: %s", holding.held.run, why)

    def _fence(self, holding: Holding, reply: Reply) -> None:
        if not holding.fenced:
            holding.fenced = True
            owner = holding.held.owner
            if reply.state not in _ENDED:  # else its own end, whose word is still on the way to us
                logger.warning(
                    "run %s is no longer held by this worker (%s): its body is stopped", holding.held.run, reply.code
                )
            self._pool.stop(owner, "fenced")
            asyncio.get_running_loop().call_later(_FENCED_PATIENCE, self._pool.kill, owner)
