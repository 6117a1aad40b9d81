"""A simulated shop's support desk: raw lines of `questions`, and a season that changes them.

Customers write German or English. With the season they ask what nobody has asked before, and ask
for their parcels in other words.
"""

from dataclasses import dataclass

import numpy as np

from demo.shop import START_MS
from kreislauf.clock import DAY_MS
from models.support_answers.schema import OUT_OF_SCOPE

THINGS = ["Päckchen", "Hose", "Lampe", "Schuhe", "Regal", "parcel", "jacket", "lamp", "order"]
ENDS = ["", "?", " bitte", " please", " danke", " thanks", "!!"]
PHRASES = {
    "delivery": ["wo bleibt mein {}", "wann kommt mein {} an", "where is my {}", "track my {}"],
    "return": [
        "wie schicke ich {} zurück",
        "Rückgabe von {}",
        "how do I return my {}",
        "sending back the {}",
    ],
    "payment": ["kann ich {} auf Rechnung zahlen", "can I pay for the {} by card"],
    "size": ["welche Größe hat {}", "what size is the {}", "ist {} zu groß", "is the {} too large"],
    "coupon": ["mein Gutschein für {} geht nicht", "my voucher for the {} is refused"],
    "invoice": ["die Rechnung über {} noch einmal bitte", "send me the bill for the {} again"],
    "stock": ["wann gibt es {} wieder", "when is the {} back in stock"],
    "damage": ["{} ist zerbrochen angekommen", "the {} arrived broken"],
    OUT_OF_SCOPE: ["wie wird das Wetter", "who won the match", "tell me a joke about a {}"],
}
"""What is asked, by the name of the right answer."""
SEASON = PHRASES | {
    "delivery": [
        "ist meine Bescherung mit {} unterwegs",
        "Sendungsverfolgung {}",
        "has the courier got my {}",
        "shipment status of {}",
    ],
    "gift_wrap": ["könnt ihr {} als Geschenk einpacken", "can you gift wrap the {}"],
    "before_christmas": ["ist {} an Heiligabend da", "will the {} arrive before Christmas"],
    "exchange": ["{} umtauschen, weil er es doppelt hat", "swap the {}, she has two now"],
}
"""The same from the season on."""
UNUSUAL = 0.5
"""How often a question is out of scope, as a share of how often one gets any of the answers."""
MISTAKEN = 0.02
"""Share of the questions whose right answer was noted wrongly."""


@dataclass(frozen=True)
class SupportDesk:
    """Size and history of the desk."""

    questions_per_day: int = 900
    change_day: int = 9
    """Day on which the season changes."""
    seed: int = 0

    def lines(self, first: int, last: int) -> list[dict]:
        """Questions of days [first, last), as raw lines."""
        return [line for day in range(first, last) for line in self.of_day(day)]

    def of_day(self, day: int) -> list[dict]:
        """Questions of a day, evenly spread over it."""
        rng = np.random.default_rng([self.seed, day])
        phrases = SEASON if day >= self.change_day else PHRASES
        shares = np.array([UNUSUAL if name == OUT_OF_SCOPE else 1.0 for name in phrases])
        intents = rng.choice(list(phrases), self.questions_per_day, p=shares / shares.sum())
        questions = []
        for number, intent in enumerate(intents.tolist()):
            phrase = str(rng.choice(phrases[intent])).format(rng.choice(THINGS))
            if rng.random() < MISTAKEN:
                intent = str(rng.choice(list(phrases)))
            questions.append(
                {
                    "question": f"{day}-{number}",
                    "ts": START_MS + day * DAY_MS + number * DAY_MS // self.questions_per_day,
                    "text": phrase + str(rng.choice(ENDS)),
                    "intent": intent,
                }
            )
        return questions
