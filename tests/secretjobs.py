"""Jobs that hold a secret and let it slip in each way that is not their own printing."""

from __future__ import annotations

import os
import signal
from typing import Any

from nbjobs import job, notify, set_context, step, subscribe, tagged
from nbjobs.retries import Retry
from nbjobs.sinks.log import LogSink


class Vault:
    """An object whose repr tells what it holds."""

    def __init__(self, password: str) -> None:
        self.password = password

    def __repr__(self) -> str:
        return f"<Vault password={self.password!r}>"


class LoginError(Exception):
    """An error whose text tells all."""


def connect(config: dict[str, Any], password: str) -> None:
    vault = Vault(password)
    step.current.set({"page": 2, "token": password})
    raise LoginError(
        f"no answer of postgres://ada:{password}@db/shop?password={password} for {vault}: token: {password}, {config}"
    )


@job
def fails(config: dict[str, Any], *, password: str) -> None:
    """Notify with the secret in payload, tags and context, then fail with it in the text of the error."""
    subscribe(LogSink(), names="*")
    set_context({"api_key": password})
    with tagged(token=password):
        notify("login.tried", user="ada", password=password, config=config, vault=Vault(password))
    try:
        step("connect", connect, config, password)
    except LoginError as error:
        raise RuntimeError(f"secret={password}") from error


@job(retry_on=[Retry(LoginError, wait=0, attempts=2)])
def is_tried_again(config: dict[str, Any], *, password: str) -> None:
    step("connect", connect, config, password)


@job
def returns(config: dict[str, Any], *, password: str) -> dict[str, Any]:
    """Return it, and have it remembered: as data, which must come back."""
    step("login", lambda: {"password": password})
    return {"config": config, "vault": {"secret": password}}


@job
def returns_no_data(config: dict[str, Any], *, password: str) -> Vault:
    return Vault(password)


@job
def dies(config: dict[str, Any], *, password: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@job
async def async_fails(config: dict[str, Any], *, password: str) -> None:
    raise LoginError(f"api_key: '{password}'")


ALL = {
    fails: "failed",
    is_tried_again: "failed",
    returns: "completed",
    returns_no_data: "completed",
    dies: "dead",
    async_fails: "failed",
}
