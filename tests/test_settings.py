from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Application, Config

from nbjobs import environment as environments
from nbjobs import settings
from nbjobs.errors import SettingsError
from nbjobs.settings import NAMES, NbJobs, configure, current, default_user, environment, set_current

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A process without settings: no variables, an empty config directory."""
    for name in list(os.environ):
        if name.startswith("NBJOBS_") or name == "JUPYTERHUB_USER":
            monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.mkdir()
    monkeypatch.setattr("nbjobs.sources._config_path", lambda: [str(config)])
    set_current(None)
    yield config
    set_current(None)


def test_the_defaults_are_those_of_the_design() -> None:
    """Every setting has its documented default."""
    s = NbJobs()
    assert (s.redis_url, s.queue_redis_url, s.queue, s.adapter) == (None, None, None, "arq")
    assert (s.lease, s.renew, s.sweep, s.commit_interval, s.grace) == (15, 5, 5, 0.05, 25)
    assert s.release_wait == [0, 1, 10, 60]
    assert (s.crash_wait, s.max_crashes, s.keep, s.idle_exit) == ([0, 10, 60], 3, 604800, 600)
    assert (s.child_runs, s.async_runs, s.run_events, s.user_events) == (1000, 100, 1000, 5000)
    assert s.children >= 1
    assert Path(s.data_dir).name == "nbjobs"
    assert Path(s.runtime_dir) == Path(s.data_dir, "run")


def test_later_sources_win(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, then the environment, then an application's config, then the call."""
    (clean / "jupyter_config.py").write_text("c.NbJobs.grace = 1\nc.NbJobs.sweep = 1\nc.NbJobs.keep = 1")
    (clean / "nbjobs_config.py").write_text("c.NbJobs.sweep = 2\nc.NbJobs.keep = 2\nc.NbJobs.lease = 20")
    (clean / "nbjobs_config.json").write_text(json.dumps({"NbJobs": {"keep": 3, "lease": 30, "renew": 1}}))
    monkeypatch.setenv("NBJOBS_LEASE", "40")
    monkeypatch.setenv("NBJOBS_RENEW", "4")
    monkeypatch.setenv("NBJOBS_CHILDREN", "4")
    config = Config()
    config.NbJobs.renew = 5
    config.NbJobs.children = 5
    s = NbJobs.load(config, children=6)
    assert (s.grace, s.sweep, s.keep, s.lease, s.renew, s.children) == (1, 2, 3, 40, 5, 6)


def test_environment_variables_mean_the_same_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is read as the trait's type; an empty variable sets nothing."""
    for name, text in {
        "REDIS_URL": "redis://db",
        "CRASH_WAIT": "1, 2.5",
        "ACCEPT_CODE": "True",
        "COMMIT_INTERVAL": "0.1",
        "ADAPTER": "inline",
        "QUEUE": "",
        "USER": "ada",
    }.items():
        monkeypatch.setenv(f"NBJOBS_{name}", text)
    s = NbJobs.load()
    assert (s.redis_url, s.crash_wait, s.accept_code) == ("redis://db", [1, 2.5], True)
    assert (s.commit_interval, s.adapter, s.queue, s.user) == (0.1, "inline", None, "ada")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("NBJOBS_LEASE", "soon", "setting lease is 'soon' in the environment, expected a number"),
        ("NBJOBS_CHILDREN", "2.5", "setting children is '2.5' in the environment, expected a whole number"),
        ("NBJOBS_ACCEPT_CODE", "maybe", "setting accept_code is 'maybe' .* expected true or false"),
        ("NBJOBS_CRASH_WAIT", "1,x", "expected numbers separated by commas"),
        ("NBJOBS_REDIS_ULR", "x", "did you mean NBJOBS_REDIS_URL"),
        ("NBJOBS_ADAPTER", "celery", "adapter"),
    ],
)
def test_wrong_variables_are_named(monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str) -> None:
    """The message names the setting, what was found and what was expected."""
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError, match=message):
        NbJobs.load()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"leese": 1}, "unknown setting 'leese' in the call: did you mean lease"),
        ({"zzz": 1}, "there are accept_code, adapter"),
        ({"lease": "long"}, "lease"),
        ({"lease": -1}, "setting lease is -1.0, expected a number of seconds above 0"),
        ({"lease": float("nan")}, "lease"),
        ({"keep": float("inf")}, "keep"),
        ({"grace": -1}, "grace"),
        ({"renew": 15}, "renew is 15 s and lease 15 s"),
        ({"children": 0}, "setting children is 0, expected 1 or more"),
        ({"max_crashes": -1}, "max_crashes"),
        ({"crash_wait": [-1]}, "crash_wait"),
        ({"release_wait": [-1]}, "release_wait"),
        ({"queue": "a b"}, "queue 'a b' cannot be used"),
        ({"user": ""}, "user is empty"),
        ({"redis_url": "localhost"}, "redis_url"),
        ({"redis_url": "localhost:6379"}, "setting redis_url is localhost:6379, expected redis://"),
        ({"redis_url": f"ada:{SECRET}@db:6379"}, r"setting redis_url is \*\*\*, expected redis://"),
        ({"redis_url": f"http://u:{SECRET}@db"}, r"http://u:\*\*\*@db, expected redis://"),
        ({"adapter": "celery"}, "adapter"),
    ],
)
def test_values_that_cannot_be_used_are_refused(values: dict[str, Any], message: str) -> None:
    """A bad value or unknown name raises SettingsError, a secret is not in its text."""
    with pytest.raises(SettingsError, match=message) as caught:
        NbJobs(**values)
    assert SECRET not in str(caught.value)


