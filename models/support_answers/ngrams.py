"""The second part of the ONNX file: letters of words to the n-grams of a question, hashed."""

import torch
from torch import Tensor, nn

from models.support_answers.reader import BREAK, PLAIN

ORDERS = (2, 3, 4, 5)
"""Lengths of the n-grams of letters; blanks around a word count as letters."""
PRIME = 2**31 - 1
"""Modulus of the hashes: products of two of them fit into int64."""
FACTORS = (
    1_103_515_245,
    1_289_706_101,
    747_796_405,
    1_664_525_013,
    1_442_695_041,
    214_013_777,
    1_181_783_497,
)
"""A factor for each of `ORDERS`, for words, and for pairs of words."""
FAR = 1_024
"""More than the letters of a word and the words of a question."""
A, E, O, S, U = (PLAIN.index(letter) + 1 for letter in "aeosu")  # noqa: E741


class Ngrams(nn.Module):
    """Hashes of n-grams of letters, words and pairs of words.

    Hashing needs no vocabulary: a word that training never saw still shares n-grams of letters
    with those it did see, as a part of a German compound does.
    """

    def forward(self, letters: Tensor) -> Tensor:
        """Hashes below `PRIME`, 0 where there is none: int64 (batch, many).

        `letters` are `reader.graph`'s, int64 (batch, words, letters).
        """
        letters = spelled_alike(letters)
        words = hashed_words(letters)
        parts = [ngrams(letters, order).flatten(1) for order in ORDERS]
        parts += [words, pair(words, 1), pair(words, 2)]
        scrambled = [
            part % PRIME * factor % PRIME for part, factor in zip(parts, FACTORS, strict=True)
        ]
        return torch.cat(scrambled, 1)


def spelled_alike(letters: Tensor) -> Tensor:
    """Words without what spellings differ in, moved to the left.

    Accents are gone already. An e after a, o or u goes, and an s after an s: Rückgabe and
    Rueckgabe, Straße and Strasse become the same. So do signs and combining accents.
    """
    before = nn.functional.pad(letters, (1, 0))[..., :-1]
    is_umlaut = (letters == E) & ((before == A) | (before == O) | (before == U))
    is_dropped = (letters == 0) | is_umlaut | ((letters == S) & (before == S))
    order = torch.arange(letters.shape[-1]) + FAR * is_dropped
    order = torch.sort(order, dim=-1).values
    moved = torch.gather(letters, -1, order % FAR)
    return torch.where(order < FAR, moved, 0)


def ngrams(letters: Tensor, order: int) -> Tensor:
    """Number of each n-gram of each word, 0 where there is none: int64 (batch, words, places)."""
    length = (letters > 0).sum(-1, keepdim=True)
    bounded = nn.functional.pad(letters, (1, 1))
    place = torch.arange(bounded.shape[-1])
    bounded = torch.where((place == 0) | (place == length + 1), BREAK, bounded)
    count = bounded.shape[-1] - order + 1
    numbers = torch.zeros_like(bounded[..., :count])
    for i in range(order):
        numbers = numbers * (BREAK + 1) + bounded[..., i : i + count]
    is_inside = (length > 0) & (place[:count] + order <= length + 2)
    return torch.where(is_inside, numbers, 0)


def hashed_words(letters: Tensor) -> Tensor:
    """Hash of each word, those without a letter moved to the end as 0: int64 (batch, words)."""
    powers = torch.tensor([pow(31, i, PRIME) for i in range(letters.shape[-1])])
    hashes = (letters * powers).sum(-1) % PRIME
    order = torch.arange(letters.shape[1]) + FAR * (hashes == 0)
    order = torch.sort(order, dim=-1).values
    return torch.gather(hashes, 1, order % FAR)


def pair(words: Tensor, distance: int) -> Tensor:
    """Hash of each two words with the distance; the edges of the question count as words."""
    bounded = nn.functional.pad(words, (1, 1))
    first = bounded[:, :-distance]
    second = bounded[:, distance:]
    hashes = (first * 31_337 + second * 17 + 5) % PRIME
    return torch.where((first > 0) | (second > 0), hashes, 0)
