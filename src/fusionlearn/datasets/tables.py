"""Tables: each loader gives columns as NumPy arrays, named as the publisher names them, rows in the order of the file.

Columns of numbers are float64 with NaN where the file has nothing or `?`; labels, codes and counts that are never
missing are int64; moments are datetime64. The same columns come out of the official file and of a copy with a header
row or packed by gzip.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn.datasets.fetch import find
from fusionlearn.download import needed
from fusionlearn.errors import DatasetError

Columns: TypeAlias = dict[str, NDArray[Any]]  # columns that share their leading axis: one row a record

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
HEART_COLUMNS = (
    "age",  # years
    "sex",  # 1 male, 0 female
    "cp",  # chest pain: 1 typical angina, 2 atypical, 3 other pain, 4 none
    "trestbps",  # resting blood pressure, mm Hg
    "chol",  # serum cholesterol, mg/dl; 0 throughout Switzerland, which means missing
    "fbs",  # fasting blood sugar above 120 mg/dl
    "restecg",  # resting electrocardiogram: 0 normal, 1 ST-T abnormality, 2 hypertrophy
    "thalach",  # greatest heart rate reached, beats a minute
    "exang",  # angina on exercise
    "oldpeak",  # ST depression by exercise, mm
    "slope",  # of the ST segment: 1 up, 2 flat, 3 down
    "ca",  # major vessels coloured by fluoroscopy, 0 to 3
    "thal",  # 3 normal, 6 fixed defect, 7 reversible defect
    "target",  # 0 no disease, 1 to 4 disease (UCI calls it num)
)
_SPARSE = ("slope", "ca", "thal")  # mostly missing outside Cleveland; FLamby drops them
_MISSING = ("", "?")
_PERIODS = {"training": "datatraining.txt", "test": "datatest.txt", "test2": "datatest2.txt"}


def heart_disease() -> dict[str, Columns]:
    """The four hospitals of UCI Heart Disease: name -> the 14 `HEART_COLUMNS` of its patients.

    303, 294, 123 and 200 rows. float64, NaN where missing; `target` int64. Source: see `record("heart_disease")`.
    """
    folder = find("heart_disease")
    return {hospital: _heart_table(folder / f"processed.{hospital}.data") for hospital in HOSPITALS}


def _heart_table(path: Path) -> Columns:
    rows = _rows(path)
    if rows[0][0] == HEART_COLUMNS[0]:  # the official files have no header row, copies of them often do
        rows = rows[1:]
    return _typed(path, HEART_COLUMNS, rows, integers=("target",))


def fed_heart_disease(seed: int = 43) -> dict[str, tuple[Columns, Columns]]:
    """FLamby's Fed-Heart-Disease: hospital -> (train, test), 740 patients, 486 to train on and 254 to test.

    `slope`, `ca` and `thal` are dropped, then every patient with a missing value. 10 columns of float64 and `target`,
    int64: 1 disease, 0 none. Each hospital is split 66 to 34 by scikit-learn, stratified on `target` where each class
    has more than two patients (not in Switzerland); rows stay in the order of the file. Seed 43 is FLamby's split.

    Errors: MissingExtra without scikit-learn. Source: du Terrail et al., FLamby, NeurIPS Datasets and Benchmarks 2022.
    """
    return {hospital: _split(_complete(columns), seed) for hospital, columns in heart_disease().items()}


def _complete(columns: Columns) -> Columns:
    kept = {name: column for name, column in columns.items() if name not in _SPARSE}
    whole = ~np.any([np.isnan(column) for column in kept.values()], axis=0)
    result = {name: column[whole] for name, column in kept.items()}
    return result | {"target": (result["target"] > 0).astype(np.int64)}


def _split(columns: Columns, seed: int) -> tuple[Columns, Columns]:
    selection = needed("sklearn.model_selection", "scikit-learn", who="fed_heart_disease", extra="demo")
    label = columns["target"]
    _, counts = np.unique(label, return_counts=True)
    train, test = selection.train_test_split(
        np.arange(len(label)),
        test_size=0.34,
        train_size=0.66,
        random_state=seed,
        shuffle=True,
        stratify=label if len(counts) > 1 and counts.min() > 2 else None,
    )
    return _take(columns, np.sort(train)), _take(columns, np.sort(test))


def _take(columns: Columns, rows: NDArray[np.int64]) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def credit_default_taiwan() -> Columns:
    """30,000 card holders: `ID`, 23 features and the label `default` (22.1 % are 1), all int64.

    Natural partitions: `EDUCATION`, `MARRIAGE`, or bands of `AGE`. Reads a CSV where there is one, else the official
    Excel 97 sheet. Errors: MissingExtra where that needs xlrd.
    """
    folder = find("credit_default_taiwan")
    tables = sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")])
    if tables:
        path = tables[0].with_name(tables[0].name.removesuffix(".gz"))
        header, *rows = _rows(path)
    else:
        path = folder / "default of credit card clients.xls"
        header, *rows = _sheet(path)
    names = [*header[:-1], "default"]  # copies name the label in three ways
    return _typed(path, names, rows, integers=names)


def _sheet(path: Path) -> list[list[str]]:
    """The rows of the first sheet as text, without its first row, which numbers the columns X1, X2, …"""
    if not path.is_file():
        raise _lacks(path)
    sheet = needed("xlrd").open_workbook(str(path)).sheet_by_index(0)
    return [[str(cell) for cell in sheet.row_values(row)] for row in range(1, sheet.nrows)]


def occupancy() -> dict[str, Columns]:
    """An office room, each minute: period (training, test, test2) -> 8,143, 2,665 and 9,752 rows.

    `date` datetime64[s]; `Temperature` °C, `Humidity` %, `Light` lux, `CO2` ppm and `HumidityRatio` kg/kg, float64;
    label `Occupancy`, int64, 0 or 1.
    """
    folder = find("occupancy")
    return {period: _period(folder / name) for period, name in _PERIODS.items()}


def _period(path: Path) -> Columns:
    header, *rows = _rows(path)
    rows = [row[1:] for row in rows]  # the first cell of a row is its number, which the header does not name
    return _typed(path, header, rows, integers=("Occupancy",), moments=("date",))


def room_occupancy() -> Columns:
    """How many people are in a room, 10,129 half minutes of 7 days.

    `Date` datetime64[D], the natural partition; `Time` datetime64[s]; 16 sensor columns named for their node
    (`S1_Temp` … `S7_PIR`), float64; label `Room_Occupancy_Count`, int64, 0 to 3.
    """
    path = find("room_occupancy") / "Occupancy_Estimation.csv"
    header, *rows = _rows(path)
    columns = _typed(path, header, rows, integers=("Room_Occupancy_Count",), moments=("Date",), texts=("Time",))
    days = columns["Date"].astype("datetime64[D]")
    moments = [f"{day}T{clock.zfill(8)}" for day, clock in zip(days, columns["Time"], strict=True)]
    return columns | {"Date": days, "Time": _moments(path, "Time", moments)}


def wisdm_har() -> Columns:
    """What 36 people do, from the phone in their pocket: 5,418 windows of 10 seconds.

    `user` int64, 1 to 36, the natural partition; 43 features, float64, NaN where missing (only in `XPEAK`, `YPEAK` and
    `ZPEAK`); label `class`, text: Walking, Jogging, Upstairs, Downstairs, Sitting, Standing. The running number
    `UNIQUE_ID` is left out.
    """
    path = find("wisdm_har") / "WISDM_ar_v1.1_transformed.arff"
    lines = _rows(path)
    start = next((number for number, line in enumerate(lines) if line and line[0].lower() == "@data"), len(lines))
    head = [line[0].split() for line in lines[:start] if line]
    names = [words[1].strip('"') for words in head if words[0].lower() == "@attribute"]
    columns = _typed(path, names, lines[start + 1 :], integers=("user",), texts=("class",))
    return {name: column for name, column in columns.items() if name != "UNIQUE_ID"}


def export(tables: Mapping[str, Mapping[str, NDArray[Any]]], folder: Path) -> dict[str, Path]:
    """Write each table as `folder/NAME.csv`, for commands that read files; gives name -> path.

    A header row, commas, a dot for decimals, nothing where a value is missing, whole numbers without a dot: the same
    bytes whichever copy the columns came from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.csv" for name in tables}
    for name, columns in tables.items():
        with paths[name].open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(map(_cell, column.tolist()) for column in columns.values()), strict=True))
    return paths


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _rows(path: Path) -> list[list[str]]:
    """The rows, at least one, of a comma-separated file or of the same file packed by gzip; empty lines are skipped."""
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and not packed.is_file():
        raise _lacks(path)
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        rows = [row for row in csv.reader(content.decode("utf-8-sig").splitlines()) if row]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read ({type(error).__name__}): put the published file there.") from None
    if not rows:
        raise DatasetError(f"{path} is empty: put the published file there.")
    return rows


