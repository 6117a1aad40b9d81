"""Inside a training: loss, causality, the order of time, kills, several processes, reports."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors.torch import load_file
from torch import Tensor

from models.runtime import one_thread, silence_libraries
from models.session_recommender import (
    SPEC,
    Params,
    blocks,
    export,
    metrics,
    objectives,
    training,
)
from models.session_recommender import fit as fit_module
from models.session_recommender.batches import LONGEST, Batches, Sequences
from models.session_recommender.blocks import Block, ranker_batches
from models.session_recommender.covisitation import PAIRS, covisit
from models.session_recommender.covisitation_index import CANDIDATES, Candidates, CovisitationIndex
from models.session_recommender.encoder import Encoder, Session, newest, pauses
from models.session_recommender.features import LENGTH, Catalogue, Events, events, prefixes
from models.session_recommender.fit import Stage, fit
from models.session_recommender.history import History
from models.session_recommender.initial_vectors import propagate
from models.session_recommender.objectives import EncoderTask, RankerTask, Task
from models.session_recommender.ranker import Ranker, rank
from models.session_recommender.schema import EVENT_TYPES
from models.session_recommender.scorer import Scorer
from models.session_recommender.training import BLOCKS, NEWEST, PrequentialTraining
from models.spec import TrainingContext, TrainingResult
from tests.conftest import ROOT
from tests.models.test_session_recommender import START, sessions


def shop(n: int, articles: int = 60, longest: int = 21, seed: int = 0) -> pl.DataFrame:
    """Rows of `n` sessions, a minute apart, that often return to an article."""
    draw = np.random.default_rng(seed)
    rows = []
    for session in range(n):
        aids = draw.integers(0, articles, longest)
        for i in range(1, longest):
            aids[i] = aids[draw.integers(0, i)] if draw.random() < 0.3 else aids[i]
        ts = START + session * 60_000 + np.cumsum(draw.integers(0, 90_000, longest))
        kinds = draw.choice(EVENT_TYPES, longest)
        rows += [*zip([session] * longest, 7 * aids, ts, kinds, strict=True)][
            : draw.integers(1, longest + 1)
        ]
    return pl.DataFrame(rows, ["session", "aid", "ts", "type"], orient="row")


def shaken(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """No parameter is zero, as after a training."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    return module.eval()


@pytest.fixture(scope="module")
def e() -> Events:
    return events(shop(60))


@pytest.fixture(scope="module")
def catalogue(e) -> Catalogue:
    return Catalogue(np.unique(np.r_[e.aid, 10**6 + np.arange(5)]))


@pytest.fixture(scope="module")
def index(e, catalogue) -> CovisitationIndex:
    """Lacks the catalogue's last articles."""
    return CovisitationIndex(covisit(e, catalogue))


@pytest.fixture(scope="module")
def encoder(catalogue) -> Encoder:
    torch.manual_seed(0)
    return shaken(Encoder(catalogue.size, 16))


@pytest.fixture(scope="module")
def scorer(index, encoder) -> Scorer:
    return Scorer(index, encoder, shaken(Ranker(index.articles.numpy()))).eval()


def drawn(n: int, length: int, articles: int, seed: int = 0) -> Session:
    """Sessions of known articles, with repeats."""
    draw = np.random.default_rng(seed)
    rows, kinds = draw.integers(0, articles, (n, length)), draw.integers(0, 3, (n, length))
    rows[:, 2::3] = rows[:, 1::3][:, : rows[:, 2::3].shape[1]]
    times = START + np.cumsum(draw.integers(0, 10**6, (n, length)), 1)
    return Session(*map(torch.from_numpy, (rows, kinds, times)))


def cut(session: Session, columns: slice | list[int]) -> Session:
    return Session(*(t[:, columns] for t in session))


# --- The softmax over the catalogue


def slow_sum(queries: Tensor, vectors: Tensor) -> Tensor:
    return (queries.double() @ vectors.double().T).exp().sum(1)


def test_a_sampled_catalogue_gives_an_unbiased_sum():
    torch.manual_seed(0)
    table, queries = 0.5 * torch.randn(400, 8), torch.randn(6, 8)
    articles, own = torch.arange(1, 400, 2), torch.tensor([1, 5, 7, 21, 399])
    logs = [
        objectives.catalogue_logsumexp(queries, table.__getitem__, articles, own, 40).double()
        for _ in range(1500)
    ]
    sums = torch.stack(logs).exp()
    deviation = sums.std(0) / len(sums) ** 0.5
    assert ((sums.mean(0) - slow_sum(queries, table[articles])).abs() < 4 * deviation).all()
    assert (deviation < 0.05 * sums.mean(0)).all(), "the bound above says something"
    whole = objectives.catalogue_logsumexp(queries, table.__getitem__, articles, own, 200)
    assert whole.double().exp().numpy() == pytest.approx(
        slow_sum(queries, table[articles]).numpy(), rel=1e-4
    )


def test_the_batch_s_own_articles_are_counted_exactly_in_every_sample():
    """All other articles are alike, so that nothing depends on the draw."""
    torch.manual_seed(0)
    table, queries, own = torch.zeros(300, 8), torch.randn(3, 8), torch.tensor([4, 250])
    table[own] = torch.randn(2, 8)
    for _ in range(50):
        sampled = objectives.catalogue_logsumexp(
            queries, table.__getitem__, torch.arange(300), own, 20
        )
        assert sampled.double().exp().numpy() == pytest.approx(
            slow_sum(queries, table).numpy(), rel=1e-5
        )


