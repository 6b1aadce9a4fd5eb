"""A site's own export: read as it is written, refused in one sentence, and never quoted."""

import csv
import datetime
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionlearn import Category, ClassLabel, Number, NumberLabel, Schema, Update, Vector, cli, datasets, file, site
from fusionlearn.errors import DataError, MissingExtra, SettingsError
from fusionlearn.site import ColumnMap, FileOptions, SiteMap
from fusionlearn.site.cells import age

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = Schema(
    {"age": Number(0, 120, unit="years"), "chol": Number(50, 700, unit="mg/dL"), "ward": Category(("a", "b"))},
    ClassLabel("sick", {"no": ["0"], "yes": ["1"]}),
)
HEADER = "age,chol,ward,sick\n"
PLANTED = "Quastenflosser"  # what no message may hold


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def read(path: Path, schema: Schema = SCHEMA, site_map: SiteMap | None = None, rows: int = 1000) -> dict[str, list]:
    """All clean rows of a file."""
    source = site.open_source(path, schema, site_map)
    tables = [schema.read(piece).data for piece in source.pieces(rows)]
    return {name: np.concatenate([table[name] for table in tables]).tolist() for name in tables[0]}


def refused(path: Path, schema: Schema = SCHEMA, site_map: SiteMap | None = None) -> str:
    """The sentence a file is refused with; `check` must know the fault too."""

    def everything() -> None:
        for piece in site.open_source(path, schema, site_map).pieces(1000):
            schema.read(piece, place=str(path))

    with pytest.raises(DataError) as caught:
        everything()
    assert PLANTED not in str(caught.value) and PLANTED not in repr(caught.value.faults)
    try:
        faults, _ = site.faults(site.open_source(path, schema, site_map), schema)
    except DataError as error:
        faults = list(error.faults)
    assert faults and PLANTED not in repr(faults)
    return str(caught.value)


# --- what is read -------------------------------------------------------------------------------------------------


def test_a_plain_csv(tmp_path: Path):
    path = write(tmp_path / "a.csv", HEADER + "50,200,a,0\n61.5,240.25,b,1\n")
    assert read(path) == {"age": [50, 61.5], "chol": [200, 240.25], "ward": [0, 1], "y": [0, 1]}


@pytest.mark.parametrize("name", ["a.csv", "a.data", "a.txt", "a"])
def test_any_other_ending_is_text(tmp_path: Path, name: str):
    assert read(write(tmp_path / name, HEADER + "50,200,a,0\n"))["age"] == [50]


