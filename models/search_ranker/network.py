"""The network: raw features of a list to the order of its results.

Several small networks are averaged. They lie in the same tensors, member after member, so that a
step of all costs hardly more than a step of one, and the file is one graph.

Signed log1p, noise and self-attention over the list are those of Qin et al., "Are neural
rankers still outperformed by gradient boosted decision trees?", 2021.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.search_ranker.features import NOWHERE
from models.search_ranker.vocabulary import Vocabulary

LARGEST_SCALED = 4.0
"""Deviations from the mean beyond which a feature counts no more."""
SMALLEST_DEVIATION = 0.05
"""Least deviation that a feature is divided by: a constant one stays small."""

NUMBERS = 4
"""Numbers that a network learns for each category."""
RANK_SCALE = 3**0.5
"""Ranks are even from -1 to 1; times this, their deviation is 1, as that of other columns."""


class Scaling(nn.Module):
    """Raw features to numbers around 0: the difference from the mean of its list, and the rank.

    What orders a list is how its results differ from each other, whatever the query. A rank
    does not depend on how large the values of a list are, nor on one far from all others.
    """

    COLUMNS = 3
    """Columns for each feature."""

    mean: Tensor
    """float32 (features,), of signed logs; so is `deviation`."""
    deviation: Tensor
    has_gaps: Tensor
    """1 where training saw values and gaps, else 0."""

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("has_gaps", torch.zeros(features))

    @classmethod
    def of(cls, features: np.ndarray, present: np.ndarray) -> "Scaling":
        """The scaling of these lists: float32 (n, results, features), bool (n, results)."""
        values = features[present].astype(np.float64)
        has_value = ~np.isnan(values)
        counts = np.maximum(has_value.sum(0), 1)
        logs = np.where(has_value, np.sign(values) * np.log1p(np.abs(values)), 0)
        mean = logs.sum(0) / counts
        squares = np.where(has_value, (logs - mean) ** 2, 0).sum(0)
        deviation = np.maximum(np.sqrt(squares / counts), SMALLEST_DEVIATION)
        scaling = cls(features.shape[2])
        scaling.mean = torch.from_numpy(mean.astype(np.float32))
        scaling.deviation = torch.from_numpy(deviation.astype(np.float32))
        # A gap is a column of its own only where training saw both.
        share = has_value.mean(0)
        scaling.has_gaps = torch.from_numpy(((share > 0) & (share < 1)).astype(np.float32))
        return scaling

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """(batch, results, features) with NaN, and where there is a result, bool (batch, results).

        Returns float32 (batch, results, COLUMNS * features): values, whether each is missing, and
        ranks.
        """
        is_missing = torch.isnan(features)
        values = torch.where(is_missing, 0.0, features)
        logs = torch.sign(values) * torch.log1p(torch.abs(values))
        scaled = ((logs - self.mean) / self.deviation).clamp(-LARGEST_SCALED, LARGEST_SCALED)
        scaled = torch.where(is_missing, 0.0, scaled)
        columns = torch.cat([scaled, is_missing.float() * self.has_gaps], 2)
        weight = present.float()[:, :, None]
        count = weight.sum(1, keepdim=True).clamp(min=1.0)
        differences = (columns - (columns * weight).sum(1, keepdim=True) / count) * weight
        return torch.cat([differences, ranks(features, present)], 2)


class Categories(nn.Module):
    """What categories add to the first layer, and to the linear path beside it.

    Each category has some numbers of its own in each member. They start from 0, so that one that
    was never learnt adds nothing.
    """

    firsts: Tensor
    """int64 (columns,): row in `vectors` of each column's number 0."""

    def __init__(self, members: int, sizes: Sequence[int], width: int):
        """`sizes` says how many categories each column has."""
        super().__init__()
        firsts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("firsts", firsts, persistent=False)
        self.vectors = nn.Parameter(torch.zeros(sum(sizes), members, NUMBERS))
        self.mixed = weights(members, NUMBERS * len(sizes), width + 1)

    def forward(self, categories: Tensor) -> Tensor:
        """float32 (members, batch * results, width + 1), of numbers (batch, results, columns)."""
        members, inputs, _ = self.mixed.shape
        vectors = self.vectors[categories + self.firsts].permute(3, 0, 1, 2, 4)
        return torch.bmm(vectors.reshape(members, -1, inputs), self.mixed)