@pytest.mark.parametrize("count", [5, 6])
def test_a_sample_may_be_smaller_than_the_batch(count):
    """`most_compared` may be any number from 1, and a batch may have every article."""
    torch.manual_seed(0)
    table, queries, own = torch.randn(6, 8), torch.randn(5, 8), torch.arange(count)
    for _ in range(20):
        sampled = objectives.catalogue_logsumexp(
            queries, table.__getitem__, torch.arange(6), own, 2
        )
        assert sampled.double().exp().numpy() == pytest.approx(
            slow_sum(queries, table).numpy(), rel=1e-5
        )


# --- The encoder and its loss


def encoded(encoder: Encoder, session: Session, nothing: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return encoder(encoder.vectors(session.rows), session, session.rows < nothing)


def slow_loss(
    encoder: Encoder, batch: Session, compared: list[int], event_weights: list[float]
) -> Tensor:
    """Position by position, from nothing but the events before it."""
    losses, weights = [], []
    vectors = encoder.vectors(torch.arange(len(encoder.articles)))
    for rows, kinds, times in zip(*batch, strict=True):
        for i in range(1, int((rows >= 0).sum())):
            prefix = Session(rows[None, :i], kinds[None, :i], times[None, :i])
            expected, again = encoder(
                vectors[prefix.rows], prefix, torch.ones(1, i, dtype=torch.bool)
            )
            last = {int(row): place for place, row in enumerate(rows[:i])}
            logits = [
                expected[0, -1] @ vectors[row] + (again[0, -1, last[row]] if row in last else 0)
                for row in compared
            ]
            probabilities = torch.stack(logits).softmax(0)
            losses.append(-probabilities[compared.index(int(rows[i]))].log())
            weights.append(event_weights[int(kinds[i])])
    return (torch.stack(losses) * torch.tensor(weights)).sum() / sum(weights)


@pytest.fixture
def timely(monkeypatch):
    """No session's times are dropped."""
    monkeypatch.setattr(objectives, "drop_times", lambda times: times)


def padded(e: Events, catalogue: Catalogue, n: int) -> Session:
    """The first sessions of at least two events as a training step gets them."""
    return Sequences.of(e, catalogue.rows(e.aid)).take(np.arange(n))


PARAMS = Params.tiny().model_copy(
    update={"cart_weight": 3.0, "order_weight": 0.5, "batch_size": 16}
)


def test_the_loss_and_its_gradients_equal_a_slow_softmax(e, catalogue, index, timely):
    encoder = shaken(Encoder(catalogue.size, 16))
    compared = np.flatnonzero(index.is_seen(torch.arange(catalogue.size)).numpy())
    assert len(compared) < len(catalogue.ids)
    batch, results = padded(e, catalogue, 12), []
    assert len(set(batch.rows[0].tolist())) < len(batch.rows[0]), "an article occurs twice"
    task = EncoderTask(encoder, PARAMS, index, compared, 1e-3).eval()
    for call in (
        lambda: task.loss(batch),
        lambda: slow_loss(encoder, batch, compared.tolist(), [1.0, 3.0, 0.5]),
    ):
        encoder.zero_grad()
        loss = call()
        loss.backward()
        results.append(
            [loss.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())]
        )
    for ours, slow in zip(*results, strict=True):
        assert torch.allclose(ours, slow, rtol=1e-3, atol=1e-5)


def test_a_batch_of_nothing_worth_learning_does_no_harm(e, catalogue, index, timely, scorer):
    params = PARAMS.model_copy(update={"cart_weight": 0.0})
    task = EncoderTask(
        Encoder(catalogue.size, 16), params, index, np.arange(len(catalogue.ids)), 1e-3
    )
    batch = padded(e, catalogue, 8)
    carts = torch.where(batch.kinds < 0, -1, 1)
    assert torch.isfinite(task.loss(batch._replace(kinds=carts)))
    block = replace(asked(scorer, drawn(8, LENGTH, 50)), kinds=torch.ones(8, dtype=torch.long))
    assert torch.isfinite(RankerTask(scorer.ranker, params, block).loss(block))


def test_the_loss_stays_a_number_where_articles_never_return(timely):
    """Nearly all of the sum over the catalogue may be taken away, and what is left is then
    rounding."""
    torch.manual_seed(0)
    rows = torch.stack([torch.randperm(30)[:6] for _ in range(64)])
    catalogue = Catalogue(np.arange(30))
    frame = {
        "session": np.repeat(range(64), 6),
        "aid": rows.flatten().numpy(),
        "ts": START + np.arange(384),
    }
    table = CovisitationIndex(
        covisit(events(pl.DataFrame(frame).with_columns(type=pl.lit("clicks"))), catalogue)
    )
    encoder = Encoder(catalogue.size, 64, dropout=0.4)
    torch.nn.init.constant_(encoder.again.bias, -12.0)
    task = EncoderTask(encoder, PARAMS, table, np.arange(30), 1e-3)
    for _ in range(10):
        loss = task.loss(Session(rows, torch.zeros_like(rows), torch.full_like(rows, -1)))
        assert loss >= 0


def test_every_tenth_session_is_learnt_from_without_its_times():
    torch.manual_seed(0)
    times = drawn(5000, 4, 9).times
    kept = objectives.drop_times(times)
    without = (kept == -1).all(1)
    assert (kept[~without] == times[~without]).all()
    assert 0.08 < without.float().mean() < 0.12