def test_tabs_in_tsv(tmp_path: Path):
    assert read(write(tmp_path / "a.tsv", HEADER.replace(",", "\t") + "50\t200\ta\t0\n"))["chol"] == [200]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEADER + "50,200,a,0\n",
        HEADER.replace("\n", "\r\n") + "50,200,a,0\r\n",
        HEADER.replace("\n", "\r") + "50,200,a,0\r",
        HEADER + "\n\n50,200,a,0\n   \n,,,\n",
        HEADER + "50,200,a,0",
        " age , chol,ward ,sick\n 50 , 200 , a , 0 \n",
        '"age","chol","ward","sick"\n"50","200","a","0"\n',
        HEADER + "50,200,a,0,,\n",  # empty cells beyond the header
        'x,age,chol,ward,sick\n"two\nlines, and a comma",50,200,a,0\n',
        'age,chol,ward,sick,x\n50,200,a,0,"two\nlines"',
        HEADER + "+5e1,2.0e2,a,0.0\n",
    ],
)
def test_the_same_row_however_it_is_written(tmp_path: Path, text: str):
    assert read(write(tmp_path / "a.csv", text)) == {"age": [50], "chol": [200], "ward": [0], "y": [0]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1", "cp437", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str):
    path = write(tmp_path / "a.csv", "Größe,chol,ward,sick\n50,200,a,0\n", encoding)
    site_map = SiteMap(FileOptions(encoding=encoding), {"age": ColumnMap("Größe")})
    assert read(path, site_map=site_map)["age"] == [50]


def test_undeclared_columns_are_named_and_never_parsed(tmp_path: Path):
    path = write(tmp_path / "a.csv", "name,age,chol,ward,sick,\x1b[31mred\nQuastenflosser,50,200,a,0,x\n")
    source = site.open_source(path, SCHEMA)
    assert source.ignored == ("name", "·[31mred")
    assert [sorted(piece) for piece in source.pieces(10)] == [["age", "chol", "sick", "ward"]]


def test_the_label_is_neither_needed_nor_ignored_when_predicting(tmp_path: Path):
    for header, row in ((HEADER, "50,200,a,Quastenflosser\n"), ("age,chol,ward\n", "50,200,a\n")):
        source = site.open_source(write(tmp_path / "a.csv", header + row), SCHEMA, with_label=False)
        assert source.ignored == ()
        assert [sorted(piece) for piece in source.pieces(10)] == [["age", "chol", "ward"]]


def test_pieces_have_the_asked_length_and_can_be_had_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fusionlearn.site.text.BLOCK", 100)
    path = write(tmp_path / "a.csv", HEADER + "".join(f"{i % 99},200,{'ab'[i % 2]},{i % 2}\n" for i in range(1003)))
    source = site.open_source(path, SCHEMA)
    for _ in range(2):
        pieces = list(source.pieces(100))
        assert [len(piece["age"]) for piece in pieces] == [100] * 10 + [3]
        assert np.concatenate([piece["age"] for piece in pieces]).tolist() == [i % 99 for i in range(1003)]
        assert source.fraction == 1.0


NUMERIC = Schema({"a": Number(-1e9, 1e9), "b": Number(-1e9, 1e9)}, NumberLabel("z", -1e9, 1e9))


@pytest.mark.parametrize("block", [64, 1000, 2**16])
def test_fast_and_slow_paths_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr("fusionlearn.site.text.BLOCK", block)
    rng = np.random.default_rng(1)
    body = "".join(
        f"{a!r},x{'y' * (i % 7)},{b!r},{c:.3f}\n" for i, (a, b, c) in enumerate(rng.normal(0, 1e3, (300, 3)).tolist())
    )
    path = write(tmp_path / "a.csv", "a,name,b,z\n" + body)
    source = site.open_source(path, NUMERIC)
    asked: list[object] = []
    fast_path = type(source._table)._numbers
    monkeypatch.setattr(type(source._table), "_numbers", lambda *args: asked.append(fast_path(*args)) or asked[-1])
    fast = np.concatenate([np.column_stack(list(piece.values())) for piece in source.pieces(64)])
    assert asked and all(parsed is not None for parsed in asked)
    source._table.takes_numbers = False
    slow = np.concatenate([np.column_stack(list(piece.values())) for piece in source.pieces(64)])
    assert fast.tobytes() == slow.tobytes()
    expected = [
        [float(row["a"]), float(row["b"]), float(row["z"])] for row in csv.DictReader(io.StringIO(path.read_text()))
    ]
    assert fast.tolist() == expected


def test_a_table_of_nothing_but_numbers_is_looked_at_as_closely(tmp_path: Path):
    """What NumPy would let pass: rows of another width, numbers in another notation."""
    comma = SiteMap(FileOptions(delimiter=";", decimal=","))
    for text, site_map, told in (
        ("a,b,z,c\n1,2,3,4\n1,2,3\n1,2,3,4,5\n", None, r"fewer cells than the header in 1 row \(2\)"),
        ("a,b,z\n1,2,3\n1,2,3,4\n", None, r"more cells than the header in 1 row \(2\)"),
        ("a;b;z\n1,5;2;3\n1.5;2;3\n", comma, r"'a': text where a number is expected in 1 row \(2\)"),
        ("a,b,z\n1,2,3\n1,2,1_0\n", None, r"'z': text where a number is expected in 1 row \(2\)"),
    ):
        path = write(tmp_path / "a.csv", text)
        assert site.open_source(path, NUMERIC, site_map)._table.takes_numbers
        sentence = refused(path, NUMERIC, site_map)
        assert re.search(told, sentence), sentence


def test_npz_parquet_and_csv_give_the_same(tmp_path: Path):
    schema = Schema({**SCHEMA.columns, "ecg": Vector(2, -5, 5), "seen": Number(0, 120)}, SCHEMA.label, missing="center")
    site_map = SiteMap(columns={"seen": ColumnMap(age_at=datetime.date(2026, 11, 1))})
    births = ["1950-11-01", "1950-11-02", "2020-02-29", "1999-12-31"]
    columns = {
        "age": np.array([50.0, np.nan, 3, 120]),
        "chol": np.array([200, 240, 250, 51]),
        "ward": np.array(["a", "b", "", "a"]),
        "sick": np.array([True, False, True, True]),
        "ecg": np.array([[1.5, 2], [3, 4], [-5, 5], [0, 0]]),
        "seen": np.array(births, dtype="datetime64[D]"),
        "name": np.array([PLANTED] * 4),
    }
    np.savez(tmp_path / "a.npz", **columns)
    np.savez_compressed(tmp_path / "b.npz", **{**columns, "ecg": np.asfortranarray(columns["ecg"])})
    rows = [
        f"{'' if a != a else a},{c},{w},{int(s)},{e[0]},{e[1]},{b}\n"
        for a, c, w, s, e, b in zip(*[columns[k] for k in ("age", "chol", "ward", "sick", "ecg")], births, strict=True)
    ]
    write(tmp_path / "a.csv", "age,chol,ward,sick,ecg_0,ecg_1,seen\n" + "".join(rows))
    files = [tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "a.csv"]
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        pass
    else:
        arrow = {name: pa.array(cells) for name, cells in columns.items() if name not in ("ecg", "age", "ward")}
        arrow["age"] = pa.array([50.0, None, 3, 120])
        arrow["ward"] = pa.array(["a", "b", None, "a"]).dictionary_encode()
        arrow["ecg"] = pa.array(columns["ecg"].tolist(), pa.list_(pa.float32(), 2))
        pq.write_table(pa.table(arrow), tmp_path / "a.parquet", row_group_size=3)
        files.append(tmp_path / "a.parquet")
    first = repr(read(files[0], schema, site_map, rows=3))
    assert "[76.0, 75.0, 6.0, 26.0]" in first
    for path in files:
        assert repr(read(path, schema, site_map, rows=3)) == first, path
        assert site.open_source(path, schema, site_map).ignored == (() if path.suffix == ".csv" else ("name",))


def test_a_map_works_on_arrays_too(tmp_path: Path):
    toml = """
[file]
missing = [-9]
[columns.age]
from = "geboren"
age_at = 2020-07-01
[columns.chol]
from = "chol_mmol"
factor = 38.67
round = 0
[columns.ward]
from = "station"
values = { 1 = "a", 2 = "b" }
[columns.sick]
from = "krank"
values = { ja = 1, nein = 0 }
"""
    columns = {
        "geboren": np.array([b"1950-01-01", b"1960-01-01", b"-9"]),
        "chol_mmol": np.array([6.03, -9, 5.17], "f4"),
        "station": np.array([1, -9, 2], "i2"),
        "krank": np.array([b"ja", b"nein", b"ja"]),
    }
    schema = Schema(dict(SCHEMA.columns), SCHEMA.label, missing="center")
    np.savez(tmp_path / "a.npz", **columns)
    files = [tmp_path / "a.npz"]
    if "pyarrow" in sys.modules or importlib.util.find_spec("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        years = pa.array([datetime.datetime(1950, 1, 1, 12), datetime.datetime(1960, 1, 1), None])
        words = {"geboren": years, "krank": pa.array(["ja", "nein", "ja"]).dictionary_encode()}
        pq.write_table(pa.table({**columns, **words}), tmp_path / "a.parquet")
        files.append(tmp_path / "a.parquet")
    for path in files:
        found = read(path, schema, mapped(tmp_path, toml))
        assert repr(found["age"]) == "[70.0, 60.0, nan]" and repr(found["chol"]) == "[233.0, nan, 200.0]", path
        assert found["ward"] == [0, -1, 1] and found["y"] == [1, 0, 1], path


def test_a_vector_stands_in_numbered_columns_of_a_csv(tmp_path: Path):
    schema = Schema({"ecg": Vector(3, -5, 5)}, NumberLabel("z", 0, 10))
    path = write(tmp_path / "a.csv", "z,EKG_1,EKG_0,EKG_2\n1,2.5,-1,0\n2,0,0,9\n")
    site_map = SiteMap(columns={"ecg": ColumnMap("EKG")})
    assert next(site.open_source(path, schema, site_map).pieces(9))["ecg"].tolist() == [[-1, 2.5, 0], [0, 0, 9]]
    assert "'ecg': a value is above 5" in refused(path, schema, site_map)
    assert "'ecg': is not in the data under the name 'ecg_0' and 2 more" in refused(path, schema)


def test_parquet_without_pyarrow_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "fusionlearn\[parquet\]"'):
        site.open_source(write(tmp_path / "a.parquet", b"PAR1"), SCHEMA)


# --- the map --------------------------------------------------------------------------------------------------------


def mapped(tmp_path: Path, toml: str) -> SiteMap:
    return SiteMap.load(write(tmp_path / "site.toml", toml))


FULL_MAP = """
[file]
delimiter = ";"
encoding = "cp1252"
decimal = ","
thousands = "."
skip_lines = 2
missing = [-9, "k.A."]
[columns.age]
from = "Geburtsdatum"
date_format = "%d.%m.%Y"
age_at = "Aufnahme"
[columns.chol]
from = "Cholesterin"
factor = 38.67
round = 0
missing = ["99,9"]
[columns.ward]
from = "Station"
values = { "Süd" = "a", "Nord" = "b" }
[columns.sick]
from = "krank"
values = { ja = 1, nein = 0 }
"""


def test_every_option_of_a_map(tmp_path: Path):
    text = (
        "Bericht vom Montag\n\nName;Geburtsdatum;Aufnahme;Cholesterin;Station;krank\n"
        "X;01.11.1950;31.10.2020;5,17;Süd;ja\n"
        "X;01.11.1950;01.11.2020;6,2;Nord;nein\n"
        "X;k.A.;01.11.2020;-9;-9;nein\n"
        "X;29.02.2000;28.02.2001;-9,0;;ja\n"
        "X;01.01.1990;01.11.2020;99,9;a;nein\n"
    )
    path = write(tmp_path / "a.csv", text, "cp1252")
    schema = Schema(dict(SCHEMA.columns), SCHEMA.label, missing="center")
    source = site.open_source(path, schema, mapped(tmp_path, FULL_MAP))
    assert source.ignored == ("Name",)
    found = next(source.pieces(100))
    np.testing.assert_array_equal(found["age"], [69, 70, np.nan, 0, 30])
    np.testing.assert_array_equal(found["chol"], [200, 240, np.nan, np.nan, np.nan])
    table = schema.read(found).data
    assert table["ward"].tolist() == [0, 1, -1, -1, 0] and table["y"].tolist() == [1, 0, 0, 1, 0]


@given(st.lists(st.integers(50, 700), min_size=1, max_size=50), st.sampled_from([(38.67, 2), (18.016, 2), (0.1, 3)]))
def test_a_conversion_there_and_back_gives_the_same_bits(whole: list[int], unit: tuple[float, int]):
    factor, decimals = unit
    there = [f"{value / factor:.{decimals}f}" for value in whole]
    how = ColumnMap(factor=factor, round=0)
    reader = site.cells.readers(SCHEMA, SiteMap(columns={"chol": how}), ["chol"], with_label=False)[1]
    values, flaws = reader.read([there])
    assert not flaws and values.tobytes() == np.array(whole, float).tobytes()


@given(st.integers(-(10**6), 10**6), st.integers(-3, 6))
def test_rounding_gives_the_very_double_of_the_decimal(number: int, decimals: int):
    value = float(f"{number}e{-decimals}")
    how = ColumnMap(factor=1.0, offset=0.0, round=decimals)
    assert site.cells.scaled(np.array([value + 0.3 * 10.0**-decimals]), how)[0] == value


def test_a_number_a_factor_makes_infinite_is_a_fault(tmp_path: Path):
    path = write(tmp_path / "a.csv", HEADER + "1e308,200,a,0\n")
    site_map = SiteMap(columns={"age": ColumnMap(factor=100.0, offset=-1.0, round=3)})
    assert "'age': a number is not finite in 1 row (1)" in refused(path, site_map=site_map)


@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2030, 1, 1)), st.dates(datetime.date(1900, 1, 1)))
def test_ages_are_completed_years(birth: datetime.date, day: datetime.date):
    whole = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
    one = (np.array([birth], "datetime64[D]"), np.array([day], "datetime64[D]"))
    assert age(*one, "years")[0] == whole
    assert age(*one, "days")[0] == (day - birth).days
    assert age(*one, "decimal_years")[0] == (day - birth).days / 365.25


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[file]\ndelimiter = ';;'\n", "site.toml: 'file.delimiter' is a text; one character"),
        ("[file]\ndelimeter = ';'\n", "did you mean 'delimiter'"),
        ("[file]\nencoding = 'klingon'\n", "an encoding that Python knows"),
        ("[file]\nencoding = 'base64'\n", "an encoding that Python knows"),
        ("[file]\ndecimal = ';'\n", '"." or ","'),
        ("[file]\ndecimal = ','\nthousands = ','\n", "the same character"),
        ("[file]\nquote = ','\n", "'quote' and 'delimiter' are the same character"),
        ("[columns.age]\nfactor = 0\n", "other than 0"),
        ("[columns.age]\nfactor = '2'\n", "is a text; a finite number"),
        ("[columns.age]\ndate_format = '%d.%m'\nage_at = 2026-01-01\n", "day, month and year"),
        ("[columns.age]\ndate_format = '%d.%m.%Y'\n", "no 'age_at'"),
        ("[columns.age]\nround = 99\n", "decimals"),
        ("[columns.ages]\nfactor = 2\n", "[columns.ages] is none of the task's columns; did you mean 'age'?"),
        ("[columns.ward]\nfactor = 2\n", "the task says this column holds named values"),
        ("[columns.age]\nfrom = ''\n", "the name of a column"),
        ("age = 3", "'age' is not a key"),
        ("[file", "not valid TOML"),
    ],
)
def test_a_wrong_map_is_one_sentence(tmp_path: Path, toml: str, told: str):
    path = write(tmp_path / "a.csv", HEADER + "50,200,a,0\n")
    with pytest.raises(SettingsError, match=re.escape(told)):
        site.open_source(path, SCHEMA, mapped(tmp_path, toml))