def test_config_files_name_themselves_in_errors(clean: Path) -> None:
    """An unknown name or a broken file of our own is an error that names the file."""
    path = clean / "nbjobs_config.py"
    path.write_text("c.NbJobs.leese = 1")
    with pytest.raises(SettingsError, match=r"'leese' in .*nbjobs_config\.py"):
        NbJobs.load()
    path.write_text("NbJobs = 1 / 0")
    with pytest.raises(SettingsError, match=r"nbjobs_config\.py cannot be read: ZeroDivisionError"):
        NbJobs.load()


def test_a_broken_file_of_jupyter_is_left_out(clean: Path, caplog: pytest.LogCaptureFixture) -> None:
    """jupyter_config may be meant for another environment: a warning, and the rest counts."""
    (clean / "jupyter_config.py").write_text("import no_such_module\nc.NbJobs.lease = 20")
    (clean / "nbjobs_config.py").write_text("c.NbJobs.sweep = 2")
    with caplog.at_level(logging.WARNING, "nbjobs.settings"):
        s = NbJobs.load()
    assert (s.lease, s.sweep) == (15, 2)
    assert "no_such_module" in caplog.text


def test_a_file_of_jupyter_without_our_section_is_not_run(clean: Path) -> None:
    """Config that does not mention NbJobs is never executed."""
    (clean / "jupyter_config.py").write_text("raise SystemExit('executed')")
    assert NbJobs.load().lease == 15


def test_the_real_config_directories_are_jupyters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """JUPYTER_CONFIG_DIR is one of the places, as for every jupyter command."""
    (tmp_path / "nbjobs_config.py").write_text("c.NbJobs.lease = 77")
    code = "from nbjobs.settings import current; print(current().lease)"
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "77.0"


def test_command_lines_mean_the_same_traits() -> None:
    """An application's ``--NbJobs.lease=30`` arrives, its text read as the trait's type."""

    class App(Application):
        classes = [NbJobs]  # noqa: RUF012

    app = App()
    app.parse_command_line(["--NbJobs.lease=30", "--NbJobs.crash_wait=1,2", "--NbJobs.accept_code=true"])
    s = NbJobs.load(app.config)
    assert (s.lease, s.crash_wait, s.accept_code) == (30, [1, 2], True)
    assert NbJobs(parent=app).lease == 30
    app.parse_command_line(["--NbJobs.lease=long"])
    with pytest.raises(SettingsError, match="'long' in the command line"):
        NbJobs.load(app.config)


def test_lists_in_config_files_can_be_added_to(clean: Path) -> None:
    """``c.NbJobs.crash_wait.append(600)`` adds to the default."""
    (clean / "nbjobs_config.py").write_text("c.NbJobs.crash_wait.append(600)")
    assert NbJobs.load().crash_wait == [0, 10, 60, 600]


