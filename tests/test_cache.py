"""Features kept on a client's own disk: used where they fit exactly, never needed, never in the way."""

import dataclasses
import os
import stat
from typing import ClassVar

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import cache, errors, run
from fusionlearn.encoder import Chain, Encoder, Features
from fusionlearn.encoders.identity import Identity

COLUMNS = {"x": fl.Vector(3, -4, 4)}
LABEL = fl.ClassLabel("kind", {"a": ["0"], "b": ["1"]})
CALLS: list[int] = []


@dataclasses.dataclass(frozen=True)
class Doubled(Encoder):
    """Twice the columns, slowly."""

    name: ClassVar[str] = "doubled"
    SLOW: ClassVar[bool] = True
    times: float = 2.0

    def features(self, schema, before):
        return Features(("a", "b", "c"), (100.0,) * 3)

    def encode(self, data, schema, prior):
        CALLS.append(len(data["x"]))
        x = (data["x"] * self.times + prior.get("doubled.shift", 0.0)).astype(np.float32)
        return {"x": x} | ({"y": data["y"]} if "y" in data else {})


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FUSIONLEARN_CACHE_BYTES", raising=False)
    CALLS.clear()


def rows(seed=0, count=50):
    rng = np.random.default_rng(seed)
    return {"x": rng.uniform(-4, 4, (count, 3)), "kind": rng.integers(0, 2, count)}


def encoded(data, encoder=None, prior=None, columns=None):
    schema = fl.Schema(columns or COLUMNS, LABEL)
    return Chain((encoder or Doubled(),)).encode(schema.read(data).data, schema, prior or {})


def test_features_are_computed_once_and_come_back_the_same():
    first, again = encoded(rows()), encoded(rows())
    assert CALLS == [50]
    assert np.array_equal(first["x"], again["x"])
    assert again["x"].dtype == np.float32
    assert np.array_equal(first["y"], again["y"])


@pytest.mark.parametrize(
    "other",
    [
        {"data": rows(seed=1)},
        {"data": rows(count=49)},
        {"data": rows(), "encoder": Doubled(times=3.0)},
        {"data": rows(), "prior": {"doubled.shift": np.array([1.0])}},
        {"data": rows(), "columns": {"x": fl.Vector(3, -5, 5)}},
    ],
    ids=["rows", "fewer rows", "settings", "prior", "schema"],
)
def test_anything_else_is_computed_anew(other):
    encoded(rows())
    encoded(**other)
    assert len(CALLS) == 2


def test_what_does_not_matter_does_not_count():
    encoded(rows())
    changed = rows()
    changed["kind"] = 1 - changed["kind"]
    assert np.array_equal(encoded(changed)["y"], changed["kind"])
    encoded(rows(), prior={"network.weight": np.zeros(3)})
    assert len(CALLS) == 1


def test_a_task_uses_it_and_gives_the_same_update():
    def task():
        return fl.new_task("t", COLUMNS, LABEL, encoder=Doubled(), method="ridge", privacy="none")

    first, again = (run.summarize(task(), rows(), rng=np.random.default_rng(0)) for _ in range(2))
    assert len(CALLS) == 1
    for name, array in first.arrays.items():
        assert np.array_equal(array, again.arrays[name])


def test_an_interrupted_run_goes_on_where_it_stopped():
    task = fl.new_task("t", COLUMNS, LABEL, encoder=Doubled(), method="ridge", privacy="none")
    pieces = [rows(seed) for seed in range(4)]

    def cut():
        yield from pieces[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.summarize(task, cut())
    run.summarize(task, pieces)
    assert len(CALLS) == 4


def test_entries_are_for_their_owner_alone():
    encoded(rows())
    (entry,) = cache.folder().iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.folder().stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{", b"not a file of ours at all"])
def test_a_broken_entry_is_computed_anew_and_replaced(content):
    first = encoded(rows())["x"]
    (entry,) = cache.folder().iterdir()
    entry.write_bytes(content)
    assert np.array_equal(encoded(rows())["x"], first)
    assert len(CALLS) == 2
    encoded(rows())
    assert len(CALLS) == 2


def test_the_oldest_entries_go_when_there_are_too_many(monkeypatch):
    monkeypatch.setenv("FUSIONLEARN_CACHE_BYTES", "2000")  # an entry takes about 680
    for seed in range(5):
        encoded(rows(seed))
        for entry in cache.folder().iterdir():  # as if an hour passed
            told = entry.stat()
            os.utime(entry, ns=(told.st_atime_ns - 3600 * 10**9, told.st_mtime_ns - 3600 * 10**9))
    assert sum(entry.stat().st_size for entry in cache.folder().iterdir()) <= 2000
    CALLS.clear()
    encoded(rows(4))
    assert CALLS == []
    encoded(rows(0))
    assert CALLS == [50]


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("FUSIONLEARN_CACHE_BYTES", "0")
    encoded(rows())
    encoded(rows())
    assert len(CALLS) == 2
    assert not cache.folder().exists()


def test_a_limit_that_is_none(monkeypatch):
    monkeypatch.setenv("FUSIONLEARN_CACHE_BYTES", "8 GB")
    with pytest.raises(errors.SettingsError, match="FUSIONLEARN_CACHE_BYTES is set to something that is no number"):
        encoded(rows())


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FUSIONLEARN_CACHE", str(tmp_path / "file"))
    first, again = encoded(rows()), encoded(rows())
    assert np.array_equal(first["x"], again["x"])
    assert len(CALLS) == 2


def test_fast_encoders_keep_nothing():
    encoded(rows(), encoder=Identity())
    assert not cache.folder().exists()