def test_numbers_in_another_notation_are_not_taken_for_ours(tmp_path: Path):
    german = SiteMap(FileOptions(delimiter=";", decimal=",", thousands="."))
    path = write(tmp_path / "a.csv", HEADER.replace(",", ";") + "1.5;200;a;0\n5,5;1.200,5;a;0\n5,5;1.20;a;0\n")
    schema = Schema({**SCHEMA.columns, "chol": Number(0, 2000)}, SCHEMA.label)
    faults, stats = site.faults(site.open_source(path, schema, german), schema)
    assert [(fault.column, fault.rows) for fault in faults] == [("age", (1,)), ("chol", (3,))] and stats.rows == 3
    path = write(tmp_path / "a.csv", HEADER + "1_0,200,a,0\n")
    assert "column 'age': text where a number is expected in 1 row (1)" in refused(path)


def test_names_for_a_file_without_header(tmp_path: Path):
    path = write(tmp_path / "a.csv", "Quastenflosser,50,200,a,0\nQuastenflosser,51,201,b,1\n")
    site_map = mapped(tmp_path, '[file]\nnames = ["name", "age", "chol", "ward", "sick"]\n')
    assert read(path, site_map=site_map)["age"] == [50, 51]
    sentence = refused(path)
    assert "'age': is not in the data" in sentence
    drafted = site.draft(path, SCHEMA, [])
    assert PLANTED not in drafted.text + drafted.private and "# names = [" in drafted.text


