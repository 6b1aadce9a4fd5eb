"""A site.toml drafted for an export that does not fit: what can be guessed is filled in, the rest is a comment.

The guess starts from the map that was given. A draft may name columns of the export, where its first row can only be
a header, and never holds a cell of the rows below it unless the person at the terminal asks for values.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import datetime
import difflib
import io
import json
import re
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fusionlearn.errors import DataError, Fault, FusionlearnError
from fusionlearn.problem import Category, ClassLabel, Number, NumberLabel, Schema, Vector, canonical, is_missing
from fusionlearn.site.cells import Declared, as_float
from fusionlearn.site.check import faults as faults_of
from fusionlearn.site.map import ColumnMap, FileOptions, SiteMap
from fusionlearn.site.source import open_source, open_table, shown
from fusionlearn.site.text import MAGIC, UTF16
from fusionlearn.types import CONTROL
from fusionlearn.units import CONVERSIONS

SAMPLE_ROWS = 1000
SAMPLE_BYTES = 2**20
DELIMITERS = ";\t,|"
ALIKE = 0.6  # how alike two names must be, 1 is equal
MOST_LISTED = 20  # values of a column that are listed for the person at the terminal
SHARE = 0.9  # of the cells that must fit a guess
DATES = ("%d.%m.%Y", "%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d", "%d.%m.%y", "%d-%m-%Y", "%Y/%m/%d")
CODES = ("-1", "-9", "-99", "-999", "-9999", "9", "99", "999", "9999", "k.A.", "n.b.", ".", "-", "unknown", "missing")

# What columns are called elsewhere: German, French, Spanish and everyday English words, one line a meaning.
WORDS = (
    ("age", "alter", "lebensalter", "edad", "ageyears"),
    ("sex", "gender", "geschlecht", "sexe", "sexo"),
    ("chol", "cholesterol", "cholesterin", "gesamtcholesterin", "cholesterinmmol", "colesterol"),
    ("trestbps", "bloodpressure", "restingbloodpressure", "blutdruck", "ruheblutdruck", "sbp", "systole", "rrsys"),
    ("cp", "chestpain", "brustschmerz", "brustschmerztyp", "angina"),
    ("fbs", "fastingbloodsugar", "bloodsugar", "nuechternblutzucker", "blutzucker"),
    ("restecg", "ecg", "ekg", "ruheekg"),
    ("thalach", "maxheartrate", "heartrate", "herzfrequenz", "maxherzfrequenz", "maximalpuls", "puls", "pulse"),
    ("exang", "exerciseangina", "belastungsangina"),
    ("oldpeak", "stdepression", "stsenkung"),
    ("target", "label", "num", "diagnosis", "diagnose", "befund", "outcome", "ergebnis", "zielgroesse", "sick"),
    ("weight", "gewicht", "koerpergewicht", "poids", "peso"),
    ("height", "size", "groesse", "koerpergroesse", "taille"),
    ("ward", "station", "abteilung", "department"),
    ("temperature", "temperatur", "temp"),
    ("price", "preis", "betrag", "amount"),
    ("income", "einkommen"),
    ("country", "land"),
    ("city", "stadt", "ort"),
    ("date", "datum"),
)
BIRTHS = ("birth", "birthdate", "birthday", "dateofbirth", "dob", "geburtsdatum", "gebdatum", "datenaissance")


@dataclass(frozen=True)
class Draft:
    """A drafted map: as text, and as a map; and what would still be wrong with it."""

    text: str  # without any cell's value
    private: str  # with codes and unknown values: for the person at the terminal alone, never for a file or a log
    site_map: SiteMap
    faults: tuple[Fault, ...]  # that remain when the table is read with it


@dataclass(frozen=True)
class _Sample:
    """The beginning of the export: its columns as text."""

    names: tuple[str, ...]  # () when the first row may be a record
    columns: Mapping[str, Sequence[str]]  # the export's name -> cells
    width: int


@dataclass
class _Guess:
    """What is drafted for one of the task's columns."""

    column: ColumnMap
    notes: list[str] = dataclasses.field(default_factory=list)  # comments, without values
    values: list[str] = dataclasses.field(default_factory=list)  # the site's values that are unknown to the task


