"""CSV and its kin, read in blocks: bounded memory, and fast where a block holds nothing but numbers.

A block is some text that ends with a line. Without quotes it can be cut at delimiters: where every line has
the right number of them and every wanted cell is a plain number, NumPy parses the block at once. Any other block goes
through the csv module, cell by cell, which also finds out what is wrong with it.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import DataError, Fault
from fusionlearn.problem import ROWS_SHOWN
from fusionlearn.site.cells import Cells
from fusionlearn.site.map import FileOptions
from fusionlearn.site.table import Batch, broken

BLOCK = 2**16  # bytes read at a time; the rows of a block as lists of cells still fit a processor's cache
HEADER_ROOM = 2**20  # characters within which the header must stand
LONGEST_LINE = 2**22  # characters; 65,536 columns of 60 characters
TRIES = 4  # blocks in a row that NumPy may fail on before it is no longer asked

MAGIC = (
    (b"PK\x03\x04", "is packed (an Excel workbook or a zip file), not text", "save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook, not text", "save it as CSV"),
    (b"PAR1", "is a Parquet file", "give it a name that ends in .parquet"),
    (b"\x1f\x8b", "is packed by gzip, not text", "unpack it first"),
    (b"BZh", "is packed by bzip2, not text", "unpack it first"),
    (b"\xfd7zXZ", "is packed by xz, not text", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is packed by Zstandard, not text", "unpack it first"),
    (b"%PDF", "is a PDF file, not a table", "export it as CSV"),
    (b"\x89PNG", "is a picture, not a table", "export it as CSV"),
    (b"\x93NUMPY", "is a single NumPy array (.npy)", "save the columns by name with numpy.savez"),
)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class _Block:
    """Whole lines of the file."""

    text: str
    last: bool = False
    kind: str = ""  # of what broke the file right behind the text, "" if nothing did
    hint: str = ""


class TextTable:
    """A delimited text file. Errors: DataError when it has no readable header."""

    def __init__(self, path: Path, options: FileOptions) -> None:
        self.path, self.options = path, options
        self.delimiter = options.delimiter or ("\t" if path.suffix.lower() in (".tsv", ".tab") else ",")
        self.fraction = 0.0
        self.takes_numbers = False
        self._refuse_foreign()
        header = next(self._after_header(), None)
        if header is None:
            what = "it has not even a header" if path.stat().st_size == 0 else "it holds blank lines only"
            raise broken(path, f"is empty: {what}", "export it again")
        self.names = options.names or tuple(name.strip() for name in header[0])

    def _refuse_foreign(self) -> None:
        with self.path.open("rb") as file:
            head = file.read(8)
        for magic, kind, hint in MAGIC:
            if head.startswith(magic):
                raise broken(self.path, kind, hint)
        if head.startswith(UTF16) and not self._wide:
            hint = f'declare encoding = "utf-16" in site.toml: it is read as {self.options.encoding}'
            raise broken(self.path, "is written in UTF-16", hint)

    @property
    def _wide(self) -> bool:
        """Whether the encoding is one of those with several bytes a character, which hold NUL bytes."""
        return "16" in self.options.encoding or "32" in self.options.encoding

    # --- blocks of text -------------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[_Block]:
        """The file from its first to its last readable line."""
        size = max(1, self.path.stat().st_size)
        rest, first = "", True
        decoder = codecs.getincrementaldecoder(self.options.encoding)("strict")
        with self.path.open("rb") as file:
            while True:
                data = file.read(BLOCK)
                text, kind, hint = self._decoded(decoder, data)
                self.fraction = min(1.0, file.tell() / size)
                if first:
                    text, first = text.removeprefix("\ufeff"), False
                if "\0" in text:
                    text, kind = text[: text.index("\0")], "holds a NUL byte, which text never has"
                    hint = "is it a binary file, or is its encoding UTF-16?"
                whole = rest + text
                if kind:  # in the line that is not whole yet
                    yield _Block(whole[: _last_line_end(whole)], False, kind, hint)
                    return
                if not data:
                    yield _Block(whole, last=True)
                    return
                cut = _last_line_end(whole)
                rest = whole[cut:]
                if len(rest) > LONGEST_LINE:
                    kind = f"a line is longer than {LONGEST_LINE} characters"
                    yield _Block(whole[:cut], False, kind, "is the file a table with one record a line?")
                    return
                if cut:
                    yield _Block(whole[:cut])

    def _decoded(self, decoder: codecs.IncrementalDecoder, data: bytes) -> tuple[str, str, str]:
        """Text up to the first byte that is none, what is wrong with that byte, and a hint."""
        try:
            return decoder.decode(data, final=not data), "", ""
        except UnicodeError as error:
            kind = f"holds a byte that is not {self.options.encoding}"
            hint = "declare the encoding it was exported in, such as cp1252, in site.toml"
            good = ""
            if isinstance(error, UnicodeDecodeError) and not self._wide:
                good = bytes(error.object[: error.start]).decode(self.options.encoding, "ignore")
            return good, kind, hint

    # --- records --------------------------------------------------------------------------------------------------

    def _csv(self, lines: Sequence[str]) -> Any:
        quote = self.options.quote
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            skipinitialspace=self.delimiter != " ",
            strict=True,
        )

    def _after_header(self) -> Iterator[tuple[list[str], _Block]]:
        """The first record, with each of the blocks below it."""
        header: list[str] | None = None
        above = ""  # text in which no header has been found yet
        for block in self._blocks():
            if header is None:
                text = above + block.text
                header, below = self._first_record(text)
                if header is None:
                    self._refuse_headless(text, block)
                    above = text
                    continue
                block = replace(block, text=below)
            yield header, block

    def _first_record(self, text: str) -> tuple[list[str] | None, str]:
        """The header and the text below it; None when the text does not hold a whole one."""
        lines = list(io.StringIO(text, newline=""))[self.options.skip_lines :]
        reader = self._csv(lines)
        try:
            header = next(filter(any, reader), None)
        except csv.Error:
            return None, ""
        return header, "".join(lines if self.options.names else lines[reader.line_num :])

    def _refuse_headless(self, text: str, block: _Block) -> None:
        """Refuse a file once it is clear that no header will come."""
        if block.kind:
            raise broken(self.path, block.kind, block.hint)
        if len(text) > HEADER_ROOM or (block.last and text.strip()):
            kind = f"has no header in its first {len(text)} characters, or one whose quotes do not match"
            hint = "the first line must be the names of the columns; see skip_lines in site.toml"
            raise broken(self.path, kind, hint)

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """All rows in order; see `Table`."""
        width = len(self.names)
        places = [self.names.index(name) for name in wanted]
        tries = TRIES if self.takes_numbers else 0
        number, pending = 1, ""
        for _, block in self._after_header():
            if tries and not pending and not block.kind and block.text:
                parsed = self._numbers(block.text, places, width)
                if parsed is not None:
                    tries = TRIES
                    columns: dict[str, Cells] = dict(zip(wanted, parsed, strict=True))
                    count = len(parsed[0])
                    yield Batch(columns, np.arange(number, number + count))
                    number += count
                    continue
                tries -= 1
            rows, faults, pending, stop = self._rows(pending + block.text, number, last=block.last)
            yield self._batch(rows, faults, number, wanted, places, width)
            number += len(rows)
            if stop is not None:
                raise DataError(str(self.path), [stop])
            if block.kind:
                raise broken(self.path, block.kind, block.hint, row=number)

    def _numbers(self, text: str, places: Sequence[int], width: int) -> list[NDArray[np.float64]] | None:
        """The wanted columns of a block of plain numbers; None when it holds anything else."""
        quote, decimal = self.options.quote, self.options.decimal
        if not text.strip() or not text.isascii() or (quote and quote in text):
            return None
        if not _even(text, self.delimiter, width):
            return None
        if decimal != ".":
            if "." in text or decimal == self.delimiter:
                return None
            text = text.replace(decimal, ".")
        try:
            table = np.loadtxt(
                io.StringIO(text, newline=""),
                dtype=np.float64,
                comments=None,
                delimiter=self.delimiter,
                usecols=places,
                ndmin=2,
            )
        except ValueError:
            return None
        return [np.ascontiguousarray(table[:, i]) for i in range(len(places))]

    def _rows(self, text: str, number: int, *, last: bool) -> tuple[list[list[str]], dict[int, str], str, Fault | None]:
        """Records of a block; kinds of fault by place; the text of a record that goes on in the next block; a fault
        after which nothing can be told apart."""
        lines = list(io.StringIO(text, newline=""))
        reader = self._csv(lines)
        records = filter(any, reader)
        rows: list[list[str]] = []
        faults: dict[int, str] = {}
        start = 0  # line at which the record being read began
        while True:
            try:
                for row in records:
                    rows.append(row)
                    start = reader.line_num
                return rows, faults, "", None
            except csv.Error as error:
                here = number + len(rows)
                if "limit" in str(error):
                    kind = f"a cell is longer than {csv.field_size_limit()} characters"
                    return rows, faults, "", Fault("", kind, (here,), 1, "is a quote opened and never closed?")
                if reader.line_num >= len(lines):
                    if not last:
                        return rows, faults, "".join(lines[start:]), None
                    if self._left_open(lines[start:]):
                        return rows, faults, "", _open_quote(here)
                faults[len(rows)] = "a quote inside a cell is not doubled"
                rows.append([])
                start = reader.line_num

    def _left_open(self, lines: Sequence[str]) -> bool:
        """Whether the last record needs more lines: one more quote would end it."""
        try:
            list(self._csv([*lines, self.options.quote]))
        except csv.Error:
            return False
        return True

    def _batch(
        self,
        rows: list[list[str]],
        odd: dict[int, str],
        number: int,
        wanted: Sequence[str],
        places: Sequence[int],
        width: int,
    ) -> Batch:
        """Rows of one width as columns; the others as faults."""
        if not odd and set(map(len, rows)) <= {width}:
            columns = {name: [row[place] for row in rows] for name, place in zip(wanted, places, strict=True)}
            return Batch(columns, np.arange(number, number + len(rows)))
        kinds: dict[str, list[int]] = {}
        kept: list[int] = []
        for i, row in enumerate(rows):
            if i in odd:
                kinds.setdefault(odd[i], []).append(number + i)
            elif len(row) < width or any(cell.strip() for cell in row[width:]):
                side = "fewer" if len(row) < width else "more"
                kinds.setdefault(f"has {side} cells than the header", []).append(number + i)
            else:
                kept.append(i)
        hint = "correct the line; is a cell with the delimiter in it not quoted?"
        faults = [Fault("", kind, tuple(at[:ROWS_SHOWN]), len(at), hint) for kind, at in kinds.items()]
        columns = {name: [rows[i][place] for i in kept] for name, place in zip(wanted, places, strict=True)}
        return Batch(columns, number + np.array(kept, dtype=np.int64), faults)


def _open_quote(row: int) -> Fault:
    return Fault("", "a quote is opened and never closed", (row,), 1, "close it or remove it")


def _last_line_end(text: str) -> int:
    """Where the last whole line ends, in characters; a final CR may be half of a line end, so it does not count."""
    return max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1


def _even(text: str, delimiter: str, width: int) -> bool:
    """Whether every line has as many delimiters as the header; for plain ASCII text without quotes."""
    data = np.frombuffer(text.encode("ascii"), np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    marks = np.flatnonzero(data == ord(delimiter))
    if not text.endswith("\n"):
        ends = np.append(ends, len(data))
    return len(marks) == len(ends) * (width - 1) and (
        width == 1 or bool((np.searchsorted(marks, ends) == np.arange(1, len(ends) + 1) * (width - 1)).all())
    )
