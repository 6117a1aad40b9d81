"""An A/B test: a challenger beside the champion, for a share of the users, or unseen in their
shadow."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from flows.publish import mirror
from kreislauf import registry
from kreislauf.experiment import look, running, users
from kreislauf.exposures import Kind
from kreislauf.pages import release as release_page
from kreislauf.registry import questions
from kreislauf.release import permission, publisher_lock, releases, triton
from models import spec
from tasks.page import draw_page
from tasks.publish import hand_over, missing, put_in_service, restored

QUESTION = "In its A/B test"
"""Part of a question about a challenger that was better in its test."""


@flow
def experiment(
    model: str = "session_recommender",
    challenger: int | None = None,
    share: float = 0.1,
    kpi: Kind = "click",
    minimum_effect: float = 0.03,
    guardrails: tuple[Kind, ...] = ("order",),
    who: str | None = None,
) -> releases.Release:
    """Start an A/B test, change its share, or end it. The gateway follows within a second.

    A user stays with a variant as long as the test runs. A changed share moves only the users it
    must, and what is judged begins anew. The flow look judges it, and ends it at the latest when
    its horizon is reached. What is judged is agreed on when a share begins, and stays then.

    Args:
        model: Name of the model type.
        challenger: Version that is tested against the champion; none ends the test. With the
            champion itself two arms get the same, which is a self-test. With 0 a share of the users
            gets no model for a week, but the answer that is good for everyone.
        share: Share of the users, 0 to 1, that get the challenger. At 0 nobody does, but it is
            asked, too, and compared.
        kpi: What people shall do more often with an answer of the challenger.
        minimum_effect: How much more often, to be worth finding: 0.03 for 3 %. Smaller ones take
            longer to find. With no model it has no use.
        guardrails: What people must not do less often.
        who: Name for the release log; default: the name of this run.

    Returns:
        The entry of the release log that is now in force.

    Raises:
        permission.ExperimentRefused: nothing is live, or the gate has refused this version or never
            saw it.
        permission.PublishRefused: Triton does not answer the golden requests as registered, or the
            version ended it, now or earlier.
        ValueError: `share` is not between 0 and 1, or what is to be judged cannot be.
        releases.ReleaseConflict: somebody else published meanwhile.
    """
    check_share(model, share)
    terms = running.Terms(kpi=kpi, minimum_effect=minimum_effect, guardrails=guardrails)
    with publisher_lock.exclusive(model):
        live = live_release(model)
        who = who or flow_run.get_name() or "a person, from Python"
        absent = missing(model, live.versions)
        release = split_users(live, challenger, share, who, absent)
        agree(model, terms)
        triton.serve(model, release.versions)
        mirror(release)
    withdraw_question(live, release)
    horizon = plan(model)
    create_markdown_artifact(
        key=f"ab-test-{model.replace('_', '-')}",
        markdown=release_page.experiment_page(release, horizon),
        description="Who gets which version in an A/B test",
    )
    draw_page(model)
    return release


def check_share(model: str, share: float) -> None:
    """Raises ValueError for what is no share, ExperimentRefused if the model type has no users."""
    if not 0 <= share <= 1:
        raise ValueError(
            f"share is {share}: give the share of the users that get the challenger, 0 to 1."
        )
    if not spec.load(model).is_served:
        raise permission.ExperimentRefused(
            f"{model} is only asked in batches, so that no user is shown one version or the other."
        )


def live_release(model: str) -> releases.Release:
    """The release in force. Raises ExperimentRefused if there is none."""
    live = releases.current(model)
    if live is None:
        raise permission.ExperimentRefused(
            f"Nothing of {model} is live: a challenger needs a champion. Run retrain first."
        )
    return live


def split_users(
    live: releases.Release, challenger: int | None, share: float, who: str, absent: list[int]
) -> releases.Release:
    """Write the release that says who gets what, after Triton has answered the challenger's golden
    requests as registered; on failure it serves what it served before. Versions that are `absent`
    are left out."""
    if challenger is None:
        return end(live, who, absent)
    if challenger in (releases.NO_MODEL, live.champion) and share in (0, 1):
        raise ValueError(
            f"share is {share}: nothing would be compared. Give a share between 0 and 1."
        )
    why = f"{reason(live, challenger, share)}{ending(live, challenger)}"
    if challenger == releases.NO_MODEL:
        return write(live, why, who, absent, challenger, share)
    version = registry.get(live.model, challenger)
    permission.check_challenger(version, live)
    with restored(version):
        resident = sorted({*live.versions, challenger}.difference(absent))
        hand_over(version.model, resident)
        put_in_service(version.model, resident, challenger)
        return write(live, why, who, absent, challenger, share)


def end(live: releases.Release, who: str, absent: list[int]) -> releases.Release:
    """Write the release without a challenger, unless nothing changes by it. Versions that are
    `absent` are left out."""
    if live.trial:
        return write(live, f"{live.trial} ends: all users get the champion.", who, absent)
    if absent:
        return write(live, "No A/B test: all users get the champion.", who, absent)
    get_run_logger().info("No A/B test runs, so there is nothing to end.")
    return live


def write(
    live: releases.Release,
    why: str,
    who: str,
    absent: list[int],
    challenger: int | None = None,
    share: float = 0.0,
) -> releases.Release:
    """Write the release with the same champion, and with this challenger or none. Versions that are
    `absent` are left out."""
    return releases.append(
        live.model,
        live.champion,
        why,
        who,
        after=live,
        challenger=challenger,
        share=share,
        is_hold_back=challenger == releases.NO_MODEL,
        watermark=live.watermark,
        missing=absent,
        flow_run=flow_run.get_id(),
    )


def end_test(tested: releases.Release, why: str, who: str) -> bool:
    """End the test of the release, if that is still in force; whether it was. What is served and
    noted follows as in `experiment`."""
    model = tested.model
    with publisher_lock.exclusive(model):
        if releases.current(model) != tested:
            return False
        release = write(tested, why, who, missing(model, tested.versions))
        triton.serve(model, release.versions)
        mirror(release)
    withdraw_question(tested, release)
    return True


def withdraw_question(before: releases.Release, after: releases.Release) -> None:
    """Nobody is asked any more whether a challenger goes live that was better in a test which has
    ended."""
    if before.tested_version is None or before.tested_version == after.tested_version:
        return
    try:
        version = registry.lookup(before.model, before.tested_version)
        if version and QUESTION in (version.question or ""):
            questions.answer(version, "withdrawn, because its A/B test has ended")
    except registry.RegistryError as error:
        get_run_logger().warning(f"The question about the challenger stays. {error}")


def agree(model: str, terms: running.Terms) -> None:
    """Agree on what is judged, unless that was done."""
    test = running.current(model)
    if test is None:
        return
    test = running.agree(test, terms)
    if terms != test.terms.model_copy(update={"plan": None}):
        get_run_logger().warning(
            f"{test.release.trial} goes on as agreed before: {test.sentence()}"
        )


def plan(model: str) -> str:
    """Plan the test that runs, unless that was done; until when it takes, in a sentence."""
    test = running.current(model)
    if test is None:
        return ""
    last = users.until()
    if last is not None and test.terms.plan is None:
        look.plan(test, last)
    agreed = running.read_terms(model, test.number)
    sentence = test.model_copy(update={"terms": agreed}).sentence()
    get_run_logger().info(sentence)
    return sentence


def ending(live: releases.Release, challenger: int) -> str:
    """What ends because this challenger comes, as a further sentence; empty if nothing."""
    is_hold_back = challenger == releases.NO_MODEL
    if not live.trial or (live.challenger, live.is_hold_back) == (challenger, is_hold_back):
        return ""
    return f" {live.trial} ends."


def reason(live: releases.Release, challenger: int, share: float) -> str:
    """Text of the release log's entry."""
    if challenger == releases.NO_MODEL:
        return (
            f"{share:.1%} of the users get no model for {releases.HOLD_BACK_DAYS} days, but the "
            "answer that is good for everyone."
        )
    if challenger == live.champion:
        return f"Self-test: two arms get version {challenger}, one has {share:.1%} of the users."
    if share == 0:
        return f"Version {challenger} shadows the champion: it is asked, too, and never shown."
    return f"A/B test: version {challenger} for {share:.1%} of the users."
