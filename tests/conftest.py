"""What all tests share: a home of their own for keys, and the folder of real data when there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the keys or the cache of the person who runs it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FUSIONLEARN_HOME", str(home))
    monkeypatch.setenv("FUSIONLEARN_CACHE", str(home / "cache"))
    monkeypatch.delenv("FUSIONLEARN_KEY", raising=False)
    return home


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; skips where there is none."""
    folder = os.environ.get("FUSIONLEARN_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data sets are needed: set FUSIONLEARN_DATA to the folder that holds them")
    return Path(folder)