# --- what is refused ------------------------------------------------------------------------------------------------

P = PLANTED
BAD = {
    "missing column": (f"age,chol,{P}\n50,200,a\n", r"'ward': is not in the data; .* \(and 1 more"),
    "other delimiter": (f"age;chol;ward;sick\n50;200;{P};0\n", "the header is one cell: is the delimiter another"),
    "unknown category": (HEADER + f"50,200,{P},0\n", r"'ward': a value is not among the task's values in 1 row \(1\)"),
    "missing value": (HEADER + "50,200,a,0\n50,,a,0\n", r"'chol': a value is missing.* in 1 row \(2\)"),
    "missing label": (HEADER + "50,200,a,\n", r"'sick': the label is missing in 1 row \(1\)"),
    "text": (HEADER + f"50,{P},a,0\n", r"'chol': text where a number is expected in 1 row \(1\)"),
    "out of range": (HEADER + "50,200,a,0\n50,7654321,a,0\n", r"'chol': a value is above 700 mg/dL.* in 1 row \(2\)"),
    "infinity": (HEADER + "inf,200,a,0\n", r"'age': a number is not finite in 1 row \(1\)"),
    "overflow": (HEADER + "1e999,200,a,0\n", r"'age': a number is not finite in 1 row \(1\)"),
    "NaN": (HEADER + "nan,200,a,0\n", r"'age': a value is missing.* in 1 row \(1\)"),
    "other label": (HEADER + f"50,200,a,{P}\n", r"'sick': a value belongs to none of .* classes in 1 row \(1\)"),
    "empty": ("", "is empty: it has not even a header"),
    "blank": ("\n \n\n", "is empty: it holds blank lines only"),
    "blank, long": ("\n" * 2**21, "has no header in its first"),
    "open quote in header": (f'"age,{P}\n50,200\n', "has no header in its first .* quotes do not match"),
    "more cells": (HEADER + f"50,200,a,0\n50,200,a,0,{P}\n", r"has more cells than the header in 1 row \(2\)"),
    "fewer cells": (HEADER + f"50,200,a,0\n50,{P}\n", r"has fewer cells than the header in 1 row \(2\)"),
    "decimal commas": (HEADER + "50,5,200,a,0\n", r"has more cells than the header in 1 row \(1\)"),
    "twice in header": ("age,chol,ward,sick,age\n50,200,a,0,51\n", "'age': stands more than once in the header"),
    "encoding": (HEADER.encode() + b"50,200,a,0\n50,200,\xe4\xf6,0\n", r"a byte that is not utf-8 in 1 row \(2\)"),
    "encoding of header": (b"age,chol,ward,sick,\xe4\n50,200,a,0,\n", "a byte that is not utf-8"),
    "UTF-16": ((HEADER + "50,200,a,0\n").encode("utf-16"), 'UTF-16; declare encoding = "utf-16"'),
    "open quote": (HEADER + f'50,200,a,0\n50,200,"{P},0\n', r"a quote is opened and never closed in 1 row \(2\)"),
    "open quote, long": (HEADER + f'50,200,a,0\n50,200,"{P},0\n' + "50,200,a,0\n" * 20_000, r"in 1 row \(2\)"),
    "odd quote": (HEADER + f'50,200,"a"{P},0\n50,200,a,0\n', r"a quote inside a cell is not doubled in 1 row \(1\)"),
    "NUL": (HEADER + f"50,200,a,0\n50,200,\0{P},0\n", r"holds a NUL byte, which text never has in 1 row \(2\)"),
    "NUL in header": ("age,chol\0,ward,sick\n50,200,a,0\n", "holds a NUL byte"),
    "workbook": (b"PK\x03\x04" + bytes(100), "an Excel workbook"),
    "gzip": (b"\x1f\x8b" + bytes(100), "packed by gzip"),
    "binary": (bytes(range(256)) * 9, "holds a NUL byte"),
    "header only": (HEADER, ""),
    "huge line": (HEADER + "50,200,a,0\n50,200,a," + P * 400_000, "a line is longer than"),
    "huge header": (P * 400_000, "a line is longer than|has no header"),
    "huge cell": (HEADER + f"50,200,{P * 10_000},0\n", "a cell is longer than"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("block", [2**16, 64])
def test_a_bad_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, block: int):
    if block == 64 and ("huge" in fault or "long" in fault):
        pytest.skip("takes seconds, and is the same")
    monkeypatch.setattr("fusionlearn.site.text.BLOCK", block)
    text, told = BAD[fault]
    path = write(tmp_path / "export.csv", text)
    if fault == "header only":
        source = site.open_source(path, SCHEMA)
        assert not list(source.pieces(10)) and "holds no rows" in str(site.faults(source, SCHEMA)[0][0])
        return
    sentence = refused(path)
    assert re.search(told, sentence), sentence
    assert sentence.startswith(f"{path}: ") and "\n" not in sentence


@pytest.mark.parametrize("block", [64, 2**16])
def test_faults_keep_the_number_of_their_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr("fusionlearn.site.text.BLOCK", block)
    lines = [f"50,200,{'ab'[i % 2]},{i % 2}\n" for i in range(200)]
    for row, line in ((7, "50,200,a\n"), (50, f"{P},200,a,0\n"), (51, "50,200,a,0,1\n"), (120, f"50,200,{P},0\n")):
        lines[row - 1] = line
    lines.insert(20, "\n\n,,,\n")  # lines without content have no number
    lines += [f"50,{P},a,0\n"] * 9
    faults, stats = site.faults(site.open_source(write(tmp_path / "a.csv", HEADER + "".join(lines)), SCHEMA), SCHEMA)
    assert [(fault.column, fault.rows, fault.count) for fault in faults] == [
        ("", (7,), 1),
        ("", (51,), 1),
        ("age", (50,), 1),
        ("chol", (201, 202, 203, 204, 205), 9),
        ("ward", (120,), 1),
    ]
    assert stats.rows == 209


def bomb(path: Path, rows: int) -> Path:
    """A small npz file whose column 'age' unpacks to 8 bytes times `rows`."""
    np.savez_compressed(path, chol=np.zeros(3), ward=np.zeros(3), sick=np.zeros(3))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (rows,)})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("age.npy", "w") as out:
        out.write(head.getvalue())
        for _ in range(0, rows * 8, 2**20):
            out.write(bytes(2**20))
    return path


