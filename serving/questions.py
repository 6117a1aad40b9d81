"""What a request to predict asks."""

from collections.abc import Callable
from dataclasses import dataclass

from models import text
from models.mapped_requests import MappedRequests
from models.spec import ModelSpec, Tensors
from serving import parsing
from serving.parsing import Refusal


@dataclass(frozen=True)
class Question:
    """What a request asks."""

    user: str | None
    inputs: Tensors
    form: Callable[[dict], dict]
    """How the answer is written."""


def parse(model_type: ModelSpec, mapped: MappedRequests | None, body: bytes) -> Question:
    """What a request asks, in the words of the model type or in those that are `mapped`. Raises
    Refusal with the model type's own words.

    The parsed JSON can be twenty times the body: it is not kept while Triton is asked.
    """
    request = parsing.parse(body)
    try:
        if mapped:
            request = mapped.request(request)
        user = parsing.pop_user(request)
        inputs = text.unify(model_type.tensors([request]))
        return Question(user, inputs, model_type.answer_form(request))
    except ValueError as error:
        raise Refusal(422, str(error)[:1_000]) from error
