"""What the documentation shows is what happens: runs the snippets of a page and compares what they print.

    python docs/snippets.py PAGE...             runs the pages and shows where they and reality part
    python docs/snippets.py --update PAGE...    also writes the real output into the blocks that part

On a page, from top to bottom, in one empty folder that also holds a copy of examples/:

    ```console              lines `$ command` (ending in \\ to go on); the lines below are what it prints
    ```console exit=1       the same; the last command is refused with this exit status
    ```python               is run, in one interpreter for the page; a ```text block right behind is what it prints
    ```toml title="a.toml"  any language: the block is first written to this file
    <!-- not run: reason -->  above a block: it is only read

`make demo` runs as `fusionlearn demo`; `make test` is not run. Any duration equals any other, and so do digests, keys,
runs of blanks and box lines; … matches anything within a line, and on a line of its own any number of lines.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^\n]+? -->\n+)?^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
MASKS = (
    (re.compile(r"\d+(\.\d+)? ?(ms|s|seconds|min)\b"), "⟨duration⟩"),
    (re.compile(r"\b[0-9a-f]{4}( [0-9a-f]{4}){3}\b"), "⟨key⟩"),
    (re.compile(r"\b((?=[0-9a-f]*\d)[0-9a-f]{8,64}\b|[0-9a-f]{4,63}…)"), "⟨digest⟩"),
    (re.compile(r"[─━═╌]{2,}"), "──"),
    (re.compile(r"[ \t]+"), " "),
)
SHELL_LIMIT = 300  # seconds one command may take
DRIVER = """\
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            exec(compile(json.loads(line), "<page>", "exec"), names)
        except BaseException:
            traceback.print_exc()
    print(json.dumps(told.getvalue()), flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block and where it lies in the page."""

    language: str
    info: str
    body: str
    fence: int  # where the block opens, in characters
    start: int  # of the body
    end: int
    skipped: bool


@dataclass(frozen=True)
class Difference:
    """An output block that says something else than what was printed."""

    command: str
    shown: str
    printed: str
    start: int  # of the shown text in the page, in characters
    end: int

    def __str__(self) -> str:
        lines = difflib.unified_diff(self.shown.splitlines(), self.printed.splitlines(), "page", "reality", lineterm="")
        return "\n".join([self.command, *lines])


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page that name a language, in order."""
    return [
        Block(
            language=found["language"],
            info=found["info"],
            body=found["body"],
            fence=found.start("language") - 3,
            start=found.start("body"),
            end=found.end("body"),
            skipped=bool(found["skip"]),
        )
        for found in BLOCK.finditer(page)
    ]


def commands(block: Block) -> Iterator[tuple[str, str, int, int]]:
    """Command, shown output, and where the output lies in the page, for each command of a console block."""
    command, start, position = "", block.start, block.start
    for line in block.body.splitlines(keepends=True):
        if command.endswith("\\\n"):
            command, start = command + line, position + len(line)
        elif line.startswith("$ "):
            if command:
                yield command.strip(), block.body[start - block.start : position - block.start], start, position
            command, start = line[2:], position + len(line)
        elif not command:
            raise ValueError(f"a console block starts with a command, not with {line.strip()!r}.")
        position += len(line)
    if command:
        yield command.strip(), block.body[start - block.start :], start, block.end


def same(shown: str, printed: str) -> bool:
    """Whether a shown output is what was printed, up to what depends on the machine and what the page leaves out."""
    pattern = ""
    for line in _masked(shown).splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".+?".join(re.escape(part) for part in line.split("…")) + r"\n"
    return re.fullmatch(pattern, _masked(printed)) is not None


def _masked(text: str) -> str:
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    for mask, instead in MASKS:
        lines = [mask.sub(instead, line) for line in lines]
    return "".join(f"{line.rstrip()}\n" for line in lines)


class Reader:
    """Somebody who types everything a page shows, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.state, self.exported = folder / "cwd", folder / "exported"
        self.exported.touch()
        if (ROOT / "examples").is_dir():
            shutil.copytree(
                ROOT / "examples", self.folder / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*")
            )
        self.folder.mkdir(exist_ok=True)
        self.state.write_text(str(self.folder), encoding="utf-8")
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "FUSIONLEARN_HOME": str(folder / "home"),
            "COLUMNS": "100",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "PYTHONUTF8": "1",
        }
        self.python: subprocess.Popen[str] | None = None

    def type(self, command: str) -> tuple[str, int]:
        """What a shell command prints, and its exit status; `cd` and `export` hold for those after it."""
        command = "fusionlearn demo" if command == "make demo" else command
        place, exported = shlex.quote(str(self.state)), shlex.quote(str(self.exported))
        script = (
            f'. {exported}; cd "$(cat {place})" && {{ {command}\n}}; '
            f"status=$?; pwd >{place}; export -p >{exported}; exit $status"
        )
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=SHELL_LIMIT,
            check=False,
        )
        return done.stdout, done.returncode

    def run(self, code: str) -> str:
        """What a piece of Python prints; names stay for the pieces after it."""
        if self.python is None:
            self.python = subprocess.Popen(
                [sys.executable, "-c", DRIVER],
                env=self.environment,
                cwd=self.state.read_text(encoding="utf-8").strip(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
        assert self.python.stdin is not None
        assert self.python.stdout is not None
        self.python.stdin.write(json.dumps(code) + "\n")
        self.python.stdin.flush()
        return str(json.loads(self.python.stdout.readline()))

    def close(self) -> None:
        if self.python is not None:
            self.python.communicate()


def differences(page: str) -> list[Difference]:
    """Runs a whole page; where it and reality part."""
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder))
        try:
            return list(_read(page, reader))
        finally:
            reader.close()


def _read(page: str, reader: Reader) -> Iterator[Difference]:
    found = blocks(page)
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.skipped:
            continue
        title = re.search(r'title="([^"]+)"', block.info)
        if title:
            path = reader.folder / title[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
        if block.language == "console":
            yield from _console(block, reader)
        elif block.language == "python":
            printed = reader.run(block.body)
            shows = after is not None and after.language == "text" and not page[block.end + 3 : after.fence].strip()
            if after is not None and shows:
                if not same(after.body, printed):
                    yield Difference(block.body, after.body, printed, after.start, after.end)
            elif printed:
                # nowhere to write it: the page needs a text block
                yield Difference(block.body, "", printed, -1, -1)


def _console(block: Block, reader: Reader) -> Iterator[Difference]:
    listed = list(commands(block))
    expected = re.search(r"\bexit=(\d+)", block.info)
    for number, (command, shown, start, end) in enumerate(listed, start=1):
        if command == "make test":
            continue
        printed, status = reader.type(command)
        wanted = int(expected[1]) if expected and number == len(listed) else 0
        if status != wanted:
            yield Difference(f"$ {command}", shown, f"{printed}(exit status {status}, not {wanted})\n", -1, -1)
        elif not same(shown, printed):
            yield Difference(f"$ {command}", shown, printed, start, end)


def updated(page: str, parted: list[Difference]) -> str:
    """The page with what was really printed."""
    for difference in sorted(parted, key=lambda difference: difference.start, reverse=True):
        if difference.start >= 0:
            printed = "".join(f"{line.rstrip()}\n" for line in difference.printed.strip("\n").splitlines())
            page = page[: difference.start] + printed + page[difference.end :]
    return page


def main(arguments: list[str]) -> int:
    update = arguments[:1] == ["--update"]
    parted = 0
    for name in arguments[update:]:
        path = Path(name)
        page = path.read_text(encoding="utf-8")
        found = differences(page)
        parted += len(found)
        for difference in found:
            print(f"{path}: {difference}\n")
        if update and found:
            path.write_text(updated(page, found), encoding="utf-8")
    return 1 if parted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