def npz(path: Path, **columns: object) -> Path:
    whole = {
        "age": np.full(3, 50.0),
        "chol": np.full(3, 200.0),
        "ward": np.array(list("aba")),
        "sick": np.arange(3) % 2,
    }
    np.savez(path, **{**whole, **columns})
    return path


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"age": np.array([1, P, None], dtype=object)}, "holds Python objects, which are never loaded"),
        ({"age": np.zeros(4)}, "has 3 rows, 'age' has 4"),
        ({"age": np.zeros(3, "c16")}, "not one array of numbers, texts or dates"),
        ({"age": np.float64(3)}, "not one array of numbers, texts or dates"),
        ({"age": np.zeros(3, [("a", "f8")])}, "not one array of numbers, texts or dates"),
        ({"age": np.zeros((3, 2))}, r"'age': has rows of shape \(2,\), one number is expected"),
        ({"age": np.zeros((3, 200_000))}, "has rows of 1600000 bytes"),
        ({"age": np.array([P] * 3)}, r"'age': text where a number is expected in 3 rows \(1, 2, 3\)"),
        ({"age": np.array(["2020-01-01"] * 3, "M8[D]")}, "a date where a number is expected in 3 rows"),
        ({"age": np.array([50, np.inf, np.nan])}, r"'age': a number is not finite in 1 row \(2\)"),
        ({"age": np.array([1, 2, np.longdouble("1e4000")])}, r"'age': a number is not finite in 1 row \(3\)"),
        ({"age": np.frombuffer(b"\xff" * 12, "<U1")}, "is not a whole npz file"),
        ({"age": np.array([1, 2, 3]).view("M8[as]")}, "is not a whole npz file"),
        ({"ward": np.array([0, 1, 2])}, r"'ward': a value is not among the task's values in 3 rows"),
    ],
)
def test_a_bad_npz_is_one_sentence(tmp_path: Path, columns: dict[str, object], told: str):
    sentence = refused(npz(tmp_path / "a.npz", **columns))
    assert re.search(told, sentence), sentence


@pytest.mark.parametrize("kind", ["cut", "other", "altered", "lzma", "single"])
def test_a_broken_npz_is_one_sentence(tmp_path: Path, kind: str):
    path = npz(tmp_path / "a.npz")
    data = path.read_bytes()
    if kind == "lzma":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            for name in ("age", "chol", "ward", "sick"):
                archive.writestr(f"{name}.npy", data)
    elif kind == "single":
        np.save(tmp_path / "a.npy", np.zeros(3))
        assert "save the columns by name" in refused(tmp_path / "a.npy")
        return
    else:
        middle = data.index(b"<f8") + 200
        altered = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"cut": data[:-40], "other": HEADER.encode(), "altered": altered}[kind])
    assert "is not a whole npz file" in refused(path) or kind == "lzma"


def test_a_bomb_costs_no_memory(tmp_path: Path):
    path = bomb(tmp_path / "a.npz", 2**24)
    assert path.stat().st_size < 2**18
    tracemalloc.start()
    assert "has 3 rows, 'age' has 16777216" in refused(path)
    schema = Schema({"age": Number(0, 120)}, NumberLabel("age2", 0, 1))
    source = site.open_source(path, schema, with_label=False)
    assert sum(len(piece["age"]) for piece in source.pieces(2**16)) == 2**24
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_parquet_file_that_is_none(tmp_path: Path):
    pytest.importorskip("pyarrow")
    assert "is not a Parquet file" in refused(write(tmp_path / "a.parquet", HEADER))
    assert "is not a whole Parquet file" in refused(write(tmp_path / "a.parquet", b"PAR1" + bytes(100) + b"PAR1"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["a.npz", "b.npz", "a.parquet"]))
