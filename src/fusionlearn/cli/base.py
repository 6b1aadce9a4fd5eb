"""What every command shares: options, keys, reading files with trust, progress, results and errors.

Every command has `--help` and `--json`, exits with 0 only on success, and says what is wrong in one sentence: never
a traceback, never a cell's value.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from fusionlearn import __version__, file, keys
from fusionlearn.errors import DataError, FileError, FusionlearnError, UpdateError
from fusionlearn.run import Answer
from fusionlearn.types import Model, Noun, Task, Total, Update

MEMBERS_ROOM = 2**26  # bytes a total's list of members may add to its arrays
SLOW = 1.0  # seconds after which a progress bar appears
PREDICT_ROWS = 16_384  # rows predicted at a time

F = TypeVar("F", bound=Callable[..., Any])


# --- what every command shares --------------------------------------------------------------------------------------


class Commands(click.Group):
    """The group of commands; the one place where errors become sentences and exit codes."""

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command; exits with 0 on success, 1 when it is refused, 2 for a wrong command line, 130 on Ctrl-C."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        extra["standalone_mode"] = False
        try:
            result = super().main(given, prog_name or "fusionlearn", *rest, **extra)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f" See `{context.command_path} --help`." if context is not None else ""
            _fail(error.format_message() + hint, "Usage", 2, as_json)
        except (click.Abort, KeyboardInterrupt) as error:
            _fail(str(error) or "interrupted: nothing was written.", "Interrupted", 130, as_json)
        except FusionlearnError as error:
            _fail(str(error), type(error).__name__, 1, as_json)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except MemoryError:
            _fail("not enough memory: nothing was written.", "MemoryError", 1, as_json)
        except Exception as error:  # noqa: BLE001 - a bug of ours: its message might quote a cell, so only its place is told
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            _fail(f"internal error ({type(error).__name__} at {place}); nothing was written.", "Internal", 70, as_json)
        sys.exit(result if isinstance(result, int) else 0)


def _fail(sentence: str, kind: str, code: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"ok": False, "error": sentence, "kind": kind}, ensure_ascii=False))
    click.echo(f"Error: {sentence}", err=True)
    sys.exit(code)


def say(text: str = "") -> None:
    """To people, on stderr, so that stdout holds results only."""
    click.echo(text, err=True)


def show_result(as_json: bool, value: dict[str, Any], lines: Iterable[str]) -> None:
    """A command's result: one JSON object for machines, or lines for people."""
    if as_json:
        click.echo(json.dumps({"ok": True, **value}, ensure_ascii=False, allow_nan=False))
    else:
        for line in lines:
            click.echo(line)


class Bar:
    """A progress bar that appears only when the work takes longer than a second and somebody watches."""

    def __init__(self, what: str, total: float | None) -> None:
        self.what, self.total, self.done = what, total, 0.0
        self.bar: Any = None
        self.lock = threading.Lock()
        self.timer = threading.Timer(SLOW, self._show)
        if sys.stderr.isatty():
            self.timer.daemon = True
            self.timer.start()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with self.lock:
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.add_task(self.what, total=self.total, completed=self.done)
            self.bar.start()

    def to(self, done: float) -> None:
        """So much is done, in units of `total`."""
        self.done = done
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done)

    def say(self, what: str) -> None:
        """Another step of the work begins."""
        self.what = what
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description=what)

    def step(self) -> None:
        """One more unit is done."""
        self.to(self.done + 1)

    def close(self) -> None:
        """Take the bar away."""
        self.timer.cancel()
        with self.lock:
            if self.bar is not None:
                self.bar.stop()


@contextlib.contextmanager
def progress(what: str, total: float | None) -> Iterator[Bar]:
    bar = Bar(what, total)
    try:
        yield bar
    finally:
        bar.close()


def path_type(**options: Any) -> Any:
    return click.Path(path_type=Path, **options)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object for machines.")(function)


def key_options(function: F) -> F:
    unsigned = click.option("--unsigned", is_flag=True, help="Do not sign the file that is written.")
    key = click.option(
        "--key", type=path_type(), envvar="FUSIONLEARN_KEY", help="Private key to sign with [default: this user's own]."
    )
    return key(unsigned(function))


def trust_options(function: F) -> F:
    allow = click.option("--allow-unsigned", is_flag=True, help="Accept files nobody signed.")
    return allow(function)


def map_options(function: F) -> F:
    show = click.option("--show-values", is_flag=True, help="Show faulty cells, on this terminal only.")
    mapping = click.option("--map", "map_path", type=path_type(), help="How this site's export is written (site.toml).")
    return mapping(show(function))


def own_key(path: Path | None) -> Any:
    """The key to sign with; this user's own is made at its first use."""
    if path is not None:
        return keys.load(path)
    own = keys.home() / "key.pem"
    if not own.exists():
        keys.save(keys.generate(), own)
        say(f"Made your key pair {own} ({keys.fingerprint(keys.public_hex(keys.load(own)))}). Keep the file private.")
    return keys.load(own)


def signed(noun: Any, key: Path | None, unsigned: bool) -> Any:
    return noun if unsigned else file.sign(noun, own_key(key))


