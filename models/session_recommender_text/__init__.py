"""Next articles for a shop session, of articles and sessions whose ids are text.

Importing it stays light: no torch.
"""

from models.session_recommender.model_type import TextSessionRecommender
from models.session_recommender.params import Params

__all__ = ["SPEC", "Params", "TextSessionRecommender"]

SPEC = TextSessionRecommender()
