"""The demo: what it claims holds, by files, and people can read it."""

import io
import json
import os
import resource
import subprocess
import sys

import pytest

from fusionlearn import demo

pytest.importorskip("sklearn")
pytest.importorskip("rich")


@pytest.fixture(scope="module")
def result():
    return demo.rows(seed=0)


def test_ridge_on_random_features_is_within_half_a_point_of_the_best_pooled_model(result):
    headline = result["fused"][-1]
    assert headline["name"].startswith("ridge")
    assert headline["accuracy"] >= max(row["accuracy"] for row in result["pooled"]) - 0.005
    assert {row["name"] for row in result["pooled"]} == {"logistic regression", "ridge", "RBF-SVC"}


def test_clients_are_uneven_and_isolated_ones_poor(result):
    split = result["partition"]
    assert (split["clients"], split["alpha"]) == (20, 0.1)
    assert split["rows"][0] * 10 < split["rows"][2]
    assert result["local"]["mean"] < result["local"]["best"] < min(row["accuracy"] for row in result["fused"])


def test_exact_methods_equal_their_pooled_model(result):
    measured = [row for row in result["fused"] if "difference" in row]
    assert [row["name"] for row in measured] == ["gaussian", "ridge", "ridge, 256 random features"]
    assert all(row["difference"] <= 1e-9 and row["changed_answers"] == 0 for row in measured)
    assert result["fused"][-1]["exact"]


def test_bytes_and_contacts_are_counted(result):
    assert all(row["contacts"] == 1 and row["bytes"] > 1000 for row in result["fused"])
    gram = 8 * 2049 * 2050 // 2
    assert result["fused"][-1]["bytes"] == pytest.approx(gram, rel=0.03)


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_a_terminal(result, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO())
    demo.render(result, console)
    text = console.file.getvalue()
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    for row in result["fused"]:
        [line] = [line for line in lines if f"fused {row['name']} " in line]
        assert f"{row['accuracy']:.1%}" in line
        assert line.endswith("no" if not row["exact"] else "yes, to 1e-9" if "difference" in row else "yes")
    # No cell and no heading is broken over two lines: one line a model, two for the local ones, one for the headings.
    table = [line for line in lines if line.strip() and "─" not in line]
    first, last = (next(i for i, line in enumerate(table) if word in line) for word in ("contacts", "pooled RBF-SVC"))
    assert last - first == 2 + len(result["fused"]) + len(result["pooled"])
    assert all(heading in table[first] for heading in ("accuracy", "bytes each", "equals pooled"))
    assert "17.0 MB" in text


def test_whole_process_for_machines(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "fusionlearn", "demo", "--json"],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "FUSIONLEARN_HOME": str(tmp_path)},
    )
    told = json.loads(done.stdout)
    assert told["ok"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of processor time, so that a busy machine does not turn the test red.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
    assert not any(tmp_path.iterdir())  # it makes no keys and leaves no files
