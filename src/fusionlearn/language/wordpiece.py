"""WordPiece: text as the numbers of pieces that BERT and its kin were trained on.

Text is brought to lower case without accents, cut at blanks, and marks stand alone; a word is the longest pieces of a
fixed list from left to right, those within a word written with "##" before them. A word that cannot be made of pieces,
or that is longer than 100 letters, is one unknown piece.

Source   Devlin, Chang, Lee, Toutanova, BERT: Pre-training of Deep Bidirectional Transformers for Language
         Understanding, 2019
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

BEGIN, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
LONGEST = 100  # letters of a word


def ranks(content: bytes) -> dict[str, int]:
    """Piece → number, of a list with one piece a line."""
    return {piece: number for number, piece in enumerate(content.decode("utf-8").splitlines())}


def numbers(text: str, known: Mapping[str, int], length: int) -> list[int]:
    """The numbers of a text's pieces between BEGIN and END, at most `length` in all; what is beyond is left out."""
    found: list[int] = []
    for word in words(text):
        if len(found) >= length - 2:
            break
        found += _pieces(word, known)
    return [known[BEGIN], *found[: length - 2], known[END]]


def words(text: str) -> Iterator[str]:
    """Words and marks, in lower case and without accents."""
    for chunk in "".join(_spaced(text)).split():
        plain = "".join(
            letter for letter in unicodedata.normalize("NFD", chunk.lower()) if unicodedata.category(letter) != "Mn"
        )
        word = ""
        for letter in plain:
            if _is_mark(letter):
                if word:
                    yield word
                yield letter
                word = ""
            else:
                word += letter
        if word:
            yield word


def _spaced(text: str) -> Iterator[str]:
    """Letters; blanks of any kind as one kind, control characters left out, Chinese signs as words of their own."""
    for letter in text:
        kind = unicodedata.category(letter)
        if letter in "\t\n\r" or kind == "Zs":
            yield " "
        elif letter in "\0\ufffd" or kind in ("Cc", "Cf", "Co", "Cs"):
            continue
        elif _is_chinese(ord(letter)):
            yield f" {letter} "
        else:
            yield letter


def _pieces(word: str, known: Mapping[str, int]) -> list[int]:
    if len(word) > LONGEST:
        return [known[UNKNOWN]]
    found, start = [], 0
    while start < len(word):
        before = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if before + word[start:end] in known), 0)
        if not end:
            return [known[UNKNOWN]]
        found.append(known[before + word[start:end]])
        start = end
    return found


def _is_mark(letter: str) -> bool:
    return (
        letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
    ) or unicodedata.category(letter).startswith("P")


# Blocks of signs that stand for words of their own: unified ideographs, their extensions, compatibility forms.
CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def _is_chinese(point: int) -> bool:
    return any(first <= point <= last for first, last in CHINESE)
