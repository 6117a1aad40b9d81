"""The trained recommender without one of its parts, beside the whole model."""

from pathlib import Path

import polars as pl

from benchmarks import published
from kreislauf.evaluation import scoring
from models.session_recommender.covisitation import covisit
from models.session_recommender.features import Catalogue, events
from models.spec import Examples

COLUMNS = ("recall@20", "mrr@20")
"""Numbers that are compared."""


def components(training: dict, rows: pl.DataFrame, test: Examples) -> dict[str, dict]:
    """Numbers of the trained encoder alone, and of encoder and table without the ranker."""
    import torch

    from models.session_recommender import warm_start
    from models.session_recommender.covisitation_index import CovisitationIndex
    from models.session_recommender.encoder import Encoder
    from models.session_recommender.scorer import Scorer

    class ArticlesOnly(CovisitationIndex):
        """Has the articles, and nothing of what was seen together."""

        def covisitation(
            self, rows: torch.Tensor, is_known: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return rows, rows * 0.0

    e = events(rows)
    catalogue = Catalogue.of(e)
    parent = warm_start.read_parent(Path(training["weights"]))
    encoder = Encoder(*parent.articles.shape)
    encoder.load_state_dict(parent.encoder | {"articles": parent.articles})
    table = covisit(e, catalogue)
    indices = {
        "encoder alone": ArticlesOnly(table),
        "table and encoder, no ranker": CovisitationIndex(table),
    }
    inputs = (
        catalogue.rows(test.inputs["article_ids"]),
        test.inputs["types"],
        test.inputs["times"],
    )
    columns = [torch.from_numpy(values).split(scoring.BATCH) for values in inputs]
    result = {}
    for name, index in indices.items():
        scorer = Scorer(index, encoder).eval()
        with torch.inference_mode():
            answers = [scorer(*batch)[0] for batch in zip(*columns, strict=True)]
        result[name] = published.quality(catalogue.raw()[torch.cat(answers).numpy()], test)
    return result


def compare(whole: dict, without: dict[str, dict]) -> dict[str, dict]:
    """Print how much the whole model is better than each variant, and return the numbers."""
    print(f"{'first seed':50}", *(f"{column:>10} {'gain':>8}" for column in COLUMNS))
    for name, variant in {"whole model": whole, **without}.items():
        gains = [(variant[column], whole[column] - variant[column]) for column in COLUMNS]
        print(f"{name:50}", *(f"{value:10.4f} {gain:+8.4f}" for value, gain in gains))
    return {name: _numbers(variant) for name, variant in without.items()}


def _numbers(variant: dict) -> dict:
    """The numbers of a variant that are compared."""
    return {column: variant[column] for column in COLUMNS}
