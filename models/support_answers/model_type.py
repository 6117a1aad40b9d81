"""The model type: which known answer fits a customer's question, or "hand over to a person".

Importing it stays light: no torch.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from models import text
from models.spec import Examples, ModelSpec, Policy, Tensors, TrainingContext, TrainingResult
from models.support_answers import features, metrics
from models.support_answers.messages import CustomerQuestion, SupportAnswer
from models.support_answers.params import Params
from models.support_answers.schema import LONGEST_TEXT, OUT_OF_SCOPE, QUESTIONS


class SupportAnswers(ModelSpec):
    """Given the text of a question, the known answer that fits, how sure that is, and whether a
    person should answer.

    ONNX input: `text`, text (batch, 1), as it was written.

    Outputs, (batch, 1) each:
    - `intent`, text: name of the answer that fits best.
    - `confidence`, float32: probability that it is right, if one of the known answers fits.
    - `hand_over`, bool: whether the confidence is too low to answer.
    """

    name = "support_answers"
    table = QUESTIONS
    Params = Params
    Request = CustomerQuestion
    Answer = SupportAnswer
    metric = "accuracy"
    mix = ("words",)
    # Nothing was asked, so nothing can be answered: a person takes over.
    fallback: ClassVar[dict] = {"text": ""}
    # Two networks that learnt from the same questions of CLINC150 differ by 0.16 on others; two
    # that learnt from different ones, by more.
    policy = Policy(group_sd=0.2)

    def examples(self, rows: pl.DataFrame) -> Examples:
        """Every question that a known answer fits; groups are question ids.

        Those out of scope are no examples: the table does not know their right answer.
        """
        answered = features.with_answer(rows)
        inputs = {"text": features.texts(answered)}
        return Examples(inputs, text.column(answered["intent"]), text.column(answered["question"]))

    def requests(self, rows: pl.DataFrame) -> tuple[np.ndarray, Tensors]:
        """Every question, by its id; of one that is there twice, the newer row."""
        rows = rows.unique("question", keep="last", maintain_order=True)
        return text.column(rows["question"]), {"text": features.texts(rows)}

    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """1 where the intent is right, handed over or not."""
        return metrics.accuracy(outputs["intent"], examples.labels)

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """How often training saw each intent and each frequent word."""
        return features.profile(rows)

    def slices(self, rows: pl.DataFrame, profile: pl.DataFrame) -> pl.DataFrame:
        """Length of the question, and how much training saw of its intent."""
        counts = features.seen(profile, "intent").rename({"value": "intent"})
        return metrics.slices(features.with_answer(rows), counts)

    def coverage(self, outputs: Tensors, profile: pl.DataFrame) -> float:
        """Share of the intents that somebody got without being handed over."""
        intents = features.seen(profile, "intent").filter(pl.col("value") != OUT_OF_SCOPE)
        return metrics.coverage(outputs["intent"], outputs["hand_over"], intents.height)

    def probabilities(self, outputs: Tensors) -> np.ndarray:
        """The confidence."""
        return outputs["confidence"][:, 0].astype(np.float64)

    def tensors(self, requests: list[dict]) -> Tensors:
        """Requests `{"text": "Wo bleibt mein Päckchen?"}`; an empty text is handed over."""
        for i, request in enumerate(requests):
            asked = None
            if isinstance(request, dict):
                asked = request.get("text")
            if not isinstance(asked, str):
                raise ValueError(
                    f'Request {i}: "text" must be text. Send {{"text": "Where is my parcel?"}}.'
                )
            if len(asked) > LONGEST_TEXT:
                raise ValueError(
                    f'Request {i}: "text" has {len(asked)} characters. Send {LONGEST_TEXT} at most.'
                )
        asked = np.array([request["text"] for request in requests], object)
        return {"text": asked.reshape(-1, 1)}

    def answers(self, outputs: Tensors) -> list[dict]:
        """`{"intent": ..., "confidence": ..., "hand_over": ...}` per request."""
        names = ("intent", "confidence", "hand_over")
        columns = [outputs[name][:, 0].tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def items(self, answer: dict) -> list:
        """The intent; nothing where a person answers."""
        if answer["hand_over"]:
            return []
        return [answer["intent"]]

    def golden(self) -> list[dict]:
        """Edge cases: nothing, no word, other scripts, composed letters, a long word and text."""
        asked = [
            "",
            " \t\n",
            "?!",
            "Where is my parcel?",
            "Wo ist mein Päckchen, bitte?",
            "WO IST MEIN PA\u0308CKCHEN",
            "日本語 عربي Привет",
            "👩‍👩‍👧 \0 \u200b",
            "Donaudampfschifffahrtsgesellschaftskapitän",
            "parcel " * 1_000,
        ]
        return [{"text": asked_text} for asked_text in asked]

    def monitored(self, rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
        """Numbers of each question.

        - `log_words`: log(1 + its words).
        - `unseen_words`: share of its words that training did not see, or hardly ever.
        - `other_script`: whether it has letters that are not Latin, which the model cannot read.
        - `unseen_intent`: whether training never saw the right intent.
        - `out_of_scope`: whether no known answer fits.
        """
        return features.monitored(rows, profile)

    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        """Fit on `rows`, or continue from `work.parent`.

        Raises ValueError if there are too few questions.
        """
        from models.support_answers import training

        return training.train(rows, params, work)

    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """Fit naive Bayes on whole words."""
        from models.support_answers import baseline

        return baseline.build(rows, folder)