def draft(
    path: Path,
    schema: Schema,
    faults: Sequence[Fault],
    site_map: SiteMap | None = None,
) -> Draft | None:
    """A site.toml drafted for an export; None where no map could help: no file, an empty one, none of ours.

    faults    what is wrong with it as it is read now
    site_map  the map it is read with now
    """
    if not _draftable(path):
        return None
    site_map = site_map or SiteMap()
    options = _options(path, site_map.file)
    sample = _sample(path, options, schema)
    options = _decimal(options, sample)
    exported = datetime.date.fromtimestamp(path.stat().st_mtime)
    guesses = _guesses(schema, site_map, options, sample, exported)
    columns = {name: guess.column for name, guess in guesses.items() if guess.column != ColumnMap()}
    drafted = SiteMap(options, columns, "the drafted site.toml")
    remaining = tuple(_remaining(path, schema, drafted))
    public, private = (
        "\n".join(_lines(options, guesses, sample, faults, show_values=show)) + "\n" for show in (False, True)
    )
    return Draft(public, private, drafted, remaining)


def _remaining(path: Path, schema: Schema, site_map: SiteMap) -> list[Fault]:
    try:
        return faults_of(open_source(path, schema, site_map), schema)[0]
    except DataError as error:
        return list(error.faults)
    except FusionlearnError as error:
        return [Fault("", str(error))]


# --- the file as a whole --------------------------------------------------------------------------------------------


def _draftable(path: Path) -> bool:
    """Whether there is a table at all that a map could describe."""
    try:
        with path.open("rb") as file:
            head = file.read(SAMPLE_BYTES)
    except OSError:
        return False
    if not head.strip() or (_is_text(path) and any(head.startswith(magic) for magic, _, _ in MAGIC)):
        return False
    return not _is_text(path) or b"\0" not in head or head.startswith(UTF16)


