"""The order of search results for a query.

Importing it stays light: no torch.
"""

from models.search_ranker.model_type import SearchRanker
from models.search_ranker.params import Params

__all__ = ["SPEC", "Params", "SearchRanker"]

SPEC = SearchRanker()
