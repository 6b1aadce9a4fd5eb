"""Plug-ins by name: settings there and back, entry points, and what is refused."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar, Literal

import pytest

from fusionlearn import method, plugin
from fusionlearn.errors import SettingsError
from fusionlearn.method import Method
from fusionlearn.methods.ridge import Ridge


@dataclass(frozen=True)
class Sample(plugin.Plugin):
    name: ClassVar[str] = "sample"

    whole: int = 1
    real: float = 0.5
    flag: bool = False
    word: str = "a"
    choice: Literal["x", "y"] | float = "x"
    several: tuple[float, ...] = (1.0,)
    maybe: int | None = None


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        ({"whole": 3}, "whole", 3),
        ({"real": 3}, "real", 3.0),
        ({"flag": True}, "flag", True),
        ({"word": ""}, "word", ""),
        ({"choice": "y"}, "choice", "y"),
        ({"choice": 2}, "choice", 2.0),
        ({"several": [1, 2.5]}, "several", (1.0, 2.5)),
        ({"maybe": None}, "maybe", None),
        ({"maybe": 4}, "maybe", 4),
    ],
)
def test_settings_take_the_type_of_their_field(settings, field, value):
    made = plugin.make(Sample, settings)
    found = getattr(made, field)
    assert found == value
    assert type(found) is type(value)
    assert plugin.make(Sample, plugin.to_json(made)["settings"]) == made


@pytest.mark.parametrize(
    "settings",
    [
        {"whole": 1.5}, {"whole": True}, {"whole": "1"}, {"real": "1"}, {"real": True}, {"real": float("inf")},
        {"real": float("nan")}, {"flag": 1}, {"word": 3}, {"choice": "z"}, {"choice": True}, {"several": 1.0},
        {"several": ["a"]}, {"maybe": "a"}, {"other": 1},
    ],
)  # fmt: skip
def test_settings_of_another_type_are_refused(settings):
    with pytest.raises(SettingsError, match="'sample'"):
        plugin.make(Sample, settings)


def entry(name, value):
    return lambda group: [EntryPoint(name, value, group)] if group == method.GROUP else []


def test_entry_points_of_other_packages_are_found(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", entry("theirs", "fusionlearn.methods.ridge:Ridge"))
    assert method.available()["theirs"] == "fusionlearn.methods.ridge:Ridge"
    assert isinstance(method.make("theirs"), Ridge)


def test_an_entry_point_cannot_take_the_place_of_one_of_ours(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", entry("ridge", "os:system"))
    assert method.available()["ridge"] == method.METHODS["ridge"]
    assert isinstance(method.make("ridge"), Ridge)


def test_an_entry_point_that_is_no_method_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", entry("odd", "os:system"))
    with pytest.raises(SettingsError, match="not a Method"):
        method.make("odd")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("ridge", "name, revision and settings"),
        ({}, "name, revision and settings"),
        ({"name": "nowhere"}, "no method is called 'nowhere'; there are auto, average"),
        ({"name": "ridge", "revision": 99}, "revision 99 in the file, 1 here"),
        ({"name": "ridge", "settings": []}, "table of names and values"),
        ({"name": "ridge", "settings": {"nope": 1}}, "no setting 'nope'"),
    ],
)
def test_what_a_file_says_wrongly_is_told(value, told):
    with pytest.raises(SettingsError, match=told):
        method.from_json(value)


def test_description_is_the_first_sentence_and_the_settings():
    told = plugin.describe(method.METHODS["ridge"])
    assert told["summary"].startswith("Ridge regression from summed Gram matrices")
    assert "confidence = 0.95" in told["settings"]
    assert issubclass(Ridge, Method)