def test_settings_are_loaded_once_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`current` looks at the sources at its first call; `set_current` replaces what it returns."""
    monkeypatch.setenv("NBJOBS_LEASE", "40")
    first = current()
    monkeypatch.setenv("NBJOBS_LEASE", "41")
    assert current() is first
    assert first.lease == 40
    set_current(None)
    assert current().lease == 41
    mine = NbJobs(lease=42)
    set_current(mine)
    assert current() is mine


def test_configure_changes_what_it_names_and_keeps_the_rest() -> None:
    """Named settings change, those given before stay, defaults follow what they depend on."""
    assert current().accept_code is True
    configure(redis_url="redis://db", lease=20)
    s = configure(sweep=2)
    assert (s.redis_url, s.lease, s.sweep) == ("redis://db", 20, 2)
    assert s.accept_code is False
    assert current() is s
    with pytest.raises(SettingsError):
        configure(lease=-1)
    assert current() is s


def test_code_is_accepted_only_embedded_unless_told() -> None:
    """`accept_code` follows `redis_url` until it is set, and then stays."""
    assert NbJobs().accept_code is True
    assert NbJobs(redis_url="redis://db").accept_code is False
    configure(redis_url="redis://db", accept_code=False)
    assert configure(redis_url=None).accept_code is False


def test_settings_travel_to_other_processes() -> None:
    """The wire holds all values as JSON and gives equal settings; unknown names are left out."""
    s = NbJobs(redis_url=f"redis://:{SECRET}@db", lease=20, queue="gpu")
    wire = json.loads(json.dumps(s.to_wire()))
    assert set(wire) == set(NAMES)
    assert NbJobs.from_wire({**wire, "of_next_year": 1}).to_wire() == s.to_wire()


def test_secrets_are_never_printed() -> None:
    """Neither repr nor str nor pickle nor an error shows a password."""
    s = NbJobs(redis_url=f"redis://:{SECRET}@db", queue_redis_url=f"redis://a:{SECRET}@q")
    shown = f"{s!r} {s} {s.__dict__.get('config')} {vars(s).get('_load_config')}"
    assert SECRET not in shown
    assert "redis://:***@db" in shown
    with pytest.raises(TypeError, match="to_wire"):
        pickle.dumps(s)


def test_the_queue_of_an_embedded_user_is_that_of_the_environment() -> None:
    """Embedded: one queue per environment; else 'default'; a name that is set wins."""
    assert NbJobs().queue_name == environment().hash
    assert NbJobs(redis_url="redis://db").queue_name == "default"
    assert NbJobs(queue="gpu").queue_name == "gpu"
    assert NbJobs(redis_url="redis://db").queue_url == "redis://db"
    assert NbJobs(queue_redis_url="redis://q").queue_url == "redis://q"


def test_crash_waits_end_with_their_last_entry() -> None:
    """The n-th crash in a row waits for the n-th entry, later ones for the last."""
    s = NbJobs(crash_wait=[1, 2])
    assert [s.wait_after_crash(k) for k in (0, 1, 2, 3)] == [1, 1, 2, 2]
    assert NbJobs(crash_wait=[]).wait_after_crash(1) == 0


def test_an_environment_is_interpreter_directory_and_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its hash is stable, and another directory or path is another environment."""
    here = environment()
    assert here == environment()
    assert here.python == sys.executable
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    longer = environment()
    monkeypatch.chdir(tmp_path)
    assert len({here.hash, longer.hash, environment().hash}) == 3
    monkeypatch.setattr(sys, "path", ["", "lib", "", Path("x")])
    assert environment().path == (str(tmp_path), str(tmp_path / "lib"))


@pytest.mark.weather("A4")
def test_the_names_of_one_interpreter_are_one_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``python`` and ``python3.11`` of an installation share a worker; of two virtual environments they do not."""
    names = [
        path for path in Path(sys.executable).parent.glob("python*") if path.resolve() == Path(sys.executable).resolve()
    ]
    told = "import runpy, sys; print(runpy.run_path(sys.argv[1])['environment']().hash)"
    command = ["-c", told, str(Path(environment.__code__.co_filename))]
    said = {subprocess.run([name, *command], capture_output=True, text=True, check=True).stdout for name in names}
    assert len(said) == 1
    mine = environment().hash
    monkeypatch.setattr(sys, "executable", f"{sys.executable}3.99")
    assert environment().hash == mine
    (tmp_path / "link").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "link"))
    assert environment().hash == mine
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert environment().hash != mine


def test_a_deleted_directory_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment can be named although its directory is gone."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert environment().cwd == ""


def test_the_user_is_found_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """NBJOBS_USER, then JUPYTERHUB_USER, then the account of the operating system."""
    account = default_user()
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert default_user() == account != "somebody-else"
    monkeypatch.setenv("JUPYTERHUB_USER", "hub")
    assert NbJobs().user == "hub"
    monkeypatch.setenv("NBJOBS_USER", "ada")
    assert default_user() == NbJobs.load().user == "ada"


def test_an_account_without_a_name_is_a_user_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose user number has no name, the number is the name."""
    pwd = pytest.importorskip("pwd")

    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert environments._os_user() == f"uid{os.getuid()}"


def test_importing_the_settings_loads_no_heavy_package() -> None:
    """IPython, tornado, arq, anywidget, redis and jupyter_core stay unloaded."""
    code = (
        "import sys, nbjobs.settings, nbjobs.codec, nbjobs.events, nbjobs.keys\n"
        "print([m for m in ('IPython','tornado','arq','anywidget','jupyter_core','numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_setting_has_help() -> None:
    """`--help-all` explains each setting."""
    assert all(trait.help for trait in NbJobs.class_own_traits(config=True).values())
    assert set(settings.NbJobs.class_own_traits(config=True)) == set(NAMES)
