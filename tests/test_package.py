"""The package as a newcomer gets it: the wheel, in an environment with the core's dependencies and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BARE = ROOT / ".venv-bare"  # kept between runs; it takes a while to install
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FRAMEWORKS = ("jax", "pandas", "pooch", "pyarrow", "scipy", "sklearn", "tensorflow", "torch", "tqdm")
MIB = 2**20
MOST_MIB = 120
MOST_IMPORT_SECONDS = 0.10


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """A command in no particular folder, so that the checkout cannot help it."""
    return subprocess.run(
        [str(part) for part in command], cwd="/", capture_output=True, encoding="utf-8", check=False, timeout=300
    )


def done(*command: object) -> str:
    """What a command that has to succeed prints."""
    result = run(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel: Path) -> Iterator[Path]:
    """The Python of an environment with the wheel and its core dependencies; one worker at a time makes it."""
    BARE.mkdir(exist_ok=True)
    python = BARE / "env" / "bin" / "python"
    with (BARE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        constraints = ROOT / "constraints.txt"
        parts = [sys.version, json.dumps(PROJECT["dependencies"]), constraints.read_text(encoding="utf-8")]
        _once("dependencies", hashlib.sha256("\n".join(parts).encode()).hexdigest(), python, "-c", constraints, wheel)
        _once("wheel", hashlib.sha256(wheel.read_bytes()).hexdigest(), python, "--force-reinstall", "--no-deps", wheel)
    return python


def _once(what: str, key: str, python: Path, *arguments: object) -> None:
    """pip install, unless the environment was made from the very same things."""
    stamp = BARE / what
    if stamp.exists() and stamp.read_text() == key and python.exists():
        return
    stamp.unlink(missing_ok=True)
    if what == "dependencies":
        shutil.rmtree(python.parent.parent, ignore_errors=True)
        venv.create(python.parent.parent, with_pip=True)
    done(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments)
    stamp.write_text(key)


# --- what is in the wheel -------------------------------------------------------------------------------------------


def test_wheel_holds_the_package_its_types_and_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "fusionlearn/py.typed" in names
    assert "fusionlearn/testing.py" in names  # the laws are for third parties too
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    outside = [name for name in names if not re.match(r"fusionlearn(-[\d.]+\.dist-info)?/", name)]
    assert outside == []
    assert not [name for name in names if "/tests/" in name or Path(name).name.startswith(("test_", "conftest"))]


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    source = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert source <= set(zipfile.ZipFile(wheel).namelist())


def test_at_most_five_core_dependencies_besides_the_command_lines() -> None:
    names = {re.split(r"[<>=~! ]", dependency)[0] for dependency in PROJECT["dependencies"]}
    assert len(names - {"click", "rich"}) <= 5


def test_versions_agree() -> None:
    version = PROJECT["version"]
    assert importlib.metadata.version("fusionlearn") == version
    assert f'\n__version__ = "{version}"\n' in (ROOT / "src/fusionlearn/__init__.py").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_installed_dependency_is_pinned() -> None:
    pinned = set()
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, _ = line.partition("==")
            pinned.add(_plain(name))
    wanted = {_plain(name) for name in _needs("fusionlearn", {"dev", "demo", "parquet", "trees", "data"})}
    assert wanted - pinned == set()


def _needs(name: str, extras: set[str]) -> set[str]:
    """Everything that installing a distribution brings, as installed here."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen = set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        for line in importlib.metadata.requires(place[0]) or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in place[1] or {""}):
                found.add(need.name)
                waiting.append((need.name, frozenset(need.extras)))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- a bare environment ---------------------------------------------------------------------------------------------


def test_bare_install_is_small(bare: Path) -> None:
    (packages,) = (BARE / "env" / "lib").glob("python*/site-packages")
    mine = (path for path in packages.rglob("*") if path.is_file() and not path.is_symlink())
    brought = re.compile(r"(pip|setuptools|pkg_resources|_distutils_hack)([-.]|$)|distutils-precedence")
    size = sum(path.stat().st_size for path in mine if not brought.match(path.relative_to(packages).parts[0]))
    assert size / MIB <= MOST_MIB, f"{size / MIB:.0f} MiB"


def test_import_is_quick(bare: Path) -> None:
    # Processor time, not the clock's: other tests run beside this one. The first run writes the byte code.
    code = "import time, numpy; t = time.process_time(); import fusionlearn; print(time.process_time() - t)"
    seconds = [float(done(bare, "-c", code)) for _ in range(8)][1:]
    assert statistics.median(seconds) <= MOST_IMPORT_SECONDS, seconds


def test_import_loads_no_framework(bare: Path) -> None:
    code = f"import fusionlearn, fusionlearn.cli, sys; print(*sorted(set({FRAMEWORKS}) & sys.modules.keys()))"
    # asked here too, where the frameworks are installed and an import of one would succeed
    assert done(sys.executable, "-c", code).strip() == ""
    assert done(bare, "-c", code).strip() == ""


def test_every_module_imports_in_the_bare_environment(bare: Path) -> None:
    code = (
        "import importlib, pkgutil, fusionlearn\n"
        "for found in pkgutil.walk_packages(fusionlearn.__path__, 'fusionlearn.'):\n"
        "    if found.name.endswith('__main__') or '.hub.' in found.name.replace('cli.hub', ''): continue\n"
        "    importlib.import_module(found.name); print(found.name)\n"  # the hub's own parts need the extra 'hub'
    )
    assert "fusionlearn.methods.forest\n" in done(bare, "-c", code)


def test_bare_command_line_works(bare: Path) -> None:
    command = bare.parent / "fusionlearn"
    assert "summarize" in done(command, "--help")
    assert "summarize" in done(bare, "-m", "fusionlearn", "--help")
    told = done(command, "methods")
    assert all(name in told for name in ("ridge", "gaussian", "ensemble", "forest"))


def test_missing_extra_is_answered_with_its_command(bare: Path) -> None:
    code = """
import numpy as np, fusionlearn as fl
columns = {"a": fl.Number(0, 1)}
task = fl.new_task("t", columns, fl.ClassLabel("y", (("no", ("0",)), ("yes", ("1",)))), method="forest", privacy="none")
try:
    fl.summarize(task, {"a": np.array(["0.1", "0.9"]), "y": np.array(["0", "1"])})
except fl.FusionlearnError as error:
    print(error)
"""
    assert done(bare, "-c", code).strip() == 'forest needs scikit-learn: pip install "fusionlearn[trees]"'


def test_missing_extra_is_answered_with_its_command_on_the_command_line(bare: Path) -> None:
    result = run(bare.parent / "fusionlearn", "demo")
    assert result.returncode != 0
    assert 'needs scikit-learn: pip install "fusionlearn[demo]"' in result.stderr
    assert "Traceback" not in result.stderr
