"""The docs check (`make lint` runs it too) and that it can fail."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

import generate


def test_documentation_and_code_agree() -> None:
    assert generate.faults() == []


def test_every_command_method_and_encoder_has_its_place() -> None:
    pages = {path.name: text for path, text in generate.pages().items()}
    for name in generate.cli.list_commands(generate.named(generate.cli, "fusionlearn")):
        assert f"\n## fusionlearn {name}\n" in pages["cli.md"]
    for name in generate.method.METHODS:
        assert f"\n## {name}\n" in pages["methods.md"]
    for name in generate.encoder.ENCODERS:
        assert f"\n## {name}\n" in pages["encoders.md"]


def test_a_stale_or_missing_page_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "pages", lambda: {tmp_path / "a.md": "new\n", tmp_path / "b.md": "same\n"})
    (tmp_path / "a.md").write_text("old\n")
    (tmp_path / "b.md").write_text("same\n")
    assert list(generate.stale()) == ["a.md is not what the code says: run `make docs`."]
    (tmp_path / "b.md").unlink()
    assert len(list(generate.stale())) == 2


def test_a_command_without_words_is_named() -> None:
    @click.group(help="A group.")
    def group() -> None: ...

    @group.command()
    @click.option("--silent", is_flag=True)
    def fuse(silent: bool) -> None: ...

    assert list(generate.undocumented(group)) == [
        "`fusionlearn fuse` has no help text: give its function a docstring.",
        "`fusionlearn fuse` --silent has no help text.",
    ]


def test_a_setting_without_words_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "comments", lambda _: {})
    told = list(generate.unexplained())
    assert any("fusionlearn.encoders.random_features: setting 'seed'" in fault for fault in told)


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "there.md").write_text("# It's *here*\n\n```text\n# not a heading\n[no](link.md)\n```\n")
    (tmp_path / "README.md").write_text(
        "[a](docs/there.md) [b](docs/there.md#its-here) [c](https://example.org/x) `[d](gone.md)`\n"
        "[e](docs/gone.md) [f](docs/there.md#not-a-heading) [g](#nowhere)\n"
    )
    assert list(generate.dead_links(tmp_path)) == [
        "README.md: the link to docs/gone.md leads nowhere.",
        "README.md: docs/there.md has no heading #not-a-heading.",
        "README.md: the page has no heading #nowhere.",
    ]