def read_task(path: Path, allow_unsigned: bool) -> Task:
    """A task file, its signature checked, its signer believed at first contact and held to ever after."""
    task = file.read(path, Task)
    if not task.signer:
        if not allow_unsigned:
            raise FileError(f"{path} is not signed: ask the coordinator for a signed one, or pass --allow-unsigned.")
        return task
    if keys.trust(task.name, task.signer) and not is_own(task.signer):
        say(
            f"First contact with '{task.name}': signed by {keys.fingerprint(task.signer)}. "
            f"Compare these digits with the coordinator's by telephone."
        )
    return task


def is_own(signer: str) -> bool:
    """Whether this user's own key signed: nobody telephones themselves."""
    own = keys.home() / "key.pem.pub"
    return own.is_file() and own.read_text(encoding="utf-8", errors="replace").strip() == signer


def read_model(path: Path, allow_unsigned: bool) -> Model:
    model = file.read(path, Model)
    if not model.signer:
        if not allow_unsigned:
            raise FileError(f"{path} is not signed: ask the coordinator for a signed one, or pass --allow-unsigned.")
    elif keys.trust(model.name, model.signer) and not is_own(model.signer):
        say(f"First contact with '{model.name}': signed by {keys.fingerprint(model.signer)}.")
    return model


class Answers:
    """Update and total files, read one at a time, as often as asked."""

    def __init__(self, task: Task, paths: Iterable[Path]) -> None:
        self.task, self.paths = task, list(paths)
        self.names: dict[str, str] = {}
        self.step: Callable[[], None] = lambda: None  # called after each file, for a progress bar

    def __iter__(self) -> Iterator[Answer]:
        for path in self.paths:
            answer: Noun = file.read(path, max_bytes=self.task.max_bytes + MEMBERS_ROOM)
            if not isinstance(answer, Update | Total):
                raise UpdateError(f"{path} is a {type(answer).__name__.lower()}; updates and totals can be fused.")
            if isinstance(answer, Update) and path.stat().st_size > self.task.max_bytes:
                raise UpdateError(f"{path} is larger than the {self.task.max_bytes} bytes the task allows.")
            self.names[file.digest(answer)] = path.name
            yield answer
            self.step()


@contextlib.contextmanager
def naming(answers: Answers) -> Iterator[None]:
    """Errors name an update by its digest; people know it by its file's name."""
    try:
        yield
    except UpdateError as error:
        text = str(error)
        for name, path in answers.names.items():
            text = text.replace(f"update {name[:12]}…", f"{path} ({name[:12]}…)", 1)
            text = text.replace(f"total {name[:12]}…", f"{path} ({name[:12]}…)", 1)
        raise UpdateError(text) from error


def load_map(path: Path | None) -> Any:
    from fusionlearn import site

    return site.SiteMap.load(path) if path else site.SiteMap()


def open_source(path: Path, schema: Any, map_path: Path | None, *, with_label: bool = True) -> Any:
    from fusionlearn import site

    return site.open_source(path, schema, load_map(map_path), with_label=with_label)


def tell_ignored(source: Any) -> None:
    if source.ignored:
        shown = ", ".join(source.ignored[:8]) + (", …" if len(source.ignored) > 8 else "")
        say(f"Ignored {len(source.ignored)} undeclared column{'s' * (len(source.ignored) > 1)}, never loaded: {shown}.")


def watched(source: Any, rows: int, what: str) -> Iterator[Any]:
    """Pieces of a table, with a progress bar by the share of the file that was read."""
    with progress(what, 1.0) as bar:
        for piece in source.pieces(rows):
            yield piece
            bar.to(source.fraction)


def kept_rows(pieces: Iterable[Any], fraction: float, *, held: bool) -> Iterator[Any]:
    """Of each piece the rows that are held back, or the others."""
    from fusionlearn import site

    first = 1
    for piece in pieces:
        count = max((len(cells) for cells in piece.values()), default=0)
        chosen = site.hold_out_mask(first, count, fraction) == held
        first += count
        yield {name: cells[chosen] for name, cells in piece.items()}


@contextlib.contextmanager
def showing(show_values: bool, source: Any, schema: Any, held_out: float = 0.0) -> Iterator[None]:
    """With --show-values and a person at the terminal, the faulty cells go to that terminal, nowhere else.

    Where rows are held out, those left have other numbers than in the file: the faults are looked for again.
    """
    from fusionlearn import site

    try:
        yield
    except DataError as error:
        if held_out:
            faults, _ = site.faults(source, schema)
            error = DataError(source.place, faults) if faults else error
        if show_values:
            show_cells(source, error.faults)
        raise error from None


def watched_by_a_person() -> bool:
    """Whether stderr is a terminal: not a file, a log or another program."""
    return sys.stderr.isatty()


def show_cells(source: Any, faults: Iterable[Any]) -> None:
    if not watched_by_a_person():
        say("Values are shown on a terminal only: run the command there.")
        return
    with contextlib.suppress(DataError):  # where a file breaks off, the cells above have been shown
        for row, column, cell in source.cells({(row, fault.column) for fault in faults for row in fault.rows}):
            say(f"  row {row}, {column}: {cell!r}")


def sized(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fusionlearn")
def main() -> None:
    """One-shot federated learning: each client sends one file, once; the server fuses them into one model.

    A task goes out; each client summarizes its data into one update; the server fuses the updates into one model.
    Start with `fusionlearn demo`.
    """
