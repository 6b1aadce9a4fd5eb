"""Every error fusionlearn raises on purpose.

::

    FusionlearnError
    ├── SettingsError      a task, a method, an encoder or a site map is set in a way that cannot work
    ├── DataError          a client's records do not fit the task (all faults at once, never a value)
    ├── FileError          bytes that are not a valid file of ours: truncated, altered, hostile
    │   └── SignatureError the signature is wrong, missing, or by a key that is not trusted
    ├── UpdateError        a valid update or total that does not belong in this fusion
    ├── PrivacyError       a guarantee that is not available, or a page the client did not agree to
    ├── DatasetError       a public data set that cannot be found or does not match its recorded hash
    ├── HubError           a hub that cannot be reached, or that refused
    └── MissingExtra       an optional library is not installed

A message is one sentence or two: the place, what was expected, what came, the next step. About a client's
records "what came" is the row number and the kind of fault, never a value: messages end up in logs and e-mails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class FusionlearnError(Exception):
    """The base class: catch this one to catch everything the library refuses."""


class SettingsError(FusionlearnError):
    """A setting that cannot work; raised when the task is made, not when it is run."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault in one column: where and what, never the value itself."""

    column: str  # the task's name of the column; "" when the fault is of the whole table
    kind: str  # one clause: "text where a number is expected"
    rows: tuple[int, ...] = ()  # the first rows it was seen in, counted from 1, header not counted
    count: int = 0  # number of rows it was seen in; 0 when it is not about rows
    hint: str = ""  # the next step

    def __str__(self) -> str:
        place = f"column '{self.column}': " if self.column else ""
        where = ""
        if self.count:
            shown = ", ".join(str(row) for row in self.rows)
            more = ", …" if self.count > len(self.rows) else ""
            where = f" in {self.count} row{'s' if self.count > 1 else ''} ({shown}{more})"
        return f"{place}{self.kind}{where}" + (f"; {self.hint}" if self.hint else "")


class DataError(FusionlearnError):
    """A client's records do not fit the task; `faults` lists everything found, not only the first."""

    def __init__(self, place: str, faults: Sequence[Fault]) -> None:
        self.place = place
        self.faults = tuple(faults)
        more = f" (and {len(faults) - 1} more: run `fusionlearn check`)" if len(faults) > 1 else ""
        super().__init__(f"{place}: {self.faults[0]}{more}")

    def __reduce__(self) -> tuple[object, ...]:
        """Worker processes tell what they refuse: an exception is made again from its parts, not from its message."""
        return DataError, (self.place, self.faults)


class FileError(FusionlearnError):
    """Bytes that are not a valid file of ours."""


class SignatureError(FileError):
    """A signature that is wrong, missing, or by a key nobody vouched for."""


class UpdateError(FusionlearnError):
    """A valid file that does not belong in this fusion."""


class PrivacyError(FusionlearnError):
    """A privacy mode that is not available, or a leakage page that was not agreed to."""


class DatasetError(FusionlearnError):
    """A public data set that is neither here nor downloadable, or not what its hash says."""


class HubError(FusionlearnError):
    """A hub that cannot be reached, or that refused: then `status` is HTTP's and `kind` the hub's class of error."""

    def __init__(self, sentence: str, status: int = 0, kind: str = "") -> None:
        super().__init__(sentence)
        self.status, self.kind = status, kind


class MissingExtra(FusionlearnError):
    """An optional library is needed: the message is the command that installs it."""

    def __init__(self, who: str, library: str, extra: str) -> None:
        self.parts = (who, library, extra)
        super().__init__(f'{who} needs {library}: pip install "fusionlearn[{extra}]"')

    def __reduce__(self) -> tuple[object, ...]:
        """As DataError's."""
        return MissingExtra, self.parts
