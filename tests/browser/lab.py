"""A JupyterLab server of our own, and a notebook opened in it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from playwright.sync_api import Browser, Error, Locator, Page

from ..support import wait_until

# No news, no update check, no autosave: what a fresh Lab would do beside what is tested.
SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
_RUN = """which => {
    window.ranAll = false;
    const {commands} = window.jupyterapp;
    commands.execute(which).finally(() => { window.ranAll = true; });
}"""
_COMMAND = "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => true)"
_OPEN = """async path => {
    const {commands, shell} = window.jupyterapp;
    const opened = await commands.execute("docmanager:open", {path});
    shell.activateById(opened.id);
    await opened.revealed;
}"""
_CLOSE = """async () => {
    const shown = window.jupyterapp.shell.currentWidget;
    await shown?.context?.sessionContext?.shutdown();
    shown?.dispose();
}"""
_HAS_KERNEL = "() => !!window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel"
# ipykernel 7 may overlook the first request on a new connection until there is another one (ipykernel issue 1554): that
# may be Lab's own, without whose answer it never takes the kernel for idle.
_ANSWERS = """async () => {
    const {kernel} = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
    const within = work => Promise.race([
        work.then(() => true, () => false),
        new Promise(done => setTimeout(() => done(false), 10_000)),
    ]);
    for (let tries = 0; tries < 6; tries++) {
        if (await within(kernel.requestExecute({code: "", silent: true, store_history: false}).done)) return true;
        await within(kernel.reconnect());  // whose promise may never settle
    }
    return false;
}"""
# Notes when the card was painted, in ms of the page's clock.
PAINTS = """() => {
    window.paints = [];
    const observer = new MutationObserver(() => {
        const at = performance.now();
        if (at - (window.paints.at(-1) ?? -1e9) > 20) window.paints.push(at);
    });
    observer.observe(document.querySelector(".nbjobs-card"),
        {subtree: true, childList: true, characterData: true, attributes: true});
    return observer;
}"""


class Lab:
    """Runs JupyterLab with configuration, data and home in folders of its own, until the block is left."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.root = folder / "notebooks"
        self.environment = environment or {}
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.url = ""
        self._windows: dict[Look, Window] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Lab:
        for name in ("notebooks", "home", "config", "data", "runtime", "ipython", "tmp"):
            (self.folder / name).mkdir()
        for plugin, values in SETTINGS.items():
            self._set(plugin, values)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(port),
                cwd=self.root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 60, "JupyterLab answers")
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)  # ends the kernels as well
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _command(self, port: int) -> list[str]:
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.root,
            "ServerApp.allow_root": True,
            "ServerApp.open_browser": False,
            "ServerApp.terminals_enabled": False,
            "IdentityProvider.token": self.token,
            "LabApp.expose_app_in_browser": True,
            "JupyterNotebookApp.expose_app_in_browser": True,
            "LabApp.extension_manager": "readonly",
        }
        return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "NBJOBS"))}
        return {
            **own,
            **self.environment,
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "JUPYTER_DATA_DIR": str(self.folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime"),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "JUPYTER_PLATFORM_DIRS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        }

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"JupyterLab ended: {(self.folder / 'log').read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=2):
                return True
        except OSError:
            return False

    def _set(self, plugin: str, values: dict[str, Any]) -> None:
        file = self.folder / "config" / "lab" / "user-settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def write(self, name: str, *cells: str) -> str:
        """Make a notebook of these code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / name)
        return name

    def open(
        self,
        browser: Browser,
        name: str,
        *,
        width: int = 1000,
        theme: str = "light",
        app: str = "lab",
        scale: float = 1,
    ) -> Notebook:
        """Open a notebook and wait until its kernel is idle; app is lab or notebook.

        A window of JupyterLab's is opened for the first notebook of a look, as loading it takes most of the time,
        and kept for those after it.
        """
        look = Look(browser, app, theme, width, scale)
        if look not in self._windows or self._windows[look].page.is_closed():
            self._set("@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {theme.title()}"})
            self._windows[look] = Window(look)
        return Notebook(self, self._windows[look], name)


class Look(NamedTuple):
    """What a notebook is looked at with."""

    browser: Browser
    app: str
    theme: str
    width: int
    scale: float


class Window:
    """A window of JupyterLab or Notebook 7."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.context = look.browser.new_context(
            viewport={"width": look.width, "height": 800},
            color_scheme=look.theme,  # type: ignore[arg-type]
            device_scale_factor=look.scale,
        )
        self.page: Page = self.context.new_page()

    def open(self, lab: Lab, name: str) -> None:
        """Show this notebook: the only one here."""
        if self.page.url.startswith(f"{lab.url}/lab"):
            self.page.evaluate(_OPEN, name)
            return
        place = f"lab/workspaces/{secrets.token_hex(4)}/tree" if self.look.app == "lab" else "notebooks"
        self.page.goto(f"{lab.url}/{place}/{name}?token={lab.token}")
        self.wait_restored()

    def wait_restored(self) -> None:
        self.page.wait_for_function("window.jupyterapp?.restored", timeout=60_000)
        self.page.evaluate("window.jupyterapp.restored.then(() => true)")

    def close(self, *, wholly: bool) -> None:
        """End the notebook and its kernel; with Notebook 7, or wholly, the window as well."""
        self.page.evaluate(_CLOSE)
        if wholly or self.look.app != "lab":
            self.context.close()


class Notebook:
    """A notebook in JupyterLab or Notebook 7.

    Attributes:
        page: Playwright's page.
        errors: errors that the page reported.
    """

    def __init__(self, lab: Lab, window: Window, name: str) -> None:
        self.lab, self.name, self._window = lab, name, window
        self.page, self.context = window.page, window.context
        self.errors: list[str] = []
        self.page.on("pageerror", self._note)
        try:
            window.open(lab, name)
            self._wait_ready()
        except BaseException:
            self.context.close()  # the next notebook gets a window of its own
            raise

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.page.remove_listener("pageerror", self._note)
        self._window.close(wholly=kind is not None)

    def _note(self, error: Error) -> None:
        self.errors.append(f"{error}\n{error.stack}")

    def _wait_ready(self) -> None:
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.page.wait_for_function(_HAS_KERNEL, timeout=60_000)
        assert self.page.evaluate(_ANSWERS), "the kernel answers"

    def reload(self) -> None:
        """Save the notebook and load the page again, while its kernel lives."""
        self.command("docmanager:save")
        self.page.reload()
        self._window.wait_restored()
        self._wait_ready()

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Run one of Lab's commands, up to its end."""
        self.page.evaluate(_COMMAND, [name, arguments or {}])

    def start_all(self) -> None:
        """Run all cells, without waiting for them."""
        self.page.evaluate(_RUN, "notebook:run-all-cells")

    def start_cell(self) -> None:
        """Run the selected cell and go on to the next, without waiting for it."""
        self.page.evaluate(_RUN, "notebook:run-cell-and-select-next")

    def watch(self, observe: str) -> None:
        """Have the page observe something by a script that returns the observer; ends what was observed before."""
        self.page.evaluate(f"() => {{ window.watching?.disconnect(); window.watching = ({observe})(); }}")

    def wait_done(self, timeout: float = 60) -> None:
        """Wait until what was started has run."""
        self.page.wait_for_function("window.ranAll === true", timeout=timeout * 1000)

    def cells(self) -> list[Any]:
        """The notebook's cells as they were saved."""
        self.command("docmanager:save")
        return list(nbformat.read(self.lab.root / self.name, as_version=4).cells)

    @property
    def card(self) -> Locator:
        return self.page.locator(".jp-OutputArea .nbjobs-card").first
