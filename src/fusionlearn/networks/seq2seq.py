"""A small transformer that reads one text and writes another: an encoder, a decoder, one table of pieces.

Norms come before each part (so that no warm-up of the deepest layers is needed), places are told by sines, and the
same matrix, the head, stands for the pieces read, the pieces written so far and the scores of the next one.

Takes    (n, t) numbers of the pieces read, and (n, s) of those written so far, the beginning included
Gives    (n, s, size) scores of the piece that follows each
Source   Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, Attention Is All You Need, 2017;
         norms first: Xiong et al., On Layer Normalization in the Transformer Architecture, 2020;
         one table: Press, Wolf, Using the Output Embedding to Improve Language Models, 2017
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from fusionlearn import layers
from fusionlearn.errors import SettingsError
from fusionlearn.network import Module, Network, torch_for
from fusionlearn.problem import NOTHING, Problem


@dataclass(frozen=True)
class Seq2Seq(Network):
    name: ClassVar[str] = "seq2seq"

    width: int = 192  # numbers that stand for one piece
    heads: int = 4  # places a piece looks at at once, in each layer
    encoder: int = 2  # layers that read
    decoder: int = 2  # layers that write
    hidden: int = 512  # units between, in each layer

    def __post_init__(self) -> None:
        layers.check_widths("seq2seq", (self.width, self.hidden))
        if not (1 <= self.encoder <= 64 and 1 <= self.decoder <= 64):
            raise SettingsError("seq2seq: encoder and decoder have 1 to 64 layers each.")
        if not 1 <= self.heads <= self.width or self.width % (2 * self.heads):
            raise SettingsError(
                f"seq2seq: width {self.width} must be a multiple of twice the {self.heads} heads: change one of them."
            )

    def build(self, problem: Problem) -> Module:
        if problem.kind != "text":
            raise SettingsError("seq2seq: it answers with texts, the task's label is none: take 'mlp' or another.")
        return _parts().Transformer(self, problem.num_classes)


@functools.cache
def _parts() -> Any:
    """The modules it is made of, defined once torch is asked for."""
    torch = torch_for("network 'seq2seq'")
    nn = torch.nn

    class Attention(nn.Module):  # type: ignore[misc,name-defined]
        """Each place takes what it needs from the places it may see."""

        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

        def forward(self, x: Any, seen: Any, mask: Any = None, *, causal: bool = False) -> Any:
            query, key, value = self._split(self.query(x)), self._split(self.key(seen)), self._split(self.value(seen))
            found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
            return self.out(found.transpose(1, 2).flatten(2))

        def _split(self, x: Any) -> Any:
            """(n, t, width) → (n, heads, t, width / heads)"""
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    class Layer(nn.Module):  # type: ignore[misc,name-defined]
        """What one place learns from the others (and from the text read), then by itself."""

        def __init__(self, settings: Seq2Seq, *, writes: bool) -> None:
            super().__init__()
            width = settings.width
            self.norm1, self.own = nn.LayerNorm(width), Attention(width, settings.heads)
            self.writes = writes
            if writes:
                self.norm2, self.read = nn.LayerNorm(width), Attention(width, settings.heads)
            self.norm3 = nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, settings.hidden), nn.Linear(settings.hidden, width)

        def forward(self, x: Any, memory: Any, mask: Any) -> Any:
            normed = self.norm1(x)
            x = x + self.own(normed, normed, None if self.writes else mask, causal=self.writes)
            if self.writes:
                x = x + self.read(self.norm2(x), memory, mask)
            return x + self.down(torch.relu(self.up(self.norm3(x))))

    class Transformer(nn.Module):  # type: ignore[misc,name-defined]
        """`encode` what is read, `decode` what is written, `head` the scores."""

        def __init__(self, settings: Seq2Seq, size: int) -> None:
            super().__init__()
            self.width = settings.width
            self.encoder = nn.ModuleList(Layer(settings, writes=False) for _ in range(settings.encoder))
            self.decoder = nn.ModuleList(Layer(settings, writes=True) for _ in range(settings.decoder))
            self.norm_in, self.norm_out = nn.LayerNorm(self.width), nn.LayerNorm(self.width)
            self.head = nn.Linear(self.width, size)

        def forward(self, source: Any, written: Any) -> Any:
            return self.head(self.decode(written, *self.encode(source)))

        def encode(self, source: Any) -> tuple[Any, Any]:
            """(n, t) → what each piece means here (n, t, width), and where there is one (n, 1, 1, t)."""
            mask = (source != NOTHING)[:, None, None]
            x = self._embedded(source)
            for layer in self.encoder:
                x = layer(x, None, mask)
            return self.norm_in(x), mask

        def decode(self, written: Any, memory: Any, mask: Any) -> Any:
            """(n, s) → (n, s, width), of which the head makes scores."""
            x = self._embedded(written)
            for layer in self.decoder:
                x = layer(x, memory, mask)
            return self.norm_out(x)

        def _embedded(self, numbers: Any) -> Any:
            table = nn.functional.embedding(numbers, self.head.weight) * math.sqrt(self.width)
            return table + _places(numbers.shape[1], self.width).to(table)

    class Parts:
        pass

    parts: Any = Parts()
    parts.Transformer = Transformer
    return parts


@functools.lru_cache(maxsize=1024)
def _places(length: int, width: int) -> Any:
    """(length, width) sines and cosines of falling frequency."""
    torch = torch_for("network 'seq2seq'")
    angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2)[None] / width)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
