"""task.toml: the documented example parses, and every mistake is one sentence that names the file and the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fusionlearn as fl
from fusionlearn import keys, settings
from fusionlearn.errors import PrivacyError, SettingsError
from fusionlearn.methods.ridge import Ridge

ROOT = Path(__file__).resolve().parent.parent
SMALL = """\
name = "small"
[columns.age]
low = 0
high = 120
[label]
column = "target"
[label.classes]
no = ["0"]
yes = ["1", "2"]
[privacy]
mode = "none"
"""


def made(tmp_path: Path, content: str) -> fl.Task:
    path = tmp_path / "task.toml"
    path.write_text(content, encoding="utf-8")
    return settings.task_from_toml(path)


def refusal(tmp_path: Path, content: str) -> str:
    with pytest.raises(SettingsError) as caught:
        made(tmp_path, content)
    message = str(caught.value)
    assert "task.toml" in message
    assert "\n" not in message
    return message


def blocks(page: str) -> list[str]:
    return re.findall(r"^```toml[^\n]*\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_documented_example_is_a_task(tmp_path: Path) -> None:
    task = made(tmp_path, blocks("docs/reference/task-toml.md")[0])
    assert task.name == "heart disease, four hospitals"
    assert task.max_records == 10_000
    assert task.schema.missing == "drop"
    assert task.schema.columns["age"] == fl.Number(0, 120, 50, 10, "years")
    assert task.schema.columns["sex"] == fl.Category(("0", "1"))
    assert task.schema.columns["chol"] == fl.Number(0, 700, 240, 50, "mg/dL", "indicator")
    assert task.schema.columns["ecg"] == fl.Vector(12, -5, 5, unit="mV")
    assert task.schema.label == fl.ClassLabel("target", (("no disease", ("0",)), ("disease", ("1", "2", "3", "4"))))
    assert task.method == Ridge(penalty="gcv")
    assert (task.privacy.mode, task.privacy.small_cells) == ("none", "allow")
    assert task.clients == "open"
    assert not task.signer


def test_the_other_documented_blocks_fit_a_task(tmp_path: Path) -> None:
    _, plugins, regression = blocks("docs/reference/task-toml.md")
    encoders, _, method = plugins.partition("\n[method]\n")
    task = made(tmp_path, encoders + SMALL + "[method]\n" + method)
    assert task.problem.num_features == 1024
    assert task.method == Ridge(class_weights=(1.0, 2.5))
    head, _, _ = SMALL.partition("[label]")
    task = made(tmp_path, head + regression + '[privacy]\nmode = "none"\n')
    assert task.schema.label == fl.NumberLabel("length_of_stay", 0, 365, unit="days")


def test_the_hospitals_example_is_a_task() -> None:
    task = settings.task_from_toml(ROOT / "examples" / "hospitals" / "task.toml")
    assert len(task.schema.columns) == 10


def test_what_is_left_out_takes_its_default(tmp_path: Path) -> None:
    task = made(tmp_path, SMALL)
    assert task.method == Ridge()
    assert task.schema.columns["age"] == fl.Number(0, 120)
    assert (task.schema.missing, task.schema.out_of_range, task.privacy.small_cells) == ("refuse", "refuse", "refuse")


def test_values_may_be_written_as_numbers(tmp_path: Path) -> None:
    task = made(tmp_path, SMALL.replace('["1", "2"]', "[1, 2.0]"))
    assert task.schema.label == fl.ClassLabel("target", (("no", ("0",)), ("yes", ("1", "2"))))


def test_privacy_may_be_one_word(tmp_path: Path) -> None:
    task = made(tmp_path, 'privacy = "none"\n' + SMALL.replace('[privacy]\nmode = "none"\n', ""))
    assert task.privacy == fl.Privacy("none")


def test_clients_are_keys_or_files_beside_the_settings(tmp_path: Path) -> None:
    first, second = keys.generate(), keys.generate()
    (tmp_path / "ward").mkdir()
    keys.save(second, tmp_path / "ward" / "key.pem")
    listed = f'clients = ["{keys.public_hex(first)}", "ward/key.pem.pub"]\n'
    assert made(tmp_path, listed + SMALL).clients == (keys.public_hex(first), keys.public_hex(second))


MISTAKES = {
    "unknown key": ("max_record = 5\n" + SMALL, "'max_record' is not a key; did you mean 'max_records'?"),
    "far from any key": ("zzz = 5\n" + SMALL, "'zzz' is not a key; the keys are clients, columns, "),
    "unknown key of a column": (
        SMALL.replace("low = 0", "lowest = 0\nlow = 0"),
        "'columns.age.lowest' is not a key; did you mean 'low'?",
    ),
    "key of another type of column": (SMALL.replace("low = 0", "low = 0\nvalue = 1"), "'columns.age.value' is not a"),
    "text for a number": (SMALL.replace("low = 0", 'low = "0"'), "'columns.age.low' is a text; a finite number is exp"),
    "true for a number": (SMALL.replace("low = 0", "low = true"), "'columns.age.low' is true or false; a finite num"),
    "infinity": (SMALL.replace("high = 120", "high = inf"), "'columns.age.high' is a number; a finite number is"),
    "no range": (SMALL.replace("low = 0\n", ""), "'columns.age.low' is missing: a finite number is expected."),
    "range upside down": (SMALL.replace("low = 0", "low = 500"), "[columns.age] a range needs two finite numbers"),
    "number for a text": (SMALL.replace('"small"', "5"), "'name' is a whole number; a text in quotes is expected."),
    "empty name": (SMALL.replace('"small"', '" "'), "a task needs a name"),
    "no name": (SMALL.replace('name = "small"\n', ""), "'name' is missing: a text in quotes is expected."),
    "fraction of records": ("max_records = 1.5\n" + SMALL, "'max_records' is a number; a whole number is expected."),
    "no columns": (
        SMALL.replace("[columns.age]\nlow = 0\nhigh = 120\n", ""),
        "'columns' is missing: a table is expected.",
    ),
    "column that is no table": (
        'columns = {age = "number"}\n' + SMALL.replace("[columns.age]\nlow = 0\nhigh = 120\n", ""),
        "'columns.age' is a text; a table is expected.",
    ),
    "unknown type": (
        SMALL.replace("low = 0", 'type = "nubmer"\nlow = 0'),
        'one of "number", "category", "vector", "text" is',
    ),
    "one value": (SMALL + '[columns.sex]\nvalues = ["1"]\n', "[columns.sex] a category needs at least two values"),
    "values that are no list": (SMALL + '[columns.sex]\nvalues = "01"\n', "'columns.sex.values' is a text; a list of"),
    "vector without length": (
        SMALL + '[columns.p]\ntype = "vector"\nlow = 0\nhigh = 1\n',
        "'columns.p.length' is miss",
    ),
    "unknown rule": (
        'missing = "ignore"\n' + SMALL,
        '\'missing\' is a text; one of "refuse", "drop", "center", "indica',
    ),
    "no label": (
        SMALL.replace("[label]\n", "").replace('column = "target"\n', "").replace("[label.classes]", "[lable]"),
        "'label' is missing: a table is expected.",
    ),
    "label without classes or range": (
        SMALL.replace('[label.classes]\nno = ["0"]\nyes = ["1", "2"]\n', ""),
        '[label] needs [label.classes] for classes, low and high for a number, or type = "text".',
    ),
    "classes and range": (SMALL.replace('"target"', '"target"\nlow = 0'), "'label.low' is not a key"),
    "value of two classes": (SMALL.replace('["0"]', '["0", "1"]'), "[label] label 'target' needs at least two classes"),
    "label among the columns": (SMALL.replace('"target"', '"age"'), "column 'age' is both a feature and the label"),
    "no privacy": (SMALL.replace('[privacy]\nmode = "none"\n', ""), "every task states what protects the records"),
    "privacy without mode": (SMALL.replace('mode = "none"\n', ""), "'privacy.mode' is missing: one of"),
    "unknown mode": (SMALL.replace('"none"', '"nothing"'), "'privacy.mode' is a text; one of"),
    "unknown method": ('method = "rigde"\n' + SMALL, "no method is called 'rigde'"),
    "method without name": ("method = {penalty = 1.0}\n" + SMALL, "'method' is a table; a name, or a table with a na"),
    "unknown setting": ('method = {name = "ridge", penalti = 1.0}\n' + SMALL, "'ridge' has no setting 'penalti'"),
    "wrong setting": ('method = {name = "ridge", penalty = -1.0}\n' + SMALL, "ridge: penalty is -1.0"),
    "unknown encoder": ('encoder = ["table", "cosine"]\n' + SMALL, "no encoder is called 'cosine'"),
    "number as encoder": (
        "encoder = [3]\n" + SMALL,
        "'encoder' is a list; a name, a table with a name and settings, or",
    ),
    "no clients": ("clients = []\n" + SMALL, "'clients' is a list; \"open\", or a list of public keys"),
    "clients all": ('clients = "all"\n' + SMALL, "'clients' is a text; \"open\", or a list of public keys"),
    "no such key file": ('clients = ["ward.pub"]\n' + SMALL, "'clients' names 'ward.pub', which is neither"),
    "client twice": (f'clients = ["{"ab" * 32}", "{"AB" * 32}"]\n' + SMALL, "lists a public key twice"),
    "too small an upload": ("max_bytes = 10\n" + SMALL, "max_bytes is 10, but an update of 'ridge'"),
    "not TOML": ("name = \n", "is not valid TOML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path: Path, mistake: str) -> None:
    content, sentence = MISTAKES[mistake]
    assert sentence in refusal(tmp_path, content)


def test_a_mode_that_is_not_there_yet_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match=r"task\.toml: privacy mode 'local' is not available yet"):
        made(tmp_path, SMALL.replace('"none"', '"local"'))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml cannot be read \(No such file"):
        settings.task_from_toml(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes('name = "Zürich"'.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"latin\.toml is not UTF-8 at byte 9"):
        settings.task_from_toml(tmp_path / "latin.toml")


def test_windows_line_ends_and_a_mark_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert settings.task_from_toml(tmp_path / "task.toml").name == "small"
