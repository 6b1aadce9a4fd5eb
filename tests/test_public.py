"""The server's own unlabelled rows: `fuse --public`, from the file to what the average learns of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.test_cli import Round, call, refused, rows, table

import fusionlearn as fl
from fusionlearn import file, method, run
from fusionlearn.errors import DataError, SettingsError

pytest.importorskip("torch")
pytest.importorskip("sklearn")

FEATURES = ("age", "chol", "ward")
SETTINGS = ', student = "mlp:hidden=8", epochs = 3'


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> tuple[Round, list[Path]]:
    """Three clients' students, and public rows that nobody has labelled."""
    a_round = Round(tmp_path_factory.mktemp("public"), method="distill", settings=SETTINGS)
    table(a_round.folder / "public.csv", [row[:3] for row in rows(300, 9)], FEATURES)
    return a_round, [a_round.update(site, "", "--teacher", "forest:trees=3") for site in range(3)]


def columns(count: int, seed: int) -> dict[str, Any]:
    cells = zip(*rows(count, seed), strict=True)
    return {name: np.array(column) for name, column in zip((*FEATURES, "sick"), cells, strict=True)}


def test_public_rows_reach_the_method(students: tuple[Round, list[Path]]) -> None:
    a_round, updates = students
    public = a_round.folder / "public.csv"
    plain = a_round.model(*updates, name="plain.fusion")
    taught = a_round.model(*updates, name="taught.fusion", options=("--public", public, "--unsigned"))
    assert "public_rows" not in plain["findings"]
    assert taught["findings"]["public_rows"] == 300
    read = [file.read(update) for update in updates]
    known, report = fl.fuse(file.read(a_round.task), read, public=columns(300, 9))
    assert taught["digest"] == file.digest(known)
    assert report.findings["public_rows"] == 300
    before = file.read(a_round.folder / "plain.fusion").arrays
    assert any((before[name] != array).any() for name, array in known.arrays.items())


def test_labels_among_public_rows_are_not_looked_at(students: tuple[Round, list[Path]]) -> None:
    a_round, updates = students
    labelled = table(a_round.folder / "labelled.csv", [[*row[:3], "what nobody knows"] for row in rows(300, 9)])
    digests = {
        a_round.model(*updates, name="any.fusion", options=("--public", path, "--unsigned"))["digest"]
        for path in (labelled, a_round.folder / "public.csv")
    }
    assert len(digests) == 1


def test_public_rows_come_with_a_map_of_their_own(students: tuple[Round, list[Path]]) -> None:
    a_round, updates = students
    foreign = [[row[0], row[1], {"a": "one", "b": "two", "c": "three"}[str(row[2])]] for row in rows(300, 9)]
    path = table(a_round.folder / "foreign.csv", foreign, ("years", "chol", "ward"))
    mapping = a_round.folder / "site.toml"
    mapping.write_text(
        '[columns.age]\nfrom = "years"\n[columns.ward]\nvalues = { one = "a", two = "b", three = "c" }\n', "utf-8"
    )
    options = ("--public", path, "--map", mapping, "--unsigned")
    mapped = a_round.model(*updates, name="mapped.fusion", options=options)
    straight = a_round.model(
        *updates, name="straight.fusion", options=("--public", a_round.folder / "public.csv", "--unsigned")
    )
    assert mapped["digest"] == straight["digest"]


def test_people_are_told_what_the_public_rows_did(students: tuple[Round, list[Path]]) -> None:
    a_round, updates = students
    told = call("fuse", a_round.task, *updates, "-o", a_round.folder / "told.fusion", "--public",
                a_round.folder / "public.csv")  # fmt: skip
    assert "learned from all clients' networks on 300 public rows" in told.output


