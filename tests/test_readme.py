"""README, docs and examples show what happens: every snippet is run, every shown output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import snippets

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted(
    path
    for path in [README, *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    if path.exists() and re.search(r"^```(console|python)", path.read_text(encoding="utf-8"), re.MULTILINE)
)


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_page_and_reality_agree(path: Path) -> None:
    parted = snippets.differences(path.read_text(encoding="utf-8"))
    if any("cannot download" in difference.printed for difference in parted) and "FUSIONLEARN_DATA" not in os.environ:
        pytest.skip("a data set of this page is neither in FUSIONLEARN_DATA nor to be downloaded from here")
    told = "\n\n".join(str(difference) for difference in parted)
    assert not parted, f"{path.name} (python docs/snippets.py --update {path.relative_to(ROOT)}):\n{told}"


def shown(command: str) -> str:
    """The output the README shows below a command."""
    listed = [
        output
        for block in snippets.blocks(README.read_text(encoding="utf-8"))
        if block.language == "console"
        for name, output, _, _ in snippets.commands(block)
        if name == command
    ]
    assert len(listed) == 1, f"the README shows `$ {command}` {len(listed)} times"
    return listed[0]


def test_first_screen_shows_both_commands_and_both_ways_to_use_it() -> None:
    page = README.read_text(encoding="utf-8")
    assert shown("make demo").strip()
    assert re.search(r"^```python\n.+?^```\s+```text\n", page, re.MULTILINE | re.DOTALL), (
        "no Python example with output"
    )
    by_files = {
        verb
        for block in snippets.blocks(page)
        if block.language == "console"
        for name, *_ in snippets.commands(block)
        for verb in re.findall(r"\bfusionlearn (\w+)", name)
    }
    assert by_files >= {"summarize", "fuse"}, "no example by files"


def test_make_test_block_has_the_form_and_nearly_the_number(request: pytest.FixtureRequest) -> None:
    last = shown("make test").strip().splitlines()[-1]
    form = re.fullmatch(r"(\d+) passed(?:, (\d+) skipped)? in [\d.]+s(?: \(\d+:\d\d:\d\d\))?", last)
    assert form, f"the README ends `make test` with {last!r}, pytest ends it with 'N passed in S s'"
    says = int(form[1]) + int(form[2] or 0)
    collected = len(request.session.items)
    if collected < says:  # a run of some files only
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
        counts = re.findall(r"^tests/\S+: (\d+)$", listed, re.MULTILINE)  # as -q twice prints it: once from pyproject
        collected = sum(map(int, counts)) or len(re.findall(r"^tests/.+::", listed, re.MULTILINE))
    assert 0.9 * collected <= says <= collected, f"the README says {says} tests, there are {collected}"


# --- the machinery itself -------------------------------------------------------------------------------------------

PAGE = """\
# A page

```toml title="kept/a.toml"
x = 1
```

```console
$ cat kept/a.toml
x = 1
$ cd kept
$ ls \\
    -1
a.toml
$ echo "took 3.1 s, digest 0123456789abcdef, gone"
took 2.0 s, digest fedcba9876543210, gone
```

```console exit=3
$ echo refused; exit 3
refused
```

```python
x = 20
```

```python
print(x + 1)
print("then 12.5 rows")
print("more")
```

```text
21
then … rows
…
```

<!-- not run: it never ends -->

```console
$ sleep 1000
```
"""


def test_a_true_page_passes() -> None:
    assert snippets.differences(PAGE) == []


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("```console\n$ cat kept/a.toml\nx = 1", "```console\n$ cat kept/a.toml\nx = 2"),
        ("exit=3", ""),
        ("exit=3", "exit=0"),
        ("refused\n```", "refused\nonce\n```"),
        ("\n21\n", "\n22\n"),
        ("then …", "than …"),
        ("…\n```", "```"),
        ("print(x + 1)", "print(x + 2)"),
        ("x = 20", "x = 20; print(x)"),
        ("print(x + 1)", "raise SystemExit"),
        ("<!-- not run: it never ends -->", "<!-- skipped -->"),
    ],
)
def test_a_false_page_fails(true: str, false: str) -> None:
    assert true in PAGE
    parted = snippets.differences(PAGE.replace(true, false).replace("sleep 1000", "sleep 0.01; echo awake"))
    assert len(parted) == 1


def test_updating_writes_what_is_printed() -> None:
    false = PAGE.replace("$ cat kept/a.toml\nx = 1", "$ cat kept/a.toml\nx = 2").replace("\n21\n", "\n22\n")
    truth = snippets.updated(false, snippets.differences(false))
    assert snippets.differences(truth) == []
    assert "$ cat kept/a.toml\nx = 1\n$ cd kept" in truth
    assert "\n21\nthen 12.5 rows\nmore\n```" in truth


@pytest.mark.parametrize(
    ("text", "real", "equal"),
    [
        ("a 1.25 s", "a 17 s", True),
        ("a 12 rows", "a 13 rows", False),
        ("key 3f9c… ok", "key 81ab… ok", True),
        ("model 0123456789abcdef0123", "model ffff456789abcdef0123", True),
        ("seed 12345678", "seed 12345679", True),  # eight digits may be a digest
        ("seed 1234567", "seed 1234568", False),
        ("deadbeef", "feedfade", False),  # letters only: words
        ("┌────┐", "┌──────┐", True),
        ("a   b", "a b", True),
        ("a\nb", "a b", False),
        ("…", "", True),
        ("x\n…\ny", "x\n1\n2\ny", True),
        ("x\n…\ny", "x\n1\n2\nz", False),
        ("", "", True),
        ("", "x", False),
        ("x.y", "x-y", False),
    ],
)
def test_masks(text: str, real: str, equal: bool) -> None:
    assert snippets.same(text, real) is equal
