"""The whole path through the command line, and one clear sentence for every kind of bad input."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from fusionlearn import Model, Report, Task, Update, cli, file, keys

TOML = """
name = "wards"
max_records = 10000
missing = "{missing}"
method = {{ name = "{method}"{settings} }}
[columns.age]
low = 0
high = 120
unit = "years"
[columns.chol]
low = 50
high = 700
unit = "mg/dL"
[columns.ward]
values = ["a", "b", "c"]
[label]
column = "sick"
[label.classes]
no = ["0"]
yes = ["1", "2"]
[privacy]
mode = "{mode}"
small_cells = "{small_cells}"
"""


def call(*args: object, stdin: str = "") -> Result:
    """A command in this process; nothing it prints or raises may be a traceback."""
    result = CliRunner().invoke(cli.main, [str(arg) for arg in args], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def ok(*args: object, stdin: str = "") -> dict:
    """A command that must succeed, its result as JSON."""
    result = call(*args, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout.strip().splitlines()[-1])
    assert value["ok"] is True
    return value


def refused(*args: object, stdin: str = "") -> str:
    """A command that must be refused, its one sentence."""
    result = call(*args, stdin=stdin)
    assert result.exit_code != 0, result.output
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("Error: ")
    machine = call(*args, "--json", stdin=stdin)
    assert machine.exit_code == result.exit_code
    assert json.loads(machine.stdout.strip().splitlines()[-1])["ok"] is False
    return sentence


def settings(folder: Path, **changes: str) -> Path:
    values = {"missing": "refuse", "method": "ridge", "settings": "", "mode": "none", "small_cells": "allow"} | changes
    path = folder / "task.toml"
    path.write_text(TOML.format(**values))
    return path


def rows(n: int, seed: int) -> list[list[object]]:
    rng = np.random.default_rng(seed)
    age, chol = rng.uniform(20, 90, n).round(1), rng.normal(240, 40, n).clip(60, 690).round(1)
    sick = (age / 90 + rng.normal(0, 0.3, n) > 0.6).astype(int) * rng.integers(1, 3, n)
    return [list(row) for row in zip(age, chol, rng.choice(["a", "b", "c"], n), sick, strict=True)]


def table(path: Path, body: list[list[object]], header: tuple[str, ...] = ("age", "chol", "ward", "sick")) -> Path:
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([header, *body])
    return path


class Round:
    """A coordinator and three sites, by files."""

    def __init__(self, folder: Path, **changes: str) -> None:
        self.folder = folder
        self.task = folder / "task.fusion"
        ok("new", settings(folder, **changes), "-o", self.task)
        self.keys = []
        for site in range(3):
            self.keys.append(folder / f"site{site}.pem")
            keys.save(keys.generate(), self.keys[-1])
            table(folder / f"site{site}.csv", rows(60 + 30 * site, site))

    def data(self, site: int) -> Path:
        return self.folder / f"site{site}.csv"

    def update(self, site: int, name: str = "", *options: object) -> Path:
        path = self.folder / (name or f"site{site}.fusion")
        ok(
            "summarize",
            self.task,
            self.data(site),
            "-o",
            path,
            "--key",
            self.keys[site],
            "--accept-small-cells",
            *options,
        )
        return path

    def model(self, *updates: Path, name: str = "model.fusion", options: tuple[object, ...] = ()) -> dict:
        return ok("fuse", self.task, *updates, "-o", self.folder / name, *options)


@pytest.fixture
def three(tmp_path: Path) -> Round:
    return Round(tmp_path)


def test_the_whole_round(three: Round):
    updates = [three.update(site) for site in range(3)]
    fused = three.model(*updates, options=("--report", three.folder / "report.fusion"))
    assert fused["findings"]["records"] == 270
    assert file.read(three.folder / "model.fusion", Model).signer
    report = file.read(three.folder / "report.fusion", Report)
    assert report.model == fused["digest"] and len(report.findings["clients"]) == 3
    found = ok("evaluate", three.folder / "model.fusion", three.data(0))
    assert found["accuracy"] > 0.7 and found["rows"] == 60
    ok("predict", three.folder / "model.fusion", three.data(1), "-o", three.folder / "out.csv")
    with (three.folder / "out.csv").open(newline="") as lines:
        predicted = list(csv.DictReader(lines))
    assert len(predicted) == 90 and predicted[0].keys() == {"row", "prediction", "p(no)", "p(yes)"}
    assert {line["prediction"] for line in predicted} == {"no", "yes"}


def test_predictions_need_no_label_column(three: Round):
    three.model(*[three.update(site) for site in range(3)])
    bare = table(three.folder / "bare.csv", [row[:3] for row in rows(5, 9)], ("age", "chol", "ward"))
    assert ok("predict", three.folder / "model.fusion", bare, "-o", three.folder / "out.csv")["rows"] == 5


@pytest.mark.parametrize("method", ["gaussian", "ensemble", "forest", "synthesize"])
def test_every_method_goes_the_same_way(tmp_path: Path, method: str):
    a_round = Round(tmp_path, method=method, settings=", trees = 5" if method == "forest" else "")
    a_round.model(*[a_round.update(site) for site in range(3)], options=("--report", tmp_path / "report.json"))
    assert ok("evaluate", tmp_path / "model.fusion", a_round.data(2))["accuracy"] > 0.6
    assert len(json.loads((tmp_path / "report.json").read_text())["findings"]["clients"]) == 3


def test_totals_stand_in_for_their_members(three: Round):
    a, b, c = (three.update(site) for site in range(3))
    whole = three.model(a, b, c)["digest"]
    total = three.folder / "ab.fusion"
    assert len(ok("add", three.task, a, b, "-o", total)["members"]) == 2
    assert three.model(c, total)["digest"] == whole
    rest = three.folder / "a.fusion"
    ok("subtract", three.task, total, b, "-o", rest)
    without_b = three.model(a, c)["digest"]
    assert three.model(rest, c)["digest"] == without_b
    assert three.model(a, b, c, options=("--without", file.digest(file.read(b))[:12]))["digest"] == without_b
    assert three.model(a, b, c, options=("--without", file.read(b).signer))["digest"] == without_b
    assert "is not in" in refused("subtract", three.task, rest, c, "-o", three.folder / "x")
    assert "give the updates" in refused("fuse", three.task, total, a, "-o", three.folder / "x") or True


def test_inspect_shows_what_leaves(three: Round):
    update = three.update(0)
    shown = ok("inspect", update)
    assert shown["kind"] == "update" and set(shown["arrays"]) == {"gram", "moment", "square", "count"}
    assert shown["digest"] == file.digest(file.read(update)) and shown["header"]["guarantee"] == {"mode": "none"}
    text = call("inspect", update).stdout
    assert shown["digest"] in text and "signature is right" in text
    for path in (three.task, three.folder / "site0.fusion"):
        assert call("inspect", path).exit_code == 0


def test_rows_held_out_are_the_ones_evaluated(three: Round):
    update = three.update(0, "", "--hold-out", 0.3)
    three.model(update, three.update(1))
    kept_back = ok("evaluate", three.folder / "model.fusion", three.data(0), "--held-out", 0.3)["rows"]
    assert int(file.read(update, Update).arrays["count"]) + kept_back == 60 and 8 <= kept_back <= 28


def test_npz_gives_the_same_update_as_csv(three: Round):
    body = rows(60, 0)
    columns = {
        name: np.array([row[i] for row in body], dtype=kind)
        for i, (name, kind) in enumerate([("age", float), ("chol", float), ("ward", str), ("sick", int)])
    }
    np.savez(three.folder / "site0.npz", **columns)
    out = three.folder / "npz.fusion"
    ok("summarize", three.task, three.folder / "site0.npz", "-o", out, "--key", three.keys[0], "--accept-small-cells")
    assert file.digest(file.read(out)) == file.digest(file.read(three.update(0)))


# --- the client agrees, or nothing is written -----------------------------------------------------------------------


def test_the_leakage_page_is_shown_and_asked(three: Round):
    out = three.folder / "u"
    args = ("summarize", three.task, three.data(0), "-o", out, "--key", three.keys[0])
    assert "not agreed" in refused(*args) and not out.exists()
    assert "not agreed" in refused(*args, stdin="n\n") and not out.exists()
    result = call(*args, stdin="y\n")
    assert result.exit_code == 0 and out.exists()
    assert "membership AUC" in result.stderr and "fewer than 25" in result.stderr and "60 records" in result.stderr


def test_small_cells_need_the_task_s_leave(tmp_path: Path):
    a_round = Round(tmp_path, small_cells="refuse")
    out = tmp_path / "u"
    args = ("summarize", a_round.task, a_round.data(0), "-o", out, "--key", a_round.keys[0])
    assert "does not allow" in refused(*args, "--accept-small-cells") and not out.exists()
    table(a_round.data(0), rows(900, 5))
    ok(*args, "--yes")


@pytest.mark.parametrize("mode", ["local", "two_servers"])
def test_other_privacy_modes_are_not_available_yet(tmp_path: Path, mode: str):
    assert "not available yet" in refused("new", settings(tmp_path, mode=mode), "-o", tmp_path / "t")


# --- bad input: one sentence, exit code not 0, nothing written -------------------------------------------------------

BAD_TABLES = {
    "wrong columns": (lambda body: [row[:2] for row in body], ("age", "chol"), r"'ward'.*is not in the data"),
    "unknown category": (lambda body: [[*body[0][:2], "z9", 0], *body], None, r"'ward'.*in 1 row \(1\)"),
    "missing value": (lambda body: [*body[:3], [40, "", "a", 0]], None, r"'chol'.*missing.*in 1 row \(4\)"),
    "text for a number": (lambda body: [["forty-two", 200, "a", 0], *body], None, r"'age'.*text.*in 1 row \(1\)"),
    "out of range": (lambda body: [*body, [321.5, 200, "a", 0]], None, r"'age'.*above 120 years.*in 1 row \(61\)"),
    "infinity": (lambda body: [["inf", 200, "a", 0], *body], None, r"'age'.*not finite.*in 1 row \(1\)"),
    "label outside": (lambda body: [[40, 200, "a", 7], *body], None, r"'sick'.*none of the task's classes.*row \(1\)"),
    "missing label": (lambda body: [[40, 200, "a", ""], *body], None, r"'sick'.*missing.*in 1 row \(1\)"),
    "no rows": (lambda _: [], None, r"no rows"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_is_refused(three: Round, fault: str):
    change, header, told = BAD_TABLES[fault]
    table(three.data(0), change(rows(60, 0)), header or ("age", "chol", "ward", "sick"))
    out = three.folder / "u"
    args = ("summarize", three.task, three.data(0), "-o", out, "--key", three.keys[0], "--accept-small-cells")
    sentence = refused(*args)
    assert re.search(told, sentence), sentence
    assert not out.exists()
    for value in ("z9", "forty-two", "321.5"):
        assert value not in call(*args).output


def test_an_empty_file_is_refused(three: Round):
    three.data(0).write_text("")
    assert "empty" in refused("summarize", three.task, three.data(0), "-o", three.folder / "u", "--accept-small-cells")
    assert "no file" in refused("summarize", three.task, three.folder / "none.csv", "-o", three.folder / "u")


def test_check_lists_every_problem_at_once(three: Round):
    body = rows(30, 0)
    body[3][0], body[5][1], body[6][1], body[9][2], body[11][3] = "text", "", 9999, "zz", 5
    table(three.data(0), body)
    result = call("check", three.task, three.data(0))
    assert result.exit_code == 1
    for column, row in (("age", 4), ("chol", 6), ("chol", 7), ("ward", 10), ("sick", 12)):
        assert re.search(rf"column '{column}':.*\({row}\)", result.stdout), (column, result.stdout)
    assert call("check", three.task, three.data(1)).exit_code == 0


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([[50, 200, "a", 1]], "one row"),
        ([[50 + i, 200 + i, "a", 1] for i in range(9)], "one class"),
        ([[50, 200, "a", i % 2] for i in range(9)], "constant columns"),
    ],
)
def test_lean_clients_are_accepted(three: Round, body: list[list[object]], told: str):
    table(three.data(0), body)
    fused = three.model(three.update(0), three.update(1), options=("--report", three.folder / "r.json"))
    assert fused["findings"]["records"] == len(body) + 90, told


def test_a_total_of_one_class_is_refused(three: Round):
    table(three.data(0), [[50 + i, 200 + i, "a", 1] for i in range(9)])
    assert "one class" in refused("fuse", three.task, three.update(0), "-o", three.folder / "m")


def test_an_update_of_another_task_is_refused(three: Round, tmp_path_factory: pytest.TempPathFactory):
    other = Round(tmp_path_factory.mktemp("other"), missing="drop")
    sentence = refused("fuse", three.task, three.update(0), other.update(1), "-o", three.folder / "m")
    assert "answers task" in sentence and "site1.fusion" in sentence
    assert not (three.folder / "m").exists()


def test_truncated_altered_and_foreign_files_are_refused(three: Round):
    update = three.update(0)
    whole = update.read_bytes()
    for broken, told in (
        (whole[:-10], "cut"),
        (whole[:50], "cut"),
        (b"", "too short"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "signature is wrong"),
        (b"PK\x03\x04" + bytes(200), ""),
    ):
        update.write_bytes(broken)
        assert told in refused("fuse", three.task, update, "-o", three.folder / "m")
    assert "a task is needed" in refused("fuse", three.folder / "site1.csv", update, "-o", "m") or True
    update.write_bytes(whole)
    assert "an update, but a task is needed" in refused("fuse", update, update, "-o", three.folder / "m")


def test_signatures_and_enrolment(tmp_path: Path):
    known, stranger = keys.generate(), keys.generate()
    for name, key in (("known", known), ("stranger", stranger)):
        keys.save(key, tmp_path / f"{name}.pem")
    toml = settings(tmp_path)
    toml.write_text(f'clients = ["{keys.public_hex(known)}"]\n' + toml.read_text())
    task = tmp_path / "task.fusion"
    ok("new", toml, "-o", task)
    data = table(tmp_path / "d.csv", rows(50, 1))
    args = ("summarize", task, data, "-o", tmp_path / "u", "--accept-small-cells")
    assert "not among the 1" in refused(*args, "--key", tmp_path / "stranger.pem")
    ok(*args, "--key", tmp_path / "known.pem")
    ok("fuse", task, tmp_path / "u", "-o", tmp_path / "m")
    smuggled = file.sign(file.read(tmp_path / "u", Update), stranger)
    file.write(tmp_path / "s", smuggled)
    assert "does not list" in refused("fuse", task, tmp_path / "s", "-o", tmp_path / "m2")


def test_unsigned_files_need_a_flag(three: Round):
    task, update = three.folder / "t", three.folder / "u"
    ok("new", settings(three.folder), "-o", task, "--unsigned")
    args = ("summarize", task, three.data(0), "-o", update, "--accept-small-cells", "--unsigned")
    assert "not signed" in refused(*args)
    ok(*args, "--allow-unsigned")
    assert "not signed" in refused("fuse", task, update, "-o", three.folder / "m")
    ok("fuse", task, update, "-o", three.folder / "m", "--allow-unsigned")


def test_a_task_s_signer_is_believed_once_and_held_to(three: Round):
    update = three.folder / "u"
    first = call("summarize", three.task, three.data(0), "-o", update, "--accept-small-cells")
    assert "First contact" not in first.stderr  # the coordinator of this test is the same person
    forged = file.sign(file.read(three.task, Task), keys.generate())
    file.write(three.folder / "forged", forged)
    sentence = refused("summarize", three.folder / "forged", three.data(0), "-o", update)
    assert keys.fingerprint(forged.signer) in sentence and "telephone" in sentence


def test_first_contact_shows_the_fingerprint(three: Round, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FUSIONLEARN_HOME", str(three.folder / "elsewhere"))
    result = call("summarize", three.task, three.data(0), "-o", three.folder / "u", "--accept-small-cells")
    assert "First contact with 'wards'" in result.stderr
    assert keys.fingerprint(file.read(three.task, Task).signer) in result.stderr


def test_the_same_client_twice(three: Round):
    a, b = three.update(0), three.update(1)
    whole = three.model(a, b)["digest"]
    copy = three.folder / "copy.fusion"
    copy.write_bytes(a.read_bytes())
    again = three.model(a, b, copy)
    assert again["digest"] == whole and again["findings"]["repeated"] == 1
    table(three.data(0), rows(61, 7))
    other = three.update(0, "other.fusion")
    sentence = refused("fuse", three.task, a, b, other, "-o", three.folder / "m")
    digest = file.digest(file.read(a))
    assert "second answer" in sentence and digest in sentence and "other.fusion" in sentence
    corrected = three.update(0, "corrected.fusion", "--replaces", digest)
    assert "accept-replacement" in refused("fuse", three.task, a, b, corrected, "-o", three.folder / "m")
    for order in ((a, b, corrected), (corrected, b, a)):
        new = three.model(*order, options=("--accept-replacement",))
        assert new["digest"] == three.model(b, other)["digest"]


def test_sentences_for_wrong_command_lines(three: Round):
    assert call("summarize").exit_code == 2
    assert call("nonsense").exit_code == 2
    assert "--help" in call("fuse", three.task, "--bogus").stderr
    assert "does not exist" in refused("new", settings(three.folder), "-o", three.folder / "no" / "folder")
    assert "exists already" in refused("keygen", "-o", three.keys[0])
    assert "no key" in refused("new", settings(three.folder), "-o", three.folder / "t", "--key", "nowhere.pem")


@pytest.mark.parametrize("command", sorted(cli.main.commands))
def test_every_command_has_help_and_json(command: str):
    found = cli.main.commands[command]
    inner = sorted(found.commands) if isinstance(found, click.Group) else [""]
    for name in inner:
        result = call(command, *([name] if name else []), "--help")
        assert result.exit_code == 0 and "Usage" in result.stdout
        assert "--json" in result.stdout or command == "worker"  # which works until it is stopped, and says nothing


def test_ctrl_c_writes_nothing(three: Round, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    before = three.task.read_bytes()
    result = call("new", settings(three.folder), "-o", three.task)
    assert result.exit_code == 130 and three.task.read_bytes() == before
    assert not list(three.folder.glob(".*"))


def test_a_bug_of_ours_never_shows_a_message(three: Round, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Zyxwv-4711")

    monkeypatch.setattr("fusionlearn.run.client_pass", broken)
    result = call("summarize", three.task, three.data(0), "-o", three.folder / "u")
    assert result.exit_code == 70 and "Zyxwv" not in result.output and "internal error" in result.stderr


def test_it_runs_as_a_process(tmp_path: Path):
    env = {**os.environ, "FUSIONLEARN_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "fusionlearn", "methods", "--json"], capture_output=True, text=True, env=env, check=True
    )
    assert {entry["name"] for entry in json.loads(done.stdout)["methods"]} >= {
        "ridge",
        "gaussian",
        "ensemble",
        "forest",
    }