def test_people_are_told_of_rows_drawn_from_densities(tmp_path: Path) -> None:
    a_round = Round(tmp_path, method="distill", settings=SETTINGS + ", components = 2, drawn_rows = 77")
    updates = [a_round.update(site, "", "--teacher", "forest:trees=3") for site in range(3)]
    told = call("fuse", a_round.task, *updates, "-o", tmp_path / "told.fusion").output
    assert "learned from all clients' networks on 77 rows drawn from their densities" in told
    public = table(tmp_path / "public.csv", [row[:3] for row in rows(20, 9)], FEATURES)
    told = call("fuse", a_round.task, *updates, "-o", tmp_path / "told.fusion", "--public", public).output
    assert "on 20 public rows and 77 rows drawn from their densities" in told


@pytest.mark.parametrize(
    ("name", "settings"), [("ridge", ""), ("distill", SETTINGS + ', coding = "fixed"'), ("ensemble", "")]
)
def test_a_method_that_makes_no_use_of_them_says_so(tmp_path: Path, name: str, settings: str) -> None:
    a_round = Round(tmp_path, method=name, settings=settings)
    update = a_round.update(0, "", *(("--teacher", "forest:trees=3") if name == "distill" else ()))
    public = table(tmp_path / "public.csv", [row[:3] for row in rows(20, 9)], FEATURES)
    told = refused("fuse", a_round.task, update, "-o", tmp_path / "m", "--public", public)
    assert f"'{name}'" in told and "makes no use of public rows" in told and "public.csv" in told
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("body", "header", "told"),
    [
        ([[30, 900, "a"]], FEATURES, "chol"),
        ([[30, 200, "z"]], FEATURES, "ward"),
        ([[30, 200]], ("age", "chol"), "'ward': is not in the data"),
        ([], FEATURES, "holds no complete rows"),
    ],
)
def test_public_rows_that_do_not_fit_are_refused(
    students: tuple[Round, list[Path]], body: list[list[object]], header: tuple[str, ...], told: str
) -> None:
    a_round, updates = students
    path = table(a_round.folder / "wrong.csv", body, header)
    sentence = refused("fuse", a_round.task, *updates, "-o", a_round.folder / "m", "--public", path)
    assert "wrong.csv" in sentence and told in sentence
    assert "900" not in sentence and "'z'" not in sentence
    assert not (a_round.folder / "m").exists()


def test_a_map_without_public_rows_is_a_wrong_command_line(students: tuple[Round, list[Path]]) -> None:
    a_round, updates = students
    for option in (("--map", a_round.folder / "site.toml"), ("--show-values",)):
        told = call("fuse", a_round.task, *updates, "-o", a_round.folder / "m", *option)
        assert told.exit_code == 2 and "--public" in told.stderr


def test_pieces_of_public_rows_are_the_whole(students: tuple[Round, list[Path]]) -> None:
    a_round, updates = students
    task, read = file.read(a_round.task), [file.read(update) for update in updates]
    whole = columns(300, 9)
    cut = [{name: cells[part] for name, cells in whole.items()} for part in (slice(0, 7), slice(7, 300))]
    models = [fl.fuse(task, read, public=public)[0] for public in (whole, iter(cut))]
    assert file.digest(models[0]) == file.digest(models[1])
    worse = [cut[0], cut[1] | {"age": np.where(np.arange(293) == 5, 500.0, cut[1]["age"])}]
    with pytest.raises(DataError, match=r"my rows: column 'age'.*in 1 row \(13\)"):
        fl.fuse(task, read, public=worse, place="my rows")


def test_auto_makes_use_of_them_when_a_candidate_does() -> None:
    assert method.make("auto", {"candidates": ["ridge", "distill"]}).uses_public
    assert not method.make("auto").uses_public
    task = fl.new_task("t", {"u": fl.Number(-1, 1)}, fl.ClassLabel("y", {"a": ["0"], "b": ["1"]}), privacy="none")
    with pytest.raises(SettingsError, match="makes no use of public rows"):
        run.fuse(task, [], public={"u": np.zeros(3)})
