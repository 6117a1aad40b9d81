"""Questions of a small shop's customers, in German and English, and the answers that were right."""

import numpy as np
import polars as pl

START = 1_700_000_000_000
THINGS = ["Päckchen", "Hose", "Lampe", "Schuhe", "parcel", "jacket", "lamp", "order"]
PHRASES = {
    "delivery": ["wo bleibt mein {}", "wann kommt mein {} an", "where is my {}", "track my {}"],
    "return": ["wie schicke ich {} zurück", "Rückgabe von {}", "how do I return my {}"],
    "payment": ["kann ich {} auf Rechnung zahlen", "can I pay for the {} by card"],
    "size": ["welche Größe hat {}", "what size is the {}", "is the {} too large"],
    "coupon": ["mein Gutschein für {} geht nicht", "my voucher for the {} is refused"],
    "oos": ["wie wird das Wetter", "who won the match", "tell me a joke about a {}"],
}
ENDS = ["", "?", " bitte", " please", " danke", "!!"]


def questions(count: int, seed: int = 0, first: int = 0) -> pl.DataFrame:
    """Rows of `count` questions, a minute apart."""
    draw = np.random.default_rng(seed)
    names = list(PHRASES)
    rows = []
    for number in range(first, first + count):
        # Fewer are out of scope than of any intent.
        intent = names[min(draw.integers(0, 2 * len(names) - 1) // 2, len(names) - 1)]
        phrase = draw.choice(PHRASES[intent]).format(draw.choice(THINGS)) + draw.choice(ENDS)
        rows.append((f"q{number:07}", START + number * 60_000, phrase, intent))
    return pl.DataFrame(rows, ["question", "ts", "text", "intent"], orient="row")
