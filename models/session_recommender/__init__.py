"""Next articles for a shop session, in the format of OTTO's recsys data.

Importing it stays light: no torch.
"""

from models.session_recommender.model_type import SessionRecommender
from models.session_recommender.params import Params

__all__ = ["SPEC", "Params", "SessionRecommender"]

SPEC = SessionRecommender()