@pytest.mark.parametrize("k", [1, 2, 11, 20, 29])
def test_what_is_expected_after_an_event_does_not_depend_on_later_ones(k, encoder, catalogue):
    session = drawn(16, 30, len(catalogue.ids))
    session.rows[:, 5] = catalogue.nothing
    expected, again = encoded(encoder, session, catalogue.nothing)
    alternative = drawn(16, 37, len(catalogue.ids), seed=1)
    for later in (
        cut(alternative, slice(k, 30)),
        cut(alternative, slice(k, 37)),
        cut(alternative, slice(0, 0)),
        cut(alternative, slice(3)),
    ):
        changed = Session(
            *(torch.cat([a[:, :k], b], 1) for a, b in zip(session, later, strict=True))
        )
        if later.rows.shape[1] == 3:
            changed.rows[:, -1] = catalogue.nothing
        vectors, biases = encoded(encoder, changed, catalogue.nothing)
        torch.testing.assert_close(vectors[:, :k], expected[:, :k], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(biases[:, :k, :k], again[:, :k, :k], atol=1e-4, rtol=1e-5)


def test_what_an_event_changes_is_seen_after_it(encoder, catalogue):
    """Article, kind and time each count, and only from the event on."""
    session = drawn(16, 12, len(catalogue.ids))
    expected, _ = encoded(encoder, session, catalogue.nothing)
    for name, shift in (("rows", 1), ("kinds", 1), ("times", 400_000)):
        values = getattr(session, name).clone()
        values[:, 5] = (values[:, 5] + shift) % {"rows": len(catalogue.ids), "kinds": 3}.get(
            name, 2**62
        )
        vectors, _ = encoded(encoder, session._replace(**{name: values}), catalogue.nothing)
        differs = (vectors - expected).abs().amax(2) > 1e-3
        assert differs[:, 6].float().mean() > 0.9
        assert not differs[:, :5].any()
        assert differs[:, 5].any()


def dense(candidates: Candidates, size: int) -> Tensor:
    """The encoder's score of every row, from candidates that are all rows."""
    zeros = torch.zeros(len(candidates.rows), size)
    return zeros.scatter(1, candidates.rows, candidates.cosine)


def test_serving_computes_what_training_computed(e, catalogue, index, encoder):
    """Every prefix, padded to 20, as its position in the whole session; up to 20 events, of which
    the last is seen."""
    row = catalogue.rows(e.aid)
    columns = (row, catalogue.nothing), (e.kind, -1), (e.ts, -1)
    asked = Session(
        *(torch.from_numpy(prefixes(e, values, padding)[0]) for values, padding in columns)
    )
    assert (asked.rows[:, -1] < catalogue.nothing).any(), "one has 20 events"
    with torch.no_grad():
        _, candidates, _ = Scorer(index, encoder).find_candidates(asked, catalogue.size)
    sequences = Sequences.of(e, row)
    batch = sequences.take(np.arange(len(sequences.length)))
    batch = Session(
        torch.where(batch.rows < 0, catalogue.nothing, batch.rows),
        batch.kinds.clamp(min=0),
        batch.times,
    )
    expected, again = encoded(encoder, batch, catalogue.nothing)
    scores = []
    for i, length in enumerate(sequences.length):
        for now in range(length - 1):
            score = expected[i, now] @ encoder.vectors(torch.arange(catalogue.size)).detach().T
            last = {int(seen): place for place, seen in enumerate(batch.rows[i, : now + 1])}
            for seen, place in last.items():
                score[seen] += again[i, now, place]
            scores.append(score)
    torch.testing.assert_close(
        dense(candidates, catalogue.size), torch.stack(scores), atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("timed", [False, True], ids=["without times", "with times"])
def test_an_unknown_article_in_the_middle_is_as_if_absent(timed, scorer, catalogue):
    session = drawn(40, LENGTH, 50)
    if not timed:
        session = session._replace(times=torch.full_like(session.times, -1))
    unknown = [3, 4, 9, 15]
    session.rows[:, unknown] = torch.tensor(
        [catalogue.nothing, len(catalogue.ids) - 1, len(catalogue.ids) - 2, 10**9]
    )[None].clamp(max=catalogue.nothing)
    kept = [i for i in range(LENGTH) if i not in unknown]
    without = Session(
        *(
            torch.cat([t[:, kept], torch.full((40, len(unknown)), fill)], 1)
            for t, fill in zip(session, (catalogue.nothing, -1, -1), strict=True)
        )
    )
    with torch.no_grad():
        (best, scores), (expected, others) = scorer(*session), scorer(*without)
    torch.testing.assert_close(scores, others, rtol=1e-4, atol=1e-4)
    assert (best == expected).float().mean() > 0.99, "only ties may swap"


# --- What is known of articles and pairs


def test_evidence_equals_a_slow_loop(index, scorer, catalogue):
    session = drawn(10, LENGTH, len(catalogue.ids))
    session.rows[:, 12:] = catalogue.nothing
    asked, candidates, _ = scorer.find_candidates(session, CANDIDATES)
    assert (candidates.rows == catalogue.nothing).any(), (
        "a row without an article is among the candidates"
    )
    evidence = index.evidence(asked.rows, candidates.rows)
    count = candidates.rows.shape[1]
    assert evidence.shape == (10, LENGTH, count, PAIRS + 1)
    seen = 0
    for i, n, k in itertools.product(range(10), range(LENGTH), range(count)):
        row, candidate = int(asked.rows[i, n]), int(candidates.rows[i, k])
        near = index.neighbours[row].tolist()
        expected = torch.zeros(PAIRS + 1)
        if catalogue.nothing not in (row, candidate):
            if candidate in near:
                expected[:PAIRS] = index.pairs[row, near.index(candidate)].float()
                seen += 1
            expected[PAIRS] = row == candidate
        assert evidence[i, n, k].tolist() == expected.tolist()
    assert seen > 100


def test_candidates_equal_a_sum_in_a_dictionary(index, catalogue):
    session = drawn(30, LENGTH, 50)
    session.rows[:, 7] = catalogue.nothing
    session.rows[0] = catalogue.nothing
    session.rows[1, 1:] = catalogue.nothing
    cosine = torch.randn(30, catalogue.size, generator=torch.Generator().manual_seed(0)) * 5
    best_candidates, scores = index.candidates(session.rows, cosine, 30)
    touched, logs = index.covisitation(session.rows, index.is_seen(session.rows))
    for i, rows in enumerate(session.rows.tolist()):
        total = dict.fromkeys(range(catalogue.size), 0.0)
        for age, row in enumerate(reversed([row for row in rows if row != catalogue.nothing])):
            total[row] += 0.9**age
            for near, weight in zip(
                index.neighbours[row].tolist(), index.weights[row].tolist(), strict=True
            ):
                total[near] += weight * 0.6**age
        assert total[catalogue.nothing] == 0
        table = {row: np.log(1 + value / 1e-3) for row, value in total.items()}
        assert logs[i].numpy() == pytest.approx(
            np.array([table[row] for row in touched[i].tolist()]), rel=1e-4, abs=1e-4
        )
        sums = {
            row: table[row] + 0.2 * float(cosine[i, row]) + float(index.prior[row]) for row in table
        }
        best = sorted(sums, key=sums.__getitem__, reverse=True)[:30]
        assert best_candidates.rows[i].tolist() == best
        assert scores[i].numpy() == pytest.approx(
            np.array([sums[row] for row in best]), rel=1e-4, abs=1e-4
        )
        assert best_candidates.table[i].numpy() == pytest.approx(
            np.array([table[row] for row in best]), rel=1e-4, abs=1e-4
        )
        assert best_candidates.cosine[i].tolist() == cosine[i][best].tolist()


def test_popularity_alone_decides_where_nothing_is_known(index, catalogue, e):
    best_candidates, _ = index.candidates(torch.full((1, LENGTH), catalogue.nothing), None, LENGTH)
    weight = np.bincount(
        catalogue.rows(e.aid), np.exp((e.ts - e.ts.max()) / (60 * 86_400_000)), catalogue.size
    )
    assert best_candidates.rows[0].tolist() == np.argsort(-weight, kind="stable")[:LENGTH].tolist()


def test_articles_start_where_two_steps_along_the_table_lead(index):
    drawn = torch.randn(len(index.prior), 6, generator=torch.Generator().manual_seed(0))
    near, weights = index.neighbours.numpy(), index.weights.numpy()
    together = np.zeros((len(near), len(near)))
    for a, b in itertools.product(range(len(near)), range(near.shape[1])):
        together[a, near[a, b]] += weights[a, b]
        together[near[a, b], a] += weights[a, b]
    alone = ~together.any(1)

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)

    once = unit(together @ drawn.numpy())
    expected = np.where(alone[:, None], unit(drawn.numpy()), unit(once + unit(together @ once)))
    assert 0 < alone.sum() < len(alone) / 2
    assert propagate(index, drawn).numpy() == pytest.approx(expected, abs=1e-5)


def test_newest_equals_a_slow_loop():
    rows = torch.randint(0, 4, (20, 9), generator=torch.Generator().manual_seed(0))
    is_known = rows < 3
    is_newest = newest(rows, is_known)
    for i, now, seen in itertools.product(range(20), range(9), range(9)):
        later = rows[i, seen + 1 : now + 1].tolist()
        expected = seen <= now and bool(is_known[i, seen]) and int(rows[i, seen]) not in later
        assert bool(is_newest[i, now, seen]) == expected


def test_pauses_by_hand():
    times = torch.tensor([[0, 999, 1999, 4999, 4998, -1, 10**6, 1_007_000, 10**13, -1]])
    assert pauses(times).tolist() == [[1, 2, 3, 1, 0, 0, 4, 15, 0, 0]]


# --- The order of time


@pytest.mark.parametrize("since", [None, 20, 49, 57, 58, 1000])
def test_blocks_hold_exactly_the_newest_sessions(since, e):
    """With a parent, those that are new to it."""
    is_new = None
    if since is not None:
        is_new = e.started() > START + since * 60_000
    number = blocks.numbers(e, is_new, NEWEST, BLOCKS)
    is_counted = e.position == 1
    starts = e.started()[is_counted]
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    within = number[is_counted][order]
    new = (
        starts > START + since * 60_000
        if since is not None
        else np.arange(len(starts)) >= int(0.85 * len(starts))
    )
    if new.sum() < BLOCKS:
        new = np.arange(len(starts)) >= len(starts) - max(BLOCKS, int(NEWEST * len(starts)))
    assert (within > 0).tolist() == new.tolist(), (
        "each new session is in one block, no old one in any"
    )
    assert (np.diff(within) >= 0).all(), "in the order of time"
    assert set(within[new]) == {*range(1, BLOCKS + 1)}
    counts = np.bincount(within[new])[1:]
    assert max(counts) - min(counts) <= 1
    for session in np.unique(e.session):
        assert len(set(number[e.session == session])) == 1


def test_late_sessions_are_in_blocks_though_old_ones_started_after_them(e):
    late = np.unique(e.session)[[2, 5, 7]]
    is_new = np.isin(e.session, late) | (e.started() > START + 40 * 60_000)
    number = blocks.numbers(e, is_new, NEWEST, BLOCKS)
    assert set(number[np.isin(e.session, late) & (e.position == 1)]) == {1}
    assert set(number[~is_new]) == {0}
    assert number.max() == BLOCKS


@pytest.mark.parametrize(
    "starts", [[0], [0, 0, 0], [0, 1], [0] * 8 + [1] * 3, [*range(40), *[40] * 30]]
)
def test_sessions_that_start_together_are_in_one_block(starts):
    times = np.repeat(START + np.array(starts), 2)
    e = events(
        pl.DataFrame(
            {"session": np.repeat(range(len(starts)), 2), "aid": 1, "ts": times, "type": "clicks"}
        )
    )
    number = blocks.numbers(e, None, NEWEST, BLOCKS)
    for start in np.unique(e.started()):
        assert len(set(number[e.started() == start])) == 1
    assert set(number) - {0} == {*range(1, number.max() + 1)}, "no block is empty"
    assert number[e.started() == e.started().max()].min() == number.max() > 0


# --- Batches


def made_batches(groups: list[int], size: int, seed: int = 0, **more: int) -> Batches:
    lengths = np.random.default_rng(0).integers(2, 50, sum(groups))
    batches = Batches(lengths, groups, size, seed, np.ndarray.tolist)
    for name, value in more.items():
        setattr(batches, name, value)
    return batches


@pytest.mark.parametrize("groups", [[1000], [300, 17, 500]])
def test_an_epoch_has_every_position_at_most_once_and_batches_of_one_group(groups):
    batches = made_batches(groups, 16)
    epoch = [*batches]
    assert len(epoch) == len(batches) == sum(n // 16 for n in groups)
    assert {len(batch) for batch in epoch} == {16}
    positions = [*itertools.chain(*epoch)]
    assert len(set(positions)) == len(positions)
    assert set(positions) <= set(range(sum(groups)))
    group = np.repeat(np.arange(len(groups)), groups)
    assert all(len(set(group[batch])) == 1 for batch in epoch)
    spread = [np.ptp(batches.lengths[batch]) for batch in epoch]
    assert np.mean(spread) < 10, "sessions of a batch are about as long"


def test_the_order_depends_on_seed_and_epoch_alone():
    first, again = made_batches([500], 16), made_batches([500], 16)
    epochs = [[*first], (first.set_epoch(1), [*first])[1], (first.set_epoch(2), [*first])[1]]
    again.set_epoch(2)
    assert [*again] == epochs[2]
    again.set_epoch(0)
    assert [*again] == epochs[0]
    everything = [*epochs, [*made_batches([500], 16, seed=1)]]
    assert all(a != b for a, b in itertools.combinations(everything, 2))


@pytest.mark.parametrize("processes", [2, 3])
def test_the_shares_of_the_processes_are_the_whole_batch(processes):
    whole = [*made_batches([200, 100], 16)]
    shares = [
        [*made_batches([200, 100], 16, rank=rank, processes=processes)] for rank in range(processes)
    ]
    assert [sorted(itertools.chain(*halves)) for halves in zip(*shares, strict=True)] == [
        sorted(batch) for batch in whole
    ]


def test_batches_go_on_in_the_middle_of_an_epoch():
    undisturbed, killed = made_batches([300], 16, epoch=3), made_batches([300], 16, epoch=3)
    expected = [*undisturbed]
    before = list(itertools.islice(killed, 7))
    killed.done = 7
    state = json.loads(json.dumps(killed.state_dict()))
    resumed = made_batches([300], 16)
    resumed.load_state_dict(state)
    resumed.set_epoch(3)
    assert [*before, *resumed] == expected
    resumed.set_epoch(4)
    assert len([*resumed]) == len(resumed), "the next epoch begins at its beginning"


def test_sequences_by_hand():
    lengths = [3, 1, LONGEST + 1, 2 * LONGEST + 2]
    position = np.concatenate([np.arange(n) for n in lengths])
    n = len(position)
    e = Events(
        np.repeat(np.arange(4), lengths),
        np.arange(n),
        100 + np.arange(n),
        np.arange(n) % 3,
        position,
    )
    sequences = Sequences.of(e, 1000 + np.arange(n))
    assert sequences.length.tolist() == [3, LONGEST, LONGEST, LONGEST, 2]
    rows, kinds, times = sequences.take(np.array([4, 0]))
    assert rows.tolist() == [[1000 + n - 2, 1000 + n - 1, -1], [1000, 1001, 1002]]
    assert kinds.tolist() == [[(n - 2) % 3, (n - 1) % 3, -1], [0, 1, 2]]
    assert times.tolist() == [[100 + n - 2, 100 + n - 1, -1], [100, 101, 102]]


# --- The ranker's training


def asked(scorer: Scorer, session: Session, seed: int = 0) -> Block:
    """What `scorer` finds for sessions, of which each has some label."""
    with torch.no_grad():
        session, candidates, _ = scorer.find_candidates(session, CANDIDATES)
    draw = np.random.default_rng(seed)
    count = len(candidates.rows)
    labels = candidates.rows[torch.arange(count), torch.from_numpy(draw.integers(0, 40, count))]
    kinds = torch.zeros(count, dtype=torch.long)
    return Block(scorer.index, scorer.vectors, session, candidates, labels, kinds)


@pytest.mark.parametrize(
    "unknown", [False, True], ids=["all known", "an unknown one in the middle"]
)
def test_the_ranker_learns_from_what_it_will_be_asked(unknown, scorer, catalogue):
    """A batch is narrower than what is served, but the scores are the same."""
    session = drawn(64, LENGTH, 50)
    session.rows[:, 8:] = session.kinds[:, 8:] = session.times[:, 8:] = -1
    session.rows[:, 8:] = catalogue.nothing
    if unknown:
        session.rows[:, 3] = len(catalogue.ids) - 1
    block = asked(scorer, session)
    task = RankerTask(scorer.ranker, PARAMS, block)
    (batch,) = [*ranker_batches([block], 64, 0)]
    assert batch.session.rows.shape[1] < LENGTH
    order = [
        (batch.session.rows[i] == block.session.rows[:, : batch.session.rows.shape[1]]).all(1)
        for i in range(64)
    ]
    with torch.no_grad():
        served = task.scores(block)[[int(same.nonzero()[0, 0]) for same in order]]
        torch.testing.assert_close(task.scores(batch), served, rtol=1e-4, atol=1e-4)


def test_the_ranker_s_loss_equals_a_slow_softmax(scorer, timely):
    block = asked(scorer, drawn(30, LENGTH, 50))
    block = replace(block, kinds=torch.arange(30) % 3)
    task = RankerTask(scorer.ranker, PARAMS, block)
    losses, weights = [], []
    for scores, rows, label, kind in zip(
        task.scores(block), block.candidates.rows, block.labels, block.kinds, strict=True
    ):
        losses.append(-scores.softmax(0)[rows.tolist().index(int(label))].log())
        weights.append([1.0, 3.0, 0.5][kind])
    expected = (torch.stack(losses) * torch.tensor(weights)).sum() / sum(weights)
    assert task.loss(block).item() == pytest.approx(expected.item(), rel=1e-4)


def test_only_prefixes_whose_label_was_found_are_learnt_from(scorer, catalogue):
    block = asked(scorer, drawn(30, LENGTH, 50))
    missed = replace(
        block, labels=torch.where(torch.arange(30) % 3 == 0, len(catalogue.ids) - 1, block.labels)
    )
    assert missed.answerable().labels.tolist() == [
        label for i, label in enumerate(block.labels.tolist()) if i % 3
    ]


# --- One stage of a training


class Line(Task):
    """The smallest task: notes the rate of each step."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1), 0, 1e-3)
        self.rates: list[float] = []

    def loss(self, batch: Tensor) -> Tensor:
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return (self.network(batch) ** 2).mean()


def ones(index: np.ndarray) -> Tensor:
    return torch.ones(len(index), 1)


@pytest.mark.parametrize("steps", [1, 2, 8, 9, 10, 60])
def test_the_rate_rises_and_falls_whatever_the_number_of_steps(steps, tmp_path):
    task = Line()
    batches = Batches(np.ones(2 * steps), [2 * steps], 2, 0, ones)
    with silence_libraries():
        fit(Stage("line", task, batches), TrainingContext(tmp_path))
    assert len(task.rates) == steps
    assert max(task.rates) <= 1e-3 + 1e-9
    assert all(rate > 0 for rate in task.rates)
    if steps == 60:
        assert int(np.argmax(task.rates)) == pytest.approx(5, abs=1)
        assert task.rates[-1] < 1e-5


# --- A whole training


def rows() -> pl.DataFrame:
    """A few sessions, and newer ones that have articles which the older ones lack."""
    new = sessions(40, articles=60, seed=1, first=160)
    season = 10**6 * (pl.col("session") // 3)
    new = new.with_columns(
        aid=pl.when(pl.col("aid") % 3 == 0).then(pl.col("aid") + season).otherwise("aid")
    )
    return pl.concat([sessions(160, articles=60), new])


@dataclass
class Undisturbed:
    """A training as it should be, and what was seen of it."""

    trained: TrainingResult
    folder: Path
    reports: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    answered: list[SimpleNamespace] = field(default_factory=list)
    """Blocks, with the encoder's vectors as they were drawn."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    witness = Undisturbed(None, folder)  # type: ignore[arg-type]

    def answer_block(
        prequential: PrequentialTraining, index: CovisitationIndex, mask: np.ndarray
    ) -> Block:
        block = original(prequential, index, mask)
        starts = prequential.history.starts[mask]
        witness.answered.append(
            SimpleNamespace(
                history=prequential.history, start=starts.min(), end=starts.max() + 1, block=block
            )
        )
        return block

    original = PrequentialTraining.answer_block
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "LOG_EVERY", 1)
        patch.setattr(PrequentialTraining, "answer_block", answer_block)
        report = lambda share, metrics: witness.reports.append((share, dict(metrics)))  # noqa: E731
        witness.trained = SPEC.train(rows(), PARAMS, TrainingContext(folder, report=report))
    return witness


def test_a_block_is_answered_by_what_knows_nothing_of_it(undisturbed):
    assert len(undisturbed.answered) == BLOCKS
    torch.manual_seed(PARAMS.seed)
    history = undisturbed.answered[0].history
    every = torch.arange(history.catalogue.size)
    untouched = Encoder(history.catalogue.size, PARAMS.dim).vectors(every)
    for seen in undisturbed.answered:
        earlier = np.unique(history.rows[history.starts < seen.start])
        is_inside = (history.starts >= seen.start) & (history.starts < seen.end)
        new = np.setdiff1d(np.unique(history.rows[is_inside]), earlier)
        assert len(new), "the block has articles of its own"
        assert every[seen.block.index.is_seen(every)].tolist() == earlier.tolist()
        for lacking in (
            seen.block.session.rows,
            seen.block.index.neighbours,
            seen.block.candidates.rows,
        ):
            articles = lacking[seen.block.index.is_seen(lacking.long())]
            assert not np.isin(articles.numpy(), new).any()
        assert np.isin(seen.block.labels.numpy(), new).any(), "though some are the right answer"
        torch.testing.assert_close(
            seen.block.vectors[new], untouched[new].detach(), atol=1e-5, rtol=1e-5
        )
        moved = (seen.block.vectors[earlier] - untouched[earlier]).norm(dim=1)
        assert (moved > 1e-3).all(), "those of known articles were learnt"
    last = undisturbed.answered[-1]
    assert len(last.block) == (history.events.position[history.starts >= last.start] > 0).sum()


def test_what_is_validated_is_what_each_model_would_have_served(undisturbed):
    block = undisturbed.answered[-1].block
    held = block.take(np.arange(len(block) // 2, len(block)))
    weights = load_file(undisturbed.trained.weights)
    ranker = Ranker(held.index.articles.numpy())
    ranker.load_state_dict(
        {k.removeprefix("ranker."): v for k, v in weights.items() if k.startswith("ranker.")}
    )
    scores = rank(ranker, held.index, held.vectors, held.session, held.candidates)
    served = {
        "table": Scorer(held.index)(*held.session)[0],
        "encoder": held.candidates.rows[:, :LENGTH],
        "ranker": held.candidates.rows.gather(1, scores.topk(LENGTH).indices),
    }
    for name, rows in served.items():
        recall = metrics.recall(rows.numpy(), held.labels.numpy()).mean()
        validated = undisturbed.trained.metrics[f"validation_{name}"]
        assert validated == pytest.approx(recall, abs=1e-9), name


def test_reports_rise_from_nothing_to_the_whole(undisturbed):
    shares = [share for share, _ in undisturbed.reports]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1
    assert shares[-1] == pytest.approx(1)
    assert max(b - a for a, b in itertools.pairwise(shares)) < 0.2


def test_reports_carry_the_newest_validation(undisturbed):
    measured = [
        value for name, _, value in undisturbed.trained.curves if name == "validation_recall"
    ]
    reported = [
        metrics["recall@20"] for _, metrics in undisturbed.reports if "recall@20" in metrics
    ]
    assert [value for value, _ in itertools.groupby(reported)] == [
        value for value, _ in itertools.groupby(measured)
    ]
    assert undisturbed.reports[0][1] == {}


def test_reports_carry_what_a_search_gives_up_by(undisturbed):
    """`TrainingContext.report` promises `validation`, and `flows.tune` looks at nothing else."""
    reported = [metrics for _, metrics in undisturbed.reports if metrics]
    assert reported
    assert all(0 <= metrics["validation"] <= 1 for metrics in reported)


# --- Kills


KILLED = """
import os, signal, sys
from pathlib import Path
from models.session_recommender import SPEC, fit, objectives
from models.spec import TrainingContext

from tests.models.test_training import PARAMS, rows
fit.CHECKPOINT_STEPS = objectives.LOG_EVERY = 1

def report(share, metrics):
    if share >= float(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

SPEC.train(rows(), PARAMS, TrainingContext(Path(sys.argv[1]), report=report))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "stage"),
    [(0.45, "older"), (0.66, "block-*"), (0.9, "ranker")],
    ids=["encoder", "block", "ranker"],
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    share, stage, undisturbed, tmp_path, monkeypatch
):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), str(share)], cwd=ROOT
    )
    assert done.returncode == -signal.SIGKILL
    (last,) = (
        tmp_path.glob(f"{stage}/last.ckpt")
        if stage != "block-*"
        else sorted(tmp_path.glob(f"{stage}/last.ckpt"))[-1:]
    )
    assert not (last.parent / "done.json").exists()
    assert (
        len([*tmp_path.glob("*/done.json")])
        == {"older": 0, "block-*": 2, "ranker": 1 + BLOCKS}[stage]
    )
    for name in ("new.ckpt", "new.json", "best.safetensors"):
        (last.parent / name).write_bytes(b"cut off in the middle")

    def copy(scorer: Scorer, catalogue: Catalogue, path: Path) -> Path:
        scorer.eval()
        return Path(shutil.copyfile(undisturbed.trained.onnx, path))

    # An export takes longer than the training. One of the three is enough: for the others, parity
    # says whether the undisturbed training's file answers as this training's model.
    if stage != "ranker":
        monkeypatch.setattr(export, "export", copy)
    shares = []
    monkeypatch.setattr(objectives, "LOG_EVERY", 1)
    again = SPEC.train(
        rows(), PARAMS, TrainingContext(tmp_path, report=lambda share, _: shares.append(share))
    )
    assert shares[0] >= share, "it went on, and did not begin again"
    assert again.curves == undisturbed.trained.curves
    assert again.validation == undisturbed.trained.validation
    assert again.parity == undisturbed.trained.parity
    assert again.onnx.read_bytes() == undisturbed.trained.onnx.read_bytes()
    assert again.weights.read_bytes() == undisturbed.trained.weights.read_bytes()


def run_stages(
    work: TrainingContext, frame: pl.DataFrame | None = None, params: Params = PARAMS
) -> PrequentialTraining:
    """As `training.train` does it, without a file."""
    e = events(rows() if frame is None else frame)
    with silence_libraries(), one_thread(), isolate_rng():
        torch.manual_seed(params.seed)
        prequential = PrequentialTraining(History(e, Catalogue(np.unique(e.aid))), params, work)
        for stage in prequential.stages():
            fit(stage, work)
            prequential.record(stage)
        prequential.select()
    return prequential


class Enough(Exception):
    """Raised by a report."""


def test_what_a_report_raises_ends_the_training_and_a_rerun_goes_on(
    undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(objectives, "LOG_EVERY", 1)
    monkeypatch.setattr(fit_module, "CHECKPOINT_STEPS", 1)
    ends, shares = [], []

    def report(share: float, metrics: dict[str, float]) -> None:
        shares.append(share)
        if len(shares) % 17 == 0:
            ends.append(share)
            raise Enough

    for _ in range(50):
        try:
            finished = run_stages(TrainingContext(tmp_path, report=report))
            break
        except Enough:
            assert shares[-1] == ends[-1]
    assert len(ends) >= 3
    assert ends == sorted(set(ends)), "each rerun came further"
    assert finished.curves == undisturbed.trained.curves
    assert finished.validated[finished.chosen] == undisturbed.trained.validation
    weights = load_file(undisturbed.trained.weights)
    assert all(
        torch.equal(value, weights[f"encoder.{name}"])
        for name, value in finished.encoder.state_dict().items()
    )


def test_nothing_is_written_by_a_training_that_may_not_write_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "CHECKPOINT_STEPS", 1)
    left = [5]

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    def before_write() -> None:
        left[0] -= 1
        if not left[0]:
            left.append(files())
            raise Enough

    with pytest.raises(Enough):
        run_stages(TrainingContext(tmp_path, before_write=before_write))
    assert len(left[1]) == 1, "a checkpoint"
    assert files() == left[1]


# --- Several processes


def write_report(file: Path, share: float, metrics: dict[str, float]) -> None:
    with file.open("a") as out:
        out.write(f"{os.getpid()} {share}\n")


@dataclass
class Witness:
    """Notes which process takes which sessions."""

    take: Callable[[np.ndarray], Session]
    file: Path

    def __call__(self, index: np.ndarray) -> Session:
        with self.file.open("a") as out:
            out.write(json.dumps([os.getpid(), index.tolist()]) + "\n")
        return self.take(index)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path, monkeypatch):
    """With sessions of one length, the mean over both halves of a batch is the mean over the batch,
    so without dropout the steps are the same but for rounding and for whose times are dropped.
    That moves a few of some 300 answers."""
    monkeypatch.setattr(training, "BLOCKS", 1)
    original = PrequentialTraining.batches

    def witnessed(self: PrequentialTraining, mask: np.ndarray) -> Batches:
        batches = original(self, mask)
        batches.take = Witness(batches.take, self.work.folder / f"{len(batches.lengths)}.jsonl")
        return batches

    monkeypatch.setattr(PrequentialTraining, "batches", witnessed)
    frame = sessions(800, articles=120).filter(pl.len().over("session") >= 5)
    frame = frame.sort("session", "ts").group_by("session", maintain_order=True).head(5)
    params = PARAMS.model_copy(update={"dropout": 0.0, "lr": 5e-3})
    trainings = []
    for name, trainer in (("single", {}), ("distributed", {"devices": 2, "strategy": "ddp_spawn"})):
        (tmp_path / name).mkdir()
        report = partial(write_report, tmp_path / name / "reports")
        work = TrainingContext(tmp_path / name, trainer=trainer, report=report)
        trainings.append(run_stages(work, frame, params))

    single, distributed = trainings
    for a, b in zip(single.curves, distributed.curves, strict=True):
        assert a[:2] == b[:2]
        assert a[0] == "train_loss" or a[2] == pytest.approx(b[2], abs=0.03)
    assert distributed.validated == pytest.approx(single.validated, abs=0.03)

    for file in sorted((tmp_path / "distributed").glob("*.jsonl")):
        taken = [json.loads(line) for line in file.read_text().splitlines()]
        alone = [
            json.loads(line)[1]
            for line in (tmp_path / "single" / file.name).read_text().splitlines()
        ]
        processes = {process for process, _ in taken}
        assert len(processes) == 2
        assert os.getpid() not in processes
        halves = [[index for process, index in taken if process == p] for p in processes]
        assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [
            sorted(batch) for batch in alone
        ]
        assert {len(half) for halves_ in halves for half in halves_} == {PARAMS.batch_size // 2}
    reports = [
        line.split() for line in (tmp_path / "distributed" / "reports").read_text().splitlines()
    ]
    shares = [float(share) for _, share in reports]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
