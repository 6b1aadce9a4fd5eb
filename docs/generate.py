"""The reference pages, written from the code, and the check that documentation and code agree.

python docs/generate.py            writes docs/reference/{cli,methods,encoders}.md        (make docs)
python docs/generate.py --check    changes nothing; names what is stale, undocumented or a dead link (make lint)
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from fusionlearn import encoder, method
from fusionlearn.cli import main as cli

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
MADE = "<!-- Written by `make docs` from the code. Change the docstring or the option's help text, not this page. -->\n"
NARROW: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100}  # columns of a help text
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)


def pages() -> dict[Path, str]:
    """Path → text of every generated page."""
    return {
        REFERENCE / "cli.md": cli_page(cli),
        REFERENCE / "methods.md": plugin_page("Methods", METHODS_INTRODUCTION, method.METHODS, method, METHOD_FACTS),
        REFERENCE / "encoders.md": plugin_page("Encoders", ENCODERS_INTRODUCTION, encoder.ENCODERS, encoder, ()),
    }


# --- the command line -----------------------------------------------------------------------------------------------


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command that is not hidden, with the context that names it, depth first."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from commands(below, named(below, name, context))


def named(command: click.Command, name: str, above: click.Context | None = None) -> click.Context:
    """The context a command's help is written in, of one width on every terminal."""
    return click.Context(command, above, name, **{**command.context_settings, **NARROW})


def cli_page(group: click.Command) -> str:
    """`--help` of every command."""
    parts = ["# Commands\n", MADE, "Every command exits with 0 on success only.\n"]
    for command, context in commands(group, named(group, "fusionlearn")):
        parts += [f"## {context.command_path}\n", f"```text\n{command.get_help(context).strip()}\n```\n"]
    return "\n".join(parts)


def undocumented(group: click.Command) -> Iterator[str]:
    """Commands without a text and options without a help line."""
    for command, context in commands(group, named(group, "fusionlearn")):
        if not (command.help or "").strip():
            yield f"`{context.command_path}` has no help text: give its function a docstring."
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden and not option.help:
                yield f"`{context.command_path}` {option.opts[0]} has no help text."


# --- methods and encoders -------------------------------------------------------------------------------------------

METHODS_INTRODUCTION = """\
A method is what a client computes, how updates fuse and how the model predicts. **additive**: updates may be summed
before fusing, which is what totals, streaming and exact removal stand on. **exact**: the fused model is the one of the
pooled rows, however they are split. Both are said of the default settings. Packages add methods under the entry point
`fusionlearn.methods`.
"""
ENCODERS_INTRODUCTION = """\
An encoder turns clean columns into features; it is the same public function on every client, and it declares the bound
of every feature before any data is seen. Packages add encoders under the entry point `fusionlearn.encoders`.
"""
METHOD_FACTS = ("additive", "exact")


def plugin_page(title: str, introduction: str, table: Mapping[str, str], registry: Any, facts: tuple[str, ...]) -> str:
    """An overview, then the module's docstring and the settings of each name."""
    heads = ["name", "what it is", *facts]
    rows = [heads, ["---"] * len(heads)]
    sections: list[str] = []
    for name, place in sorted(table.items()):
        module = importlib.import_module(place.partition(":")[0])
        text = inspect.getdoc(module) or ""
        made = registry.make(name)
        says = ["yes" if getattr(made, fact) else "no" for fact in facts]
        rows.append([f"[`{name}`](#{name})", text.partition("\n")[0].rstrip("."), *says])
        sections += [f"## {name}\n", f"```text\n{text}\n```\n", settings(type(made)), ""]
    overview = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([f"# {title}\n", MADE, introduction, overview, "", *sections]).rstrip() + "\n"


def settings(found: type) -> str:
    """The fields of a plug-in as a table; the meaning of a field is the comment behind it."""
    fields = [item for item in dataclasses.fields(found) if item.init]
    if not fields:
        return "It has no settings."
    meaning = comments(found)
    rows = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for item in fields:
        default = "required" if item.default is dataclasses.MISSING else f"`{item.default!r}`"
        cells = (f"`{item.name}`", f"`{item.type}`", default, meaning.get(item.name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def comments(found: type) -> dict[str, str]:
    """Field → the comment that ends its line, with the comment lines directly below it."""
    lines = inspect.getsource(found).splitlines()
    body = ast.parse("\n".join(lines)).body[0]
    assert isinstance(body, ast.ClassDef)
    said: dict[str, str] = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
            # end_col_offset counts UTF-8 bytes
            parts = [lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip()]
            for line in lines[node.end_lineno :]:
                if not line.strip().startswith("#"):
                    break
                parts.append(line.strip())
            said[node.target.id] = " ".join(part.lstrip("# ") for part in parts).strip()
    return said


def unexplained() -> Iterator[str]:
    """Methods and encoders without a docstring, and settings without a comment."""
    for table, registry in ((method.METHODS, method), (encoder.ENCODERS, encoder)):
        for name, place in table.items():
            module = place.partition(":")[0]
            if not (importlib.import_module(module).__doc__ or "").strip():
                yield f"{module} has no docstring; it is the page of '{name}'."
            found = type(registry.make(name))
            said = comments(found)
            for item in dataclasses.fields(found):
                if item.init and not said.get(item.name):
                    yield f"{module}: setting '{item.name}' needs a comment behind it with its meaning and unit."


# --- the check ------------------------------------------------------------------------------------------------------


def stale() -> Iterator[str]:
    """Generated pages that differ from what the code says now."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{path.relative_to(ROOT)} is not what the code says: run `make docs`."


def texts(root: Path) -> list[Path]:
    """Every Markdown page that a reader may come across."""
    folders = [root / name for name in ("docs", "spec", "examples", "benchmarks", "tests")]
    return sorted([*root.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


def dead_links(root: Path) -> Iterator[str]:
    """Links between pages that lead nowhere, anchors included."""
    for path in texts(root):
        content = FENCE.sub("", path.read_text(encoding="utf-8"))
        content = re.sub(r"`[^`\n]*`", "", content)
        for target in re.findall(r"\]\(([^)\s]+)\)", content):
            if re.match(r"[a-z]+:", target):
                continue
            place, _, anchor = target.partition("#")
            goal = (path.parent / place).resolve() if place else path
            if not goal.exists():
                yield f"{path.relative_to(root)}: the link to {target} leads nowhere."
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal):
                yield f"{path.relative_to(root)}: {place or 'the page'} has no heading #{anchor}."


def anchors(path: Path) -> set[str]:
    """The anchors that headings get: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+\s+(.+?)\s*$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-") for heading in headings}


def faults() -> list[str]:
    """Everything in which documentation and code have parted."""
    return [*undocumented(cli), *unexplained(), *stale(), *dead_links(ROOT)]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        found = faults()
        print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
        return 1 if found else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
