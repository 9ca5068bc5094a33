"""Make the virtual environment that the Makefile works in, and find what else a target needs.

Run by the Makefile with the Python it was given. It uses the standard library only, and is written so that an
older Python can still say what is wrong with it:

    python3 .ci/environment.py .venv dev --npm --needs chromium --needs redis-server

It does nothing where all is there already. It installs again when pyproject.toml has changed, and starts the
environment afresh when it was made with another Python.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 10), (3, 13))
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
HELD_BY_DEV = {"embedded", "lab", "otel", "demo"}  # extras
PROGRAMS = {  # name: (where it may be found, Debian's package)
    "chromium": (("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"), "chromium"),
    "redis-server": (("redis-server", "valkey-server"), "redis-server"),
}


def fail(*lines):
    """End with a message that says what was found and what to do."""
    sys.exit("make: " + "\n      ".join(lines))


def say(line):
    """Tell what is being done now: some of it takes a minute."""
    print(f"make: {line}", flush=True)


def runs(name):
    """Whether a Python of this name is on PATH and starts: a version manager's stand-in may not."""
    return shutil.which(name) is not None and not subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL)


def check_python():
    """Refuse a Python outside 3.10 to 3.13, and name one on PATH that would do."""
    if SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        return
    others = (f"python3.{minor}" for minor in range(SUPPORTED[0][1], SUPPORTED[1][1] + 1))
    other = next(filter(runs, others), "path/to/python3.12")
    fail(
        f"found Python {VERSION} ({sys.executable}), expected 3.10 to 3.13",
        f"Name another one: make PYTHON={other} …",
    )


def debian_may_install():
    """Whether packages can be installed without asking anybody."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def debian_install(packages):
    """Install Debian packages; true if that worked."""
    say(f"installing {' '.join(packages)} with apt-get")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-q"], install):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.stderr.write(done.stdout.decode(errors="replace")[-2000:])
            return False
    return True


def has_venv():
    """Whether this Python can make a virtual environment: Debian ships the two halves apart."""
    code = "import venv, ensurepip"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def check_venv_module():
    """Install Debian's half of the venv module where it is missing and may be installed, else say so."""
    if has_venv():
        return
    package = f"python{VERSION}-venv"
    of_debian = sys.executable.startswith("/usr/bin/")
    if of_debian and debian_may_install() and debian_install([package]) and has_venv():
        return
    fail(
        f"{sys.executable} has no venv module, and the virtual environment is made with it",
        f"On Debian and Ubuntu: sudo apt-get install {package}",
    )


def missing_programs(names):
    """Return those of the programs that are not on PATH; $CHROMIUM may name a browser elsewhere."""
    given = {"chromium"} if shutil.which(os.environ.get("CHROMIUM", "")) else set()
    return [name for name in names if name not in given and not any(map(shutil.which, PROGRAMS[name][0]))]


def check_programs(names):
    """Install the Debian packages of programs that are missing, or name them all at once."""
    missing = missing_programs(names)
    packages = [PROGRAMS[name][1] for name in missing]
    if missing and debian_may_install() and debian_install(packages):
        missing = missing_programs(names)
    if missing:
        fail(
            f"not on PATH: {', '.join(missing)} (the tests use a real browser and a real Redis)",
            f"On Debian and Ubuntu: sudo apt-get install {' '.join(packages)}",
        )


class Environment:
    """The virtual environment in ``path``, and what it is stamped to hold."""

    def __init__(self, path):
        self.path = path
        self.python = path / "bin" / "python"
        self.stamp = path / "nbjobs-installed.json"
        self.wanted = {
            "python": VERSION,
            "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
            "root": str(ROOT),
        }

    def held(self):
        """Return what the stamp says; nothing where there is none, or the interpreter is gone."""
        try:
            return json.loads(self.stamp.read_text()) if self.python.exists() else {}
        except (OSError, ValueError):
            return {}

    def ensure(self, wanted):
        """Have nbjobs installed here, editable, with the extras."""
        held = self.held()
        extras = set(held.get("extras", ()))
        current = all(held.get(key) == value for key, value in self.wanted.items())
        there = extras | HELD_BY_DEV if "dev" in extras else extras
        if current and there.issuperset(wanted):
            return
        check_venv_module()
        if held.get("python") != self.wanted["python"]:
            self.create(clear=bool(held))
            extras = set()
        self.install(sorted(extras.union(wanted)))

    def create(self, clear):
        """Make the environment; only one that this script has made is ever cleared."""
        say(f"making {self.path} with Python {VERSION}")
        command = [sys.executable, "-m", "venv", *(["--clear"] if clear else []), str(self.path)]
        if subprocess.run(command).returncode:
            fail(f"could not make the virtual environment in {self.path}", "Remove that folder and try again.")

    def install(self, extras):
        """Install the project with its extras, and stamp the environment."""
        say(f"installing nbjobs for {' and '.join(extras)} into {self.path}; this takes a minute or two")
        pip = [str(self.python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        if subprocess.run([*pip, "--editable", f"{ROOT}[{','.join(extras)}]"]).returncode:
            fail(
                "pip could not install the packages; its own message stands above",
                "It needs a package index: your network, or an index named in pip's configuration.",
            )
        self.stamp.write_text(json.dumps(dict(self.wanted, extras=extras)))


class NodeModules:
    """The npm packages of the web files in ``labextension/``, as its lock file names them."""

    def __init__(self, environment):
        self.environment = environment
        self.folder = ROOT / "labextension"
        self.stamp = self.folder / "node_modules" / ".nbjobs-installed"
        self.wanted = hashlib.sha256((self.folder / "package-lock.json").read_bytes()).hexdigest()

    def ensure(self):
        """Have the packages installed; with Node.js from PyPI where this machine has none."""
        if self.stamp.exists() and self.stamp.read_text() == self.wanted:
            return
        path = os.environ["PATH"]
        if not (shutil.which("node") and shutil.which("npm")):
            self.environment.ensure(["dev", "node"])
            path = os.pathsep.join([str(self.environment.path.resolve() / "bin"), path])
        say("installing the npm packages that check the web files")
        command = [shutil.which("npm", path=path) or "npm", "ci"]
        if subprocess.run(
            command, cwd=str(self.folder), env=dict(os.environ, PATH=path), stdout=subprocess.PIPE
        ).returncode:
            fail(
                "npm could not install the packages; its own message stands above",
                "It needs a package index: your network, or a registry named in npm's configuration.",
            )
        self.stamp.write_text(self.wanted)


def main():
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Prepare the environment that make works in.")
    parser.add_argument("path", type=Path)
    parser.add_argument("extras", nargs="*")
    parser.add_argument("--npm", action="store_true", help="also the packages that check and test the web files")
    parser.add_argument("--needs", action="append", default=[], choices=sorted(PROGRAMS))
    options = parser.parse_args()
    check_python()
    check_programs(options.needs)
    if options.extras:
        Environment(options.path).ensure(options.extras)
    if options.npm:
        NodeModules(Environment(options.path)).ensure()


if __name__ == "__main__":
    main()
