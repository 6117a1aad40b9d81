"""Which known answer fits a customer's question, or whether a person has to look at it.

Importing it stays light: no torch.
"""

from models.support_answers.model_type import SupportAnswers
from models.support_answers.params import Params

__all__ = ["SPEC", "Params", "SupportAnswers"]

SPEC = SupportAnswers()
