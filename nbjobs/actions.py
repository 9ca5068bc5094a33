"""What can be done with a run now, each with its consequence in the label.

>>> from nbjobs.view import empty
>>> [action.label for action in actions(empty("r1", "shop.import_orders"))]
['Pause', 'Cancel']
"""

from __future__ import annotations

import shlex

import msgspec

from . import phrases, words
from .runview import HELD, RunView

__all__ = ["Action", "actions"]


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One button.

    Attributes:
        do: ``cancel kill pause unpause retry accept restart``: a method of `Run`, ``kill`` being a cancel at once.
        label: what it does and what that means, in words.
        asks: the label of the second click, where work would be lost; empty: the first one does it.
        from_step: for ``retry``: begin again at this step.
        command: what does the same in a terminal; empty where nothing does.
    """

    do: str
    label: str
    asks: str = ""
    from_step: str = ""
    command: str = ""


def actions(view: RunView) -> tuple[Action, ...]:
    """The actions that a run's state allows, the most likely one first."""
    if view.state == "paused":
        return (*_going_on(view), _restart(view), _cancel(view))
    if view.state in ("failed", "dead", "cancelled"):
        return _retries(view)
    if view.state in HELD:
        return _held(view)
    if view.state in ("scheduled", "queued", "retrying"):
        return (Action("pause", "Pause", command=f"nbjobs pause {view.run}"), _cancel(view))
    return ()


def _held(view: RunView) -> tuple[Action, ...]:
    kill = Action(
        "kill",
        "Kill now",
        asks="Kill now: what is not committed is done again",
        command=f"nbjobs cancel --now {view.run}",
    )
    if view.state == "cancelling":
        return (kill,)
    if view.state == "pausing":
        return (Action("unpause", "Do not pause", command=f"nbjobs unpause {view.run}"), _cancel(view), kill)
    until = (
        "at the next step" if not view.in_step else "after this item" if view.done is not None else "after this step"
    )
    return (Action("pause", f"Pause {until}", command=f"nbjobs pause {view.run}"), _cancel(view), kill)


def _cancel(view: RunView) -> Action:
    kept = " (keeps progress)" if view.ended_steps or view.cursor or view.state in HELD else ""
    return Action("cancel", f"Cancel{kept}", command=f"nbjobs cancel {view.run}")


def _going_on(view: RunView) -> tuple[Action, ...]:
    if "changed" in view.marks:
        return (Action("accept", f"Accept the change and resume{_place(view)}"),)
    return (Action("unpause", f"Resume{_place(view)}", command=f"nbjobs unpause {view.run}"),)


def _retries(view: RunView) -> tuple[Action, ...]:
    found = [Action("retry", f"Retry{_place(view)}", command=f"nbjobs retry {view.run}")]
    done = [step.name for step in view.steps if step.state == "done"]
    if view.step and done and (view.done or view.cursor):
        found.append(_from(view, view.step, phrases.place(view)[0]))
    first = done[0] if done else view.step
    if first and len(done) == view.ended_steps and _progress(view):  # else the first step's name is not kept
        found.append(_from(view, first, 1))
    return tuple(found)


def _from(view: RunView, name: str, ordinal: int) -> Action:
    label = f"Restart from step {words.count(ordinal)}"
    steps = view.ended_steps if ordinal == 1 else 0
    asks = f"{label}: forgets {_lost(view, steps)}"
    command = f"nbjobs retry --from-step {shlex.quote(name)} {view.run}"
    return Action("retry", label, asks=asks, from_step=name, command=command)


def _restart(view: RunView) -> Action:
    if not _progress(view):
        return Action("restart", "Restart from step 1")
    return Action(
        "restart", "Restart from step 1", asks=f"Restart from step 1: forgets {_lost(view, view.ended_steps)}"
    )


def _progress(view: RunView) -> bool:
    return bool(view.ended_steps or view.done or view.cursor)


def _lost(view: RunView, steps: int) -> str:
    parts = [words.plural(steps, "step")] if steps > 0 else []
    if view.done:
        parts.append(words.plural(view.done, "item"))
    return " and ".join(parts) or "its progress"


def _place(view: RunView) -> str:
    """Where it goes on: at the count, else at the step."""
    if view.done:
        return f" from {words.count(view.done)}"
    return f" from step {words.count(phrases.place(view)[0])}" if view.ended_steps else ""