def test_altered_archives_give_sentences(tmp_path: Path, data: st.DataObject, kind: str):
    """Whatever bytes are changed, taken out or put in: read, or refused, never another exception."""
    columns = {"age": np.full(40, 50.0), "chol": np.arange(100, 140), "ward": np.array(list("ab") * 20)}
    columns["sick"] = np.arange(40) % 2
    if kind == "a.parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table(columns), tmp_path / kind, row_group_size=15)
    else:
        (np.savez if kind == "a.npz" else np.savez_compressed)(tmp_path / kind, **columns)
    altered = bytearray((tmp_path / kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(altered) - 1))
        altered[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    path = write(tmp_path / f"x{Path(kind).suffix}", bytes(altered))
    try:
        source = site.open_source(path, SCHEMA)
        faults, _ = site.faults(source, SCHEMA)
        site.draft(path, SCHEMA, faults)
    except DataError:
        pass


def test_parquet_types(tmp_path: Path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    good = {"age": [50, None], "chol": ["200", "240.5"], "ward": ["a", None], "sick": [True, False]}
    bad = {"struct": pa.array([{"a": 1}, {"a": 2}]), "ragged": pa.array([[1.0], [1.0, 2.0]])}
    bad |= {"binary": pa.array([P.encode(), b""]), "text": pa.array([P, P])}
    schema = Schema(dict(SCHEMA.columns), SCHEMA.label, missing="center")
    pq.write_table(pa.table(good), tmp_path / "a.parquet")
    assert repr(read(tmp_path / "a.parquet", schema)["age"]) == "[50.0, nan]"
    for name, told in (
        ("struct", "neither numbers nor texts nor dates"),
        ("ragged", "lists of unlike length"),
        ("binary", "neither numbers nor texts nor dates"),
        ("text", "text where a number is expected in 2 rows"),
    ):
        pq.write_table(pa.table({**good, "age": bad[name]}), tmp_path / "a.parquet")
        assert told in refused(tmp_path / "a.parquet", schema)


def test_folders_and_files_that_are_not_there(tmp_path: Path):
    assert "is a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is a device or a pipe" in refused(tmp_path / "pipe.csv")
    assert "there is no file of that name" in refused(tmp_path / "none.csv")


# --- any CSV reads back the same ------------------------------------------------------------------------------------

WARDS = ("a b", 'x"y', "ü;,|", "1,5", "it's")
ANY = Schema({"age": Number(-1e300, 1e300), "ward": Category(WARDS)}, NumberLabel("z", -1e300, 1e300), missing="center")
NUMBERS = st.none() | st.floats(-1e300, 1e300) | st.integers(-(2**60), 2**60).map(float)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(NUMBERS, st.sampled_from(WARDS), st.text(max_size=5), st.floats(-1e9, 1e9)), max_size=12),
    delimiter=st.sampled_from(",;\t|:^~ -.'/#"),
    quote=st.sampled_from("\"'"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    decimal=st.sampled_from(".,"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    gap=st.sampled_from(["", "-9", "k.A."]),
    block=st.sampled_from([7, 64, 2**16]),
)
def test_any_written_csv_reads_back_the_same(
    tmp_path, monkeypatch, rows, delimiter, quote, quoting, end, decimal, encoding, gap, block
):
    monkeypatch.setattr("fusionlearn.site.text.BLOCK", block)
    rows = [row for row in rows if row[0] != -9]
    if delimiter == quote:
        delimiter = ";"
    with (tmp_path / "a.csv").open("w", encoding=encoding, newline="", errors="replace") as out:
        writer = csv.writer(out, delimiter=delimiter, quotechar=quote, quoting=quoting, lineterminator=end)
        writer.writerow(["age", "note", "ward", "z"])
        for number, ward, note, z in rows:
            age = gap if number is None else repr(number).replace(".", decimal)
            # the csv module quotes only the line end that it writes itself
            note = note.replace("\0", "").replace({"\n": "\r", "\r": "\n"}.get(end, "\0"), "")
            writer.writerow([age, note, ward, repr(z).replace(".", decimal)])
    options = FileOptions(delimiter=delimiter, quote=quote, decimal=decimal, encoding=encoding)
    site_map = SiteMap(options, {"age": ColumnMap(missing=("-9", "k.A."))})
    source = site.open_source(tmp_path / "a.csv", ANY, site_map)
    pieces = [ANY.read(piece).data for piece in source.pieces(5)]
    assert source.ignored == ("note",)
    found = [
        row for piece in pieces for row in zip(*(piece[name].tolist() for name in ("age", "ward", "y")), strict=True)
    ]
    expected = [(np.nan if age is None else age, WARDS.index(ward), z / 1e300) for age, ward, _, z in rows]
    assert repr(found) == repr(expected)


def test_a_named_value_may_look_like_a_number_with_a_comma(tmp_path: Path):
    """With decimal commas "1,5" is a number, but here it is a name."""
    schema = Schema({"age": Number(0, 120), "ward": Category(("1,5", "2,5"))}, NumberLabel("z", 0, 10))
    path = write(tmp_path / "a.csv", "age;ward;z\n50,5;1,5;1,5\n51;2,5;2\n")
    found = read(path, schema, SiteMap(FileOptions(delimiter=";", decimal=",")))
    assert found["age"] == [50.5, 51] and found["ward"] == [0, 1]


# --- hostile files: a sentence, never a traceback, never a value ------------------------------------------------------

TOKENS = st.sampled_from(
    [b"50", b"200", b"a", b"b", b"0", b"1", b",", b",", b",", b";", b"\n", b"\n", b"\r", b'"', b"'", b"\0", b"\xff"]
    + [b"\xe4", b"\xef\xbb\xbf", b"-9", b"1e999", b"nan", b"inf", b"1_0", b".", b" ", b"\t", b"\x1b[2J", b"9" * 400]
    + [P.encode()] * 4
)
WHOLE = [HEADER.encode(), HEADER.replace(",", ";").encode(), b"Alter;Cholesterin;Station;krank\n", b"age\n"]
WHOLE += [HEADER.encode("utf-16"), b"age,age,age,age\n"]
BODY = st.lists(TOKENS, max_size=60).map(b"".join) | st.binary(max_size=200)
HOSTILE = st.tuples(st.sampled_from([*WHOLE, b"", b"\n", b'"age,chol\n']), BODY)
MAPS = st.sampled_from(
    [
        "",
        "[file]\ndelimiter = ';'\ndecimal = ','\nencoding = 'cp1252'\n",
        "[file]\nquote = ''\n",
        "[file]\nskip_lines = 1\n",
        "[file]\nencoding = 'utf-16'\n",
        "[file]\nthousands = ','\n[columns.chol]\nvalues = { a = 60 }\n",
        "[columns.age]\nage_at = 2026-01-01\n",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=HOSTILE, toml=MAPS, suffix=st.sampled_from(["csv", "csv", "csv", "npz", "parquet"]))
def test_hostile_bytes_give_sentences_without_values(tmp_path, data, toml, suffix):
    path = write(tmp_path / f"a.{suffix}", b"".join(data))
    site_map = mapped(tmp_path, toml)
    told = []
    try:
        source = site.open_source(path, SCHEMA, site_map)
        faults, _ = site.faults(source, SCHEMA)
        told += list(map(str, faults))
        for piece in source.pieces(7):
            SCHEMA.read(piece)
    except DataError as error:
        told += [str(error), *map(str, error.faults)]
    drafted = site.draft(path, SCHEMA, [], site_map)
    if drafted is not None:
        told += [*map(str, drafted.faults)]
        assert P not in drafted.text or data[0] not in WHOLE or "skip" in toml  # else it is no header
        SiteMap.load(write(tmp_path / "drafted.toml", drafted.text))
    assert P not in "".join(told)


# --- hold-out -------------------------------------------------------------------------------------------------------


def test_rows_held_out_do_not_depend_on_the_pieces():
    whole = site.hold_out_mask(1, 10_000, 0.2)
    parts = [site.hold_out_mask(first, 100, 0.2) for first in range(1, 10_001, 100)]
    assert np.array_equal(whole, np.concatenate(parts)) and 1_900 < whole.sum() < 2_100
    assert not np.array_equal(whole, site.hold_out_mask(1, 10_000, 0.2, seed=1))
    assert not site.hold_out_mask(1, 100, 0.0).any()


# --- the commands, and a real hospital ------------------------------------------------------------------------------


def call(*args: object, stdin: str = "") -> tuple[int, str]:
    """A command's exit status and all it says; never a traceback, never an internal error."""
    result = CliRunner().invoke(cli.main, [str(arg) for arg in args], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output and result.exit_code in (0, 1), result.output
    return result.exit_code, result.output


@pytest.fixture
def task(tmp_path: Path) -> Path:
    toml = ROOT / "examples" / "hospitals" / "task.toml"
    assert call("new", toml, "-o", tmp_path / "task.fusion")[0] == 0
    return tmp_path / "task.fusion"


GERMAN = {
    "age": "Alter", "sex": "Geschlecht", "cp": "Brustschmerz", "trestbps": "Blutdruck", "chol": "Cholesterin (mmol/l)",
    "fbs": "Nüchternblutzucker", "restecg": "Ruhe-EKG", "thalach": "Herzfrequenz", "exang": "Belastungsangina",
    "oldpeak": "ST-Senkung", "target": "Diagnose",
}  # fmt: skip


def german(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """A hospital's table as its own system might export it, with names and case numbers planted."""
    with path.open("w", encoding="cp1252", newline="") as out:
        writer = csv.writer(out, delimiter=";")
        writer.writerow(["PatientName", "Fallnummer", *GERMAN.values()])
        for i in range(len(columns["age"])):
            cells = []
            for name in GERMAN:
                value = columns[name][i]
                if np.isnan(value):
                    cells.append("-9")
                elif name == "chol":
                    cells.append(f"{value / 38.67:.2f}".replace(".", ","))
                elif name == "sex":
                    cells.append("männlich" if value else "weiblich")
                else:
                    cells.append(f"{value:g}".replace(".", ","))
            writer.writerow([f"{P}, Zacharias Nr. {i}", f"KH-Stralsund-{4711_000 + i}", *cells])
    return path


def plain(path: Path, columns: dict[str, np.ndarray]) -> Path:
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(GERMAN)
        for i in range(len(columns["age"])):
            writer.writerow(["" if np.isnan(columns[name][i]) else f"{columns[name][i]:g}" for name in GERMAN])
    return path


SECRETS = (P, "Zacharias", "Stralsund", "KH-", "4711")


def secrets_in(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    forms = {secret: (secret.encode(), secret.encode("utf-16-le")) for secret in SECRETS}
    return [secret for secret, coded in forms.items() if any(form in data for form in coded)]


@pytest.mark.parametrize("hospital", ["hungarian", "va"])
def test_a_hospital_s_own_export_gives_the_very_same_update(real_data, tmp_path, own_home, task, hospital):
    """Issue: cp1252, semicolons, decimal commas, German headers, -9 for missing, mmol/L, and a column of names."""
    columns = datasets.heart_disease()[hospital]
    export = german(tmp_path / "export.csv", columns)
    told = []

    def run(*args: object) -> str:
        status, text = call(*args)
        told.append(text)
        assert status == 0, text
        return text

    drafted = tmp_path / "site.toml"
    status, text = call("check", task, export, "--draft", drafted)
    told.append(text)
    assert status == 1
    site_toml = drafted.read_text()
    for line in (
        'delimiter = ";"', 'encoding = "cp1252"', 'decimal = ","', 'from = "Alter"', 'from = "Nüchternblutzucker"',
        'from = "Cholesterin (mmol/l)"', "factor = 38.67", 'from = "Diagnose"',
    ):  # fmt: skip
        assert line in site_toml, site_toml
    assert "männlich" not in site_toml and "2 values of this column are unknown" in site_toml
    # what a person completes by hand
    site_toml = site_toml.replace('# missing = ["…"]  # codes that mean "no value" in every column', "missing = [-9]")
    site_toml = site_toml.replace("# round = 0", "round = 0")
    site_toml = re.sub('# values = { "…".*', 'values = { "männlich" = "1", "weiblich" = "0" }', site_toml)
    drafted.write_text(site_toml)
    run("check", task, export, "--map", drafted)
    ignored = run("summarize", task, export, "--map", drafted, "-o", tmp_path / "german.fusion", "--accept-small-cells")
    assert ignored.count("PatientName") == 1 and "Ignored 2 undeclared columns, never loaded: " in ignored
    plain(tmp_path / "plain.csv", columns)
    run("summarize", task, tmp_path / "plain.csv", "-o", tmp_path / "plain.fusion", "--accept-small-cells")
    ours, theirs = (file.read(tmp_path / f"{name}.fusion", Update).arrays for name in ("german", "plain"))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    # everything else the tool does with it, then every byte it wrote
    run("inspect", tmp_path / "german.fusion")
    model = tmp_path / "model.fusion"
    run("fuse", task, tmp_path / "german.fusion", "-o", model, "--report", tmp_path / "report.json")
    run("predict", model, export, "--map", drafted, "-o", tmp_path / "predictions.csv")
    run("evaluate", model, export, "--map", drafted)
    for line in (f"{P};KH-1;x;m", f"{P};KH-1;{P};männlich;1;130;5,2;0;0;150;0;1;0", f'{P};"KH-1;5'):
        faulty = write(tmp_path / "faulty.csv", export.read_text("cp1252") + line + "\n", "cp1252")
        for args in (
            ("check", task, faulty, "--map", drafted, "--show-values"),
            ("check", task, faulty, "--map", drafted, "--json"),
            ("check", task, faulty, "--draft", tmp_path / "again.toml"),
            ("summarize", task, faulty, "--map", drafted, "-o", tmp_path / "never", "--show-values"),
            ("predict", model, faulty, "--map", drafted, "-o", tmp_path / "never"),
            ("evaluate", model, faulty, "--held-out", 0.5),
        ):
            status, text = call(*args)
            told.append(text)
            assert status == 1
        faulty.unlink()
    assert not (tmp_path / "never").exists()
    export.unlink()
    written = [path for folder in (tmp_path, own_home) for path in folder.rglob("*") if path.is_file()]
    assert len(written) >= 9
    for path in written:
        assert secrets_in(path.read_bytes()) == [], path
    assert secrets_in("".join(told)) == []


def test_check_lists_what_is_left_under_the_draft(tmp_path: Path, task: Path, real_data: Path):
    export = german(tmp_path / "export.csv", datasets.heart_disease()["va"])
    status, text = call("check", task, export, "--json")
    value = json.loads(text.strip().splitlines()[-1])
    assert status == 1 and value["ok"] is False
    left = {(fault["column"], fault["count"] > 0) for fault in value["remaining"]}
    assert ("sex", True) in left and ("trestbps", True) in left and ("age", True) not in left
    assert secrets_in(text) == []


def test_values_are_shown_to_a_terminal_only(tmp_path: Path, task: Path, monkeypatch: pytest.MonkeyPatch):
    header = ",".join(GERMAN)
    export = write(tmp_path / "a.csv", f"{header}\n63,{P},1,145,233,1,2,150,0,2.3,0\n")
    drafted = tmp_path / "site.toml"
    status, text = call("check", task, export, "--show-values", "--draft", drafted)
    assert status == 1 and "on a terminal only" in text and P not in text
    assert P not in drafted.read_text()
    shown: list[str] = []
    monkeypatch.setattr("fusionlearn.cli.base.say", lambda text="": shown.append(text))
    monkeypatch.setattr("fusionlearn.cli.base.watched_by_a_person", lambda: True)
    status, text = call("check", task, export, "--show-values", "--draft", drafted)
    assert P in "".join(shown) and P not in text and P not in drafted.read_text()


def test_held_out_rows_do_not_move_the_numbers_of_faults(tmp_path: Path, task: Path):
    good = "63,1,1,145,233,1,2,150,0,2.3,0\n"
    export = write(tmp_path / "a.csv", ",".join(GERMAN) + "\n" + good * 39 + good.replace("145", "4711") + good)
    held = site.hold_out_mask(1, 40, 0.5)
    assert held[:39].any() and not held[39]
    for share in (0.0, 0.5):
        status, text = call("summarize", task, export, "-o", tmp_path / "u", "--hold-out", share, "--yes")
        assert status == 1 and "above 300 mmHg" in text and "(40)" in text and "4711" not in text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=HOSTILE)
def test_hostile_files_on_the_command_line(tmp_path, task, data):
    path = write(tmp_path / "a.csv", b"".join(data).replace(b"age,chol,ward,sick", ",".join(GERMAN).encode()))
    for args in (("check", task, path), ("summarize", task, path, "-o", tmp_path / "u", "--accept-small-cells")):
        _, text = call(*args)
        assert P not in text or data[0] not in WHOLE


# --- guesses --------------------------------------------------------------------------------------------------------


def drafted(tmp_path: Path, text: str, encoding: str = "utf-8", schema: Schema = SCHEMA) -> site.Draft:
    result = site.draft(write(tmp_path / "a.csv", text, encoding), schema, [])
    assert result is not None
    again = SiteMap.load(write(tmp_path / "again.toml", result.text))
    said = {name: column for name, column in again.columns.items() if column != ColumnMap()}
    assert (again.file, said) == (result.site_map.file, result.site_map.columns)  # the text says the map
    return result


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_delimiter_encoding_and_decimal_are_guessed(tmp_path: Path, delimiter: str, encoding: str):
    lines = [["Alter", "Größe", "Cholesterol", "ward", "sick"]] + [["50,5", "1,80", "200", "a", "0"]] * 5
    quote = '"' if delimiter == "," else ""
    text = "".join(delimiter.join(quote + cell + quote for cell in line) + "\n" for line in lines)
    found = drafted(tmp_path, text, encoding)
    assert (found.site_map.file.delimiter or ",") == delimiter and found.site_map.file.encoding == encoding
    assert found.site_map.of("age").source == "Alter" and found.site_map.of("chol").source == "Cholesterol"
    assert delimiter == "," or (found.site_map.file.decimal == "," and found.faults == ())


def test_the_line_excel_puts_above_the_header(tmp_path: Path):
    found = drafted(tmp_path, "sep=;\r\nage;chol;ward;sick\r\n50,5;200;a;0\r\n")
    assert found.site_map.file == FileOptions(delimiter=";", decimal=",", skip_lines=1) and found.faults == ()


def test_names_of_arrays_are_guessed(tmp_path: Path):
    names = ("Alter", "cholesterol", "ward", "sick", "other")
    np.savez(tmp_path / "a.npz", **{name: np.array([55, 0]) for name in names})
    found = site.draft(tmp_path / "a.npz", SCHEMA, [])
    assert found.site_map.of("age").source == "Alter" and found.site_map.of("chol").source == "cholesterol"


def test_dates_units_and_codes_are_guessed(tmp_path: Path):
    schema = Schema({**SCHEMA.columns, "chol": Number(0, 700, 240, 50, "mg/dL")}, SCHEMA.label)
    rows = "".join(f"{i + 1:02}.03.1960,{5 + i / 10},a,0\n" for i in range(20)) + "01.01.1950,-9,a,0\n" * 2
    found = drafted(tmp_path, HEADER.replace("age", "Geburtsdatum") + rows, schema=schema)
    assert found.site_map.of("chol").factor == 38.67
    assert '"-9"' in found.private and "-9" not in found.text and "1950" not in found.private
    birth = drafted(tmp_path, HEADER + rows, schema=schema).site_map.of("age")
    assert birth.date_format == "%d.%m.%Y" and isinstance(birth.age_at, datetime.date)


def test_a_first_row_of_values_is_never_taken_for_a_header(tmp_path: Path):
    dubious = (f"{P},high,m,nil", f"{P},50,other,nil", f"{P},?,other,nil", f"{P},k.A.,other,nil", f"{P},high,{P},x")
    for row in (*dubious, f"{P},50,m,0", f"{P},?,m,0", f"{P},-9,m,1", f"{P},01.02.1990,m,x"):
        found = site.draft(write(tmp_path / "a.csv", f"{row}\nAnna,51,m,1\nBert,52,w,0\n"), SCHEMA, [])
        assert P not in found.text + found.private + repr(found.faults), row


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04aaaa", b"\0\0\0\0", b"\n"])
def test_no_draft_where_no_map_could_help(tmp_path: Path, data: bytes):
    assert site.draft(write(tmp_path / "a.csv", data), SCHEMA, []) is None
    assert site.draft(tmp_path / "none.csv", SCHEMA, []) is None


# --- size -----------------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys, time
from pathlib import Path
from fusionlearn import Category, ClassLabel, Number, Schema, site
columns = {f"c{i}": Number(-1000, 1000) for i in range(9)}
if sys.argv[2] == "text":
    columns["w"] = Category(("ja", "nein"))
schema = Schema(columns, ClassLabel("z", {"a": ["0"], "b": ["1"]}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(len(piece["z"]) for piece in site.open_source(Path(sys.argv[1]), schema).pieces(65536))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str):
    """A file of 30 MB is read in a fraction of that; so is one of 3 GB."""
    path = tmp_path / "a.csv"
    rng = np.random.default_rng(0)
    lines = [",".join(f"{x:.3f}" for x in row) + ",ja,1\n" for row in rng.normal(0, 100, (5000, 9)).tolist()]
    used = []
    for repeats in (20, 80):
        with path.open("w") as out:
            out.write(",".join([*(f"c{i}" for i in range(9)), "w", "z"]) + "\n")
            for _ in range(repeats):
                out.writelines(lines)
        if kind == "numbers":
            text = path.read_text().replace(",ja,", ",0,")
            path.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, path, kind], capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        rows, mebibytes = done.stdout.split()
        assert int(rows) == repeats * 5000
        used.append(float(mebibytes))
    assert used[1] < used[0] + 15 and used[1] < 120, used