def _is_text(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() not in (".npz", ".parquet", ".pq")


def _options(path: Path, given: FileOptions) -> FileOptions:
    """Encoding and delimiter as they seem to be."""
    if not _is_text(path):
        return given
    encoding = given.encoding if _decodes(path, given.encoding) else _encoding(path)
    options = dataclasses.replace(given, encoding=encoding)
    told = re.fullmatch(r"sep=(.)[\r\n]*", next(iter(_head(path, options)), ""))  # a line Excel puts above the header
    if told:
        return dataclasses.replace(options, delimiter=told[1], skip_lines=options.skip_lines + 1)
    if given.delimiter is None:
        options = dataclasses.replace(options, delimiter=_delimiter(path, options))
    return options


def _decodes(path: Path, encoding: str) -> bool:
    """Whether the whole file can be decoded, without NUL characters in its beginning."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        with path.open("rb") as file:
            if "\0" in decoder.decode(file.read(SAMPLE_BYTES)):
                return False
            while data := file.read(SAMPLE_BYTES):
                decoder.decode(data)
            decoder.decode(b"", final=True)
    except (UnicodeError, OSError):
        return False
    return True


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(UTF16):
        return "utf-16"
    return next((encoding for encoding in ("utf-8", "cp1252") if _decodes(path, encoding)), "latin-1")


def _head(path: Path, options: FileOptions) -> list[str]:
    """The first whole lines."""
    with path.open("rb") as file:
        data = file.read(SAMPLE_BYTES)
        whole = not file.read(1)
    text = codecs.getincrementaldecoder(options.encoding)("replace").decode(data).removeprefix("\ufeff")
    lines = list(io.StringIO(text, newline=""))[options.skip_lines :]
    return lines if whole or len(lines) < 2 else lines[:-1]


def _records(lines: Sequence[str], options: FileOptions, delimiter: str) -> Iterator[list[str]]:
    """The first records as far as their quotes match."""
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=options.quote or None,
        quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
        skipinitialspace=delimiter != " ",
    )
    try:
        for count, row in enumerate(filter(any, reader)):
            if count > SAMPLE_ROWS:
                return
            yield row
    except csv.Error:
        return


def _delimiter(path: Path, options: FileOptions) -> str | None:
    """The mark that cuts the lines into the most columns, as many in every line as in the header."""
    lines = _head(path, options)
    best: tuple[float, str | None] = (0.0, None)
    for delimiter in DELIMITERS:
        widths = [len(row) for row in _records(lines, options, delimiter)]
        if not widths or widths[0] < 2:
            continue
        even = sum(width == widths[0] for width in widths) / len(widths)
        if even >= SHARE:
            best = max(best, (even * min(widths[0], 50), delimiter), key=lambda item: item[0])
    default = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    return None if best[1] == default else best[1]


def _sample(path: Path, options: FileOptions, schema: Schema) -> _Sample:
    if _is_text(path):
        delimiter = options.delimiter or ("\t" if path.suffix.lower() in (".tsv", ".tab") else ",")
        records = list(_records(_head(path, options), options, delimiter))
        if not records:
            return _Sample((), {}, 0)
        if options.names:
            names, rows = options.names, records
        else:
            names, rows = tuple(name.strip() for name in records[0]), records[1:]
            if not _is_header(names, rows, schema):
                return _Sample((), {}, len(names))
        columns = {name: [row[i] for row in rows if i < len(row)] for i, name in enumerate(names)}
        return _Sample(names, columns, len(names))
    try:
        table = open_table(path, SiteMap(options))
        names = tuple(name for name in table.names)
        columns = {}
        for name in names:
            batch = next(iter(table.batches([name])), None)
            cells = [] if batch is None else list(batch.columns[name][:SAMPLE_ROWS])
            columns[name] = [canonical(cell) for cell in cells] if not cells or _is_cell(cells[0]) else []
        return _Sample(names, columns, len(names))
    except FusionlearnError:
        return _Sample((), {}, 0)


def _is_cell(cell: object) -> bool:
    return not hasattr(cell, "shape") or getattr(cell, "shape", ()) == ()


def _is_header(names: Sequence[str], rows: Sequence[Sequence[str]], schema: Schema) -> bool:
    """Whether the first row can only be a header, so that it may be printed.

    All wanted columns are in it; or it has neither numbers, dates, codes nor blanks, none of its cells comes back in
    the rows below, and below it there are columns of numbers.
    """
    if all(name in names for name in (*schema.columns, schema.label.column)):
        return True
    if len(set(names)) < len(names) or any(_is_value(name) for name in names):
        return False
    below = [{row[i].strip() for row in rows if i < len(row)} for i in range(len(names))]
    if any(name in cells for name, cells in zip(names, below, strict=True)):
        return False
    return any(_mostly_numbers(cells) for cells in below) and len(rows) > 1


def _is_value(cell: str) -> bool:
    return is_missing(cell) or cell in CODES or bool(re.match(r"[+-]?[\d.,]", cell)) or bool(CONTROL.search(cell))


def _mostly_numbers(cells: set[str]) -> bool:
    filled = [cell for cell in cells if not is_missing(cell)]
    return bool(filled) and sum(_loose(cell) is not None for cell in filled) >= SHARE * len(filled)


def _loose(cell: str, decimal: str | None = None) -> float | None:
    """The number in a cell, whichever its decimal mark."""
    text = cell.strip()
    if decimal != "." and "." not in text:
        text = text.replace(",", ".")
    return as_float(text)


def _decimal(options: FileOptions, sample: _Sample) -> FileOptions:
    """A decimal comma where numbers have commas and none has a point; a thousands point beside it."""
    if options.decimal != "." or options.delimiter in (None, ","):
        return options
    cells = [cell.strip() for column in sample.columns.values() for cell in column]
    commas = sum(bool(re.fullmatch(r"[+-]?\d+,\d+", cell)) for cell in cells)
    points = sum(bool(re.fullmatch(r"[+-]?\d+\.\d+", cell)) for cell in cells)
    grouped = sum(bool(re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+,\d+", cell)) for cell in cells)
    if commas + grouped <= points:
        return options
    thousands = options.thousands or ("." if grouped else "")
    return dataclasses.replace(options, decimal=",", thousands=thousands)


# --- one column -----------------------------------------------------------------------------------------------------


def _guesses(
    schema: Schema, given: SiteMap, options: FileOptions, sample: _Sample, exported: datetime.date
) -> dict[str, _Guess]:
    wanted: dict[str, Declared] = {**schema.columns, schema.label.column: schema.label}
    named = {name: given.of(name).source or name for name in wanted}
    free = [name for name in sample.names if name not in named.values()]
    absent = [name for name in wanted if named[name] not in sample.names]
    renamed = _renamed([n for n in absent if not isinstance(wanted[n], Vector)], free)
    guesses = {}
    for name, column in wanted.items():
        guess = _Guess(given.of(name))
        if name in absent and sample.names and not isinstance(column, Vector):
            if name in renamed:
                guess.column = dataclasses.replace(guess.column, source=renamed[name])
            else:
                left = [shown(other) for other in free if other not in renamed.values()]
                guess.notes.append("no column of the export is named like it; undeclared ones: " + ", ".join(left))
        cells = sample.columns.get(guess.column.source or name)
        if cells:
            _fill(guess, name, column, cells, options, exported)
        guesses[name] = guess
    return guesses


def _renamed(absent: Sequence[str], free: Sequence[str]) -> dict[str, str]:
    """The export's likely name of each absent column, the most alike first, each name once."""
    pairs = sorted(((_alike(name, other), name, other) for name in absent for other in free), reverse=True)
    result: dict[str, str] = {}
    for alike, name, other in pairs:
        if alike >= ALIKE and name not in result and other not in result.values():
            result[name] = other
    return result


def _alike(name: str, other: str) -> float:
    """How alike two names are: 1 for equal ones, up to case, accents, units and what stands between words."""
    a, b = _letters(name), _letters(other)
    if not a or not b:
        return 0.0
    best = difflib.SequenceMatcher(None, a, b).ratio()
    for words in WORDS:
        if a in words:
            best = max(best, *(0.95 * difflib.SequenceMatcher(None, word, b).ratio() for word in words))
            if any(len(word) > 4 and word in b for word in words):
                best = max(best, 0.9)
    if a in WORDS[0] and best < ALIKE:  # an age may be counted from a date of birth
        best = max(best, *(0.7 * difflib.SequenceMatcher(None, word, b).ratio() for word in BIRTHS))
    return best if len(a) > 2 or best > 0.8 else 0.0


def _letters(name: str) -> str:
    """Lower-case letters and digits, without a unit in brackets; ä is ae."""
    text = re.sub(r"[(\[].*?[)\]]", "", name.lower())
    for umlaut, plain in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss"), ("é", "e"), ("è", "e")):
        text = text.replace(umlaut, plain)
    return re.sub(r"[^a-z0-9]", "", text)


def _fill(
    guess: _Guess, name: str, column: Declared, cells: Sequence[str], options: FileOptions, exported: datetime.date
) -> None:
    """What the cells of a column say about its map."""
    codes = {canonical(code) for code in (*options.missing, *guess.column.missing)}
    filled = [cell.strip() for cell in cells if not is_missing(cell) and canonical(cell) not in codes]
    if isinstance(column, Category | ClassLabel):
        _fill_category(guess, column, filled, options)
    elif isinstance(column, Number | NumberLabel) and filled and guess.column.age_at is None:
        form = _date_format(filled)
        if form is not None and _share(filled, guess.column.decimal or options.decimal) < SHARE:
            guess.column = dataclasses.replace(guess.column, date_format=form, age_at=exported)
            guess.notes.append(
                "holds dates: 'age_at' is the day this file was written; give the day ages are taken at, or the "
                "name of the column that holds it"
            )
        else:
            _fill_number(guess, name, column, filled, options)


def _fill_category(guess: _Guess, column: Category | ClassLabel, filled: Sequence[str], options: FileOptions) -> None:
    known = column.values if isinstance(column, Category) else [v for _, values in column.classes for v in values]
    mapped = {canonical(cell) for cell in guess.column.values}
    unknown = []
    for cell in dict.fromkeys(filled):
        number = _loose(cell, options.decimal)
        names = {canonical(cell)} | ({canonical(number)} if number is not None else set())
        if not names & (mapped | set(known)):
            unknown.append(cell)
    if unknown:
        one = len(unknown) == 1
        guess.notes.append(
            f"{len(unknown)} value{'' if one else 's'} of this column {'is' if one else 'are'} unknown to the task, "
            f"which knows {', '.join(map(_quoted, known))}: map {'it' if one else 'them'} in 'values', or list "
            f"{'it' if one else 'them'} in 'missing'"
        )
        guess.values = unknown


def _fill_number(
    guess: _Guess, name: str, column: Number | NumberLabel, filled: Sequence[str], options: FileOptions
) -> None:
    numbers = [number for cell in filled if (number := _loose(cell, options.decimal)) is not None]
    texts = [cell for cell in filled if _loose(cell, options.decimal) is None]
    if texts:
        guess.notes.append(f"{len(texts)} cells hold text: if it means that there is no value, list it in 'missing'")
        guess.values = list(dict.fromkeys(texts))
    if not numbers or guess.column.factor != 1 or guess.column.offset != 0:
        return
    common = _codes(numbers, column)
    if common:
        guess.notes.append(
            "a number far from all others comes back in several rows: if it means that there is no value, list it in "
            "'missing'"
        )
        guess.values += [canonical(code) for code in common]
        numbers = [number for number in numbers if number not in common]
    source = guess.column.source or name
    found = _conversion(f"{name} {source}", column, numbers)
    if found is not None:
        factor, other = found
        guess.column = dataclasses.replace(guess.column, factor=factor)
        guess.notes.append(
            f"its numbers fit {other} rather than {column.unit}: check the factor, and set 'round' to the decimals "
            f"the task's unit is measured with"
        )


def _share(filled: Sequence[str], decimal: str) -> float:
    return sum(_loose(cell, decimal) is not None for cell in filled) / len(filled)


def _date_format(filled: Sequence[str]) -> str | None:
    for form in DATES:
        if all(_is_date(cell, form) for cell in filled[:100]):
            return form
    return None


def _is_date(cell: str, form: str) -> bool:
    try:
        datetime.datetime.strptime(cell, form)
    except ValueError:
        return False
    return True


def _codes(numbers: Sequence[float], column: Number | NumberLabel) -> list[float]:
    """Numbers out of range that come back, on one side of all others, as codes for "no value" do."""
    counts = Counter(numbers)
    inside = [number for number in numbers if column.low <= number <= column.high]
    return [
        number
        for number, count in counts.items()
        if count > 1 and inside and not column.low <= number <= column.high and canonical(number) in CODES
    ]


def _conversion(names: str, column: Number | NumberLabel, numbers: Sequence[float]) -> tuple[float, str] | None:
    """Factor and unit under which the numbers would fit the task far better, or None."""
    if not numbers:
        return None
    best: tuple[float, float, str] | None = None
    now = _misfit(column, numbers, 1.0)
    for conversion in CONVERSIONS:
        if conversion.words and not any(word in names.lower() for word in conversion.words):
            continue
        sides = (
            (conversion.factor, conversion.usual, conversion.other),
            (1 / conversion.factor, conversion.other, conversion.usual),
        )
        for factor, usual, other in sides:
            misfit = _misfit(column, numbers, factor)
            if usual == column.unit and misfit < 1.5 and now > misfit + 2 and (best is None or misfit < best[0]):
                best = (misfit, factor, other)
    return best[1:] if best else None


def _misfit(column: Number | NumberLabel, numbers: Sequence[float], factor: float) -> float:
    """How far the middle of the numbers is from the task's centre, in scales; more by 10 · the share out of range."""
    outside = sum(not column.low <= number * factor <= column.high for number in numbers) / len(numbers)
    middle = statistics.median(numbers) * factor
    return abs(middle - cast(float, column.center)) / cast(float, column.scale) + 10 * outside


# --- the text -------------------------------------------------------------------------------------------------------


def _lines(
    options: FileOptions,
    guesses: Mapping[str, _Guess],
    sample: _Sample,
    faults: Sequence[Fault],
    *,
    show_values: bool,
) -> Iterator[str]:
    yield "# A draft of site.toml: how this site's export is written. Check each line, complete what is commented out."
    yield "[file]"
    default = FileOptions()
    for key in ("delimiter", "encoding", "quote", "decimal", "thousands", "skip_lines", "names", "missing"):
        value = getattr(options, key)
        if value != getattr(default, key):
            yield f"{key} = {_toml(value)}"
    if not sample.names and sample.width:
        yield f"# The first row may be a record, not a header: if so, name the {sample.width} columns."
        yield "# names = [" + ", ".join(['"…"'] * min(sample.width, 20)) + "]"
    if not options.missing:
        yield '# missing = ["…"]  # codes that mean "no value" in every column'
    faulty = {fault.column for fault in faults}
    for name, guess in guesses.items():
        body = list(_column_lines(guess, show_values))
        if not body and not (name in faulty and not sample.names):
            continue
        yield ""
        yield f"[columns.{_key(name)}]"
        if body:
            yield from body
        else:
            yield '# from = "…"  # what the export calls it'


def _column_lines(guess: _Guess, show_values: bool) -> Iterator[str]:
    for note in guess.notes:
        yield from textwrap.wrap(f"{note}.", 110, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
    column = guess.column
    if column.source is not None:
        yield f"from = {_toml(column.source)}"
    if column.missing:
        yield f"missing = {_toml(column.missing)}"
    if column.values:
        yield "values = { " + ", ".join(f"{_quoted(a)} = {_quoted(b)}" for a, b in column.values.items()) + " }"
    if guess.values and show_values:
        listed = ", ".join(f'{_quoted(value)} = "…"' for value in guess.values[:MOST_LISTED])
        yield f"# values = {{ {listed}{', …' if len(guess.values) > MOST_LISTED else ''} }}"
    elif any("'values'" in note for note in guess.notes):
        yield '# values = { "…" = "…" }  # --show-values lists them on the terminal'
    elif guess.values:
        yield '# missing = ["…"]  # --show-values lists them on the terminal'
    if column.date_format is not None:
        yield f"date_format = {_toml(column.date_format)}"
    if column.age_at is not None:
        yield f"age_at = {_toml(column.age_at)}"
    if column.age_in != "years":
        yield f"age_in = {_toml(column.age_in)}"
    for key, default in (("decimal", None), ("thousands", None), ("factor", 1.0), ("offset", 0.0), ("round", None)):
        if getattr(column, key) != default:
            yield f"{key} = {_toml(getattr(column, key))}"
    if column.factor != 1 and column.round is None:
        yield "# round = 0"


def _toml(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_quoted(item) for item in value) + "]"
    if isinstance(value, datetime.date):
        return value.isoformat()
    return repr(value)


def _quoted(text: str) -> str:
    """A TOML text: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)