class Members(nn.Module):
    """Networks of the same form, each with a share of the columns, its own weights and scores."""

    used: Tensor
    """float32 (members, columns, 1): 1 for the columns that a member looks at, else 0."""

    def __init__(
        self, members: int, columns: int, width: int, share: float, sizes: Sequence[int] = ()
    ):
        """`sizes` says how many categories each column of them has."""
        super().__init__()
        self.members = members
        self.width = width
        self.register_buffer("used", (torch.rand(members, columns, 1) < share).float())
        self.linear = nn.Parameter(torch.zeros(members, columns, 1))
        self.first = weights(members, columns, width)
        self.first_bias = nn.Parameter(torch.zeros(members, 1, width))
        self.attention = weights(members, width, 3 * width)
        self.attended = nn.Parameter(torch.zeros(members, width, width))
        self.second = weights(members, width, width)
        self.second_bias = nn.Parameter(torch.zeros(members, 1, width))
        self.last = weights(members, width, 1)
        self.categories: Categories | None = None
        if sizes:
            self.categories = Categories(members, sizes, width)

    def forward(
        self,
        columns: Tensor,
        present: Tensor,
        categories: Tensor | None = None,
        hidden_columns: float = 0.0,
        hidden: float = 0.0,
    ) -> Tensor:
        """Scores of each member, float32 (members, batch, results), of (batch, results, columns)
        and the numbers of the categories, int64 (batch, results, categories).

        A training hides shares of the columns, others for each member, and of the hidden numbers.
        """
        batch, results = present.shape
        flat = columns.reshape(batch * results, columns.shape[2])
        used = F.dropout(self.used, hidden_columns)
        # All members at once: (columns, members * width), and one more number for each member.
        joined = torch.cat([self.first, self.linear], 2) * used
        joined = joined.transpose(0, 1).reshape(columns.shape[2], -1)
        both = (flat @ joined).reshape(batch * results, self.members, -1).transpose(0, 1)
        if self.categories is not None:
            assert categories is not None
            both = both + self.categories(categories)
        inner = F.dropout(torch.relu(both[:, :, :-1] + self.first_bias), hidden)
        inner = inner + torch.bmm(self._attend(inner, present), self.attended)
        inner = inner + torch.relu(torch.bmm(inner, self.second) + self.second_bias)
        scores = torch.bmm(F.dropout(inner, hidden), self.last) + both[:, :, -1:]
        return scores.reshape(self.members, batch, results)

    def _attend(self, inner: Tensor, present: Tensor) -> Tensor:
        """What each result sees of the others, (members, batch * results, width)."""
        batch, results = present.shape
        shape = (self.members, batch, results, self.width)
        normal = F.layer_norm(inner, (self.width,))
        joined = torch.bmm(normal, self.attention)
        query, key, value = (part.reshape(shape) for part in joined.chunk(3, 2))
        products = query @ key.transpose(2, 3) / self.width**0.5
        # A list without any result attends to nothing, evenly.
        products = torch.where(present[None, :, None, :], products, NOWHERE)
        seen = torch.softmax(products, 3) @ value
        return seen.reshape(self.members, batch * results, self.width)


class Scorer(nn.Module):
    """Scaling and members joined: what is served, behind a vocabulary."""

    def __init__(self, scaling: Scaling, members: Members, vocabulary: Vocabulary | None = None):
        super().__init__()
        self.vocabulary = vocabulary or Vocabulary()
        self.scaling = scaling
        self.members = members

    def forward(
        self, features: Tensor, present: Tensor, categories: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Positions of the results, best first, int64 (batch, results), and their scores.

        `categories` are the vocabulary's numbers, if it knows any. `features` may have more columns
        than training saw; they are left out.
        """
        used = features[:, :, : self.scaling.mean.shape[0]]
        scores = self.members(self.scaling(used, present), present, categories).mean(0)
        scores = torch.where(present, scores, NOWHERE)
        best, order = torch.topk(scores, scores.shape[1], dim=1)
        return order, best


def ranks(features: Tensor, present: Tensor) -> Tensor:
    """Share of the list with a smaller value, less that with a larger one, as `features` are.

    A list is those of its results that have the feature; without it a rank is 0. All pairs are
    compared, so equal values have equal ranks.
    """
    # No comparison with NaN is true.
    values = torch.where(present[:, :, None], features, torch.nan)
    smaller = (values[:, None] < values[:, :, None]).float()
    count = (~torch.isnan(values)).float().sum(1, keepdim=True).clamp(min=1.0)
    return (smaller.sum(2) - smaller.sum(1)) / count * RANK_SCALE


def weights(*shape: int) -> nn.Parameter:
    """Random weights of (members, inputs, outputs) that keep the size of what goes through."""
    return nn.Parameter(torch.randn(*shape) / shape[1] ** 0.5)
