"""A/B tests on the tiny model type: who may be tested, and what the release log then says."""

import pytest

from flows.experiment import experiment
from flows.ingest import ingest
from flows.promote import promote
from flows.publish import publish
from flows.train import train
from kreislauf.release import releases
from kreislauf.release.permission import ExperimentRefused, PublishRefused
from serving import split
from tests.conftest import aliases

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


@pytest.mark.slow
def test_a_test_starts_grows_hides_and_ends(tiny, orders, triton):
    with pytest.raises(ExperimentRefused, match="Nothing of tiny is live"):
        experiment(tiny, 1)
    ingest(orders(0, 20, threshold=50), tiny)
    train(tiny)
    promote(tiny, 1)
    publish(tiny, 1)
    train(tiny, {"steps": 30})
    with pytest.raises(ExperimentRefused, match="version 2 was never judged"):
        experiment(tiny, 2)
    assert promote(tiny, 2).outcome == "refuse"
    with pytest.raises(ExperimentRefused, match="version 2 was refused by the gate"):
        experiment(tiny, 2)
    ingest(orders(20, 40, threshold=120), tiny)
    assert (train(tiny).number, promote(tiny, 3).outcome) == (3, "inconclusive")
    with pytest.raises(ValueError, match="share is 2"):
        experiment(tiny, 3, share=2)
    assert len(releases.history(tiny)) == 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kreislauf.release.golden.compare", lambda *_: "everything")
        with pytest.raises(PublishRefused, match="answers otherwise"):
            experiment(tiny, 3)
    assert {path.name for path in (triton["repository"] / tiny).glob("[0-9]*")} == {"1"}
    assert "versions: 3" not in (triton["repository"] / tiny / "config.pbtxt").read_text()

    first_release = experiment(tiny, 3, share=0.1, who="anna")
    assert (
        first_release.champion,
        first_release.challenger,
        first_release.previous,
        first_release.share,
        first_release.who,
    ) == (
        1,
        3,
        None,
        0.1,
        "anna",
    )
    assert aliases(tiny) == {"champion": 1, "challenger": 3}
    grown = experiment(tiny, 3, share=0.5)
    users = [str(number) for number in range(1_000)]
    before, after = (
        {u for u in users if split.assign(r, u).arm == "challenger"} for r in (first_release, grown)
    )
    assert before < after
    assert "never shown" in experiment(tiny, 3, share=0).reason
    ended = experiment(tiny)
    assert (ended.challenger, ended.share, ended.champion, ended.watermark) == (
        None,
        0,
        1,
        first_release.watermark,
    )
    assert aliases(tiny) == {"champion": 1}
    again = experiment(tiny, 3)
    assert again.salt not in ("", first_release.salt)
    ingest(orders(40, 70, threshold=120), tiny)
    assert (train(tiny).number, promote(tiny, 4).outcome) == (4, "promote")
    published = publish(tiny, 4)
    assert (published.champion, published.challenger, published.previous) == (4, None, 1)
    assert published.reason.endswith("The A/B test of version 3 against version 1 ends.")


@pytest.mark.slow
def test_a_person_makes_the_winner_live_though_the_gate_was_not_certain(tiny, orders):
    ingest(orders(0, 20, threshold=50), tiny)
    train(tiny)
    promote(tiny, 1)
    publish(tiny, 1)
    ingest(orders(20, 40, threshold=120), tiny)
    assert (train(tiny).number, promote(tiny, 2).outcome) == (2, "inconclusive")
    with pytest.raises(PublishRefused, match="not promoted but judged inconclusive"):
        publish(tiny, 2)
    experiment(tiny, 2, share=0)
    with pytest.raises(PublishRefused, match="not promoted but judged inconclusive"):
        publish(tiny, 2)
    experiment(tiny, 2, share=0.1)
    winner = publish(tiny, 2, who="ada")
    assert (winner.champion, winner.challenger, winner.previous) == (2, None, 1)
    assert winner.reason.startswith("A person chose it in its A/B test. The gate had not decided:")
    assert winner.reason.endswith("The A/B test of version 2 against version 1 ends.")
    assert winner.who == "ada"
