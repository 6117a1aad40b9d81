"""The first part of the ONNX file: raw text to the letters of its words, in plain operators.

ONNX has no operator that takes a text apart into letters. So each letter has a number, and a
regular expression for each place in a word and each bit of the number asks whether the bit is set.
"""

import unicodedata

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.spec import OPSET

WORDS = 64
"""Maximum words of a question that count, the first ones."""
LETTERS = 24
"""Maximum letters of a word that count, the first ones."""
BITS = 6
"""Bits of a letter's number."""
PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789"
"""What has the numbers from 1 on; variants such as Ä and é have the number of their base."""
MONEY = "$€£¥"
"""What has the number after them."""
PERCENT = "%"
"""What has the last number of a sign."""
BREAKS = "\t\n\v\f\r\u00a0/"
"""What ends a word besides a blank."""
BREAK = 2**BITS - 1
"""Number of what ends a word."""
BASES = {"ß": "s", "ø": "o", "ł": "l", "æ": "a", "œ": "o"}
"""Letters that Unicode does not take apart."""


def graph() -> onnx.ModelProto:
    """Graph from `text`, text (batch, 1), to `letters`, int64 (batch, words, `LETTERS`).

    Numbers are as `numbers` has them, 0 where there is no letter. The last word is empty.
    """
    constants = {
        "flat": np.array([-1]),
        "first": np.array([0]),
        "most": np.array([WORDS]),
        "axis": np.array([1]),
        "last": np.array([-1]),
        "shape": np.array([0, 0, LETTERS, BITS]),
        "values": 2.0 ** np.arange(BITS, dtype=np.float32),
        "one_word": np.array([0, 0, 0, 0, 1, 0]),
    }
    bits = [f"bit_{place}_{bit}" for place in range(LETTERS) for bit in range(BITS)]
    nodes = [
        helper.make_node("Reshape", ["text", "flat"], ["texts"]),
        helper.make_node("StringSplit", ["texts"], ["split", "counts"]),
        helper.make_node("Slice", ["split", "first", "most", "axis"], ["words"]),
        helper.make_node("Unsqueeze", ["words", "last"], ["word"]),
        *(
            helper.make_node("RegexFullMatch", ["word"], [name], pattern=pattern)
            for name, pattern in zip(bits, patterns(), strict=True)
        ),
        helper.make_node("Concat", bits, ["bits"], axis=-1),
        helper.make_node("Cast", ["bits"], ["bits_float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["bits_float", "shape"], ["by_letter"]),
        helper.make_node("MatMul", ["by_letter", "values"], ["letters_float"]),
        helper.make_node("Cast", ["letters_float"], ["letters_short"], to=TensorProto.INT64),
        helper.make_node("Pad", ["letters_short", "one_word"], ["letters"]),
    ]
    text = helper.make_tensor_value_info("text", TensorProto.STRING, ["batch", 1])
    letters = helper.make_tensor_value_info(
        "letters", TensorProto.INT64, ["batch", "words", LETTERS]
    )
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "reader", [text], [letters], initializers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def patterns() -> list[str]:
    """Pattern that matches a word whose letter at a place has a bit: by place, then bit."""
    with_bit = []
    for bit in range(BITS):
        letters = sorted(letter for letter, number in numbers().items() if number >> bit & 1)
        with_bit.append("".join(letters))
    return [f"(?s).{{{place}}}[{letters}].*" for place in range(LETTERS) for letters in with_bit]


def numbers() -> dict[str, int]:
    """Number of each letter and sign that is read, 1 to `BREAK`."""
    result = {letter: PLAIN.index(letter) + 1 for letter in PLAIN}
    # Latin letters of Europe, with their accents.
    for letter in map(chr, [*range(0xC0, 0x250), *range(ord("A"), ord("Z") + 1), ord("ẞ")]):
        base = unicodedata.normalize("NFKD", letter.lower())[0]
        base = BASES.get(base, base)
        if base in PLAIN:
            result[letter] = result[base]
    result |= dict.fromkeys(MONEY, len(PLAIN) + 1)
    result |= dict.fromkeys(PERCENT, len(PLAIN) + 2)
    return result | dict.fromkeys(BREAKS, BREAK)