def _lacks(path: Path) -> DatasetError:
    return DatasetError(
        f"{path.parent} has no file {path.name}: put the published files there, or unset FUSIONLEARN_DATA to download."
    )


def _typed(
    path: Path,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    integers: Sequence[str] = (),
    moments: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Columns:
    """The columns of `rows`: float64 unless named otherwise. Errors: DatasetError with the row, never its value."""
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise DatasetError(f"{path}: row {number} has {len(row)} cells, {len(names)} expected: damaged?")
    columns: Columns = {}
    for position, name in enumerate(names):
        cells = [row[position].strip() for row in rows]
        if name in texts:
            columns[name] = np.array(cells)
        elif name in moments:
            columns[name] = _moments(path, name, cells)
        else:
            numbers = _numbers(path, name, cells)
            columns[name] = _whole(path, name, numbers) if name in integers else numbers
    return columns


def _numbers(path: Path, name: str, cells: Sequence[str]) -> NDArray[np.float64]:
    numbers = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            numbers[row] = np.nan if cell in _MISSING else float(cell)
        except ValueError:
            raise DatasetError(f"{path}: row {row + 1}, column {name}: text where a number belongs: damaged?") from None
    return numbers


def _moments(path: Path, name: str, cells: Sequence[str]) -> NDArray[np.datetime64]:
    try:
        return np.array([cell.replace("/", "-") for cell in cells], dtype="datetime64[s]")  # both are in use
    except ValueError:
        raise DatasetError(f"{path}: column {name} holds something that is no date: damaged?") from None


def _whole(path: Path, name: str, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    other = np.flatnonzero(~(np.isfinite(numbers) & (numbers == np.round(numbers))))
    if other.size:
        raise DatasetError(f"{path}: row {other[0] + 1}, column {name}: a whole number belongs here: damaged?")
    return numbers.astype(np.int64)
