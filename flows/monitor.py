"""Watch the live model: has the shop changed, or is its data faulty?"""

from datetime import datetime

from prefect import flow, get_run_logger

from kreislauf import clock, registry
from kreislauf.monitoring import measurement, policy, renamed
from kreislauf.monitoring.diagnosis import diagnose
from kreislauf.monitoring.finding import Finding
from kreislauf.release import releases
from models import spec
from tasks.monitor import (
    add_remarks,
    measure,
    measure_agreement,
    measure_keeping,
    measure_reactions,
    measure_tails,
    record,
)
from tasks.page import draw_page


@flow
def monitor(
    model: str = "session_recommender",
    window_days: float = 7.0,
    confirmations: int = 1,
    out_of: int = 1,
    min_gain: float | None = None,
    retraining_cost: float = policy.RETRAINING_COST,
    worth: float | None = None,
    cost: float | None = None,
    needed: int | None = None,
    of: int | None = None,
    until: datetime | None = None,
) -> Finding | None:
    """Measure the newest window, diagnose it, decide what follows, record it.

    Args:
        model: Name of the model type.
        window_days: Length of the window, at most back to the champion's own hold-out.
        confirmations: How many of the newest `out_of` windows that do not overlap must say concept
            drift before a retraining is asked for.
        out_of: See `confirmations`.
        min_gain: Smallest gain that is worth a training; by default the policy's `decay`.
        retraining_cost: What a training costs, as the metric times days: 0.25 is 0.025 for ten
            days. The regret since the last training has to reach it.
        worth: Former name of `min_gain`, for deployments that still have it.
        cost: Former name of `retraining_cost`.
        needed: Former name of `confirmations`.
        of: Former name of `out_of`.
        until: End of the data, for a window of the past, which is recorded; nothing follows.

    Returns:
        The finding; None if nothing is live, or if the champion was deleted in MLflow.

    Raises:
        ValueError: `confirmations` is not from 1 to `out_of`.
        registry.RegistryError: MLflow does not answer, or lacks a file of the champion.
    """
    given: dict = {"confirmations": confirmations, "out_of": out_of}
    given |= {"min_gain": min_gain, "retraining_cost": retraining_cost}
    former = {"worth": worth, "cost": cost, "needed": needed, "of": of}
    settings = read_settings(model, given, former)
    newest = None if until is None else clock.milliseconds(until) - 1
    version = live_version(model, newest)
    if version is None:
        return None
    measured = add_remarks(measure_tails(model, version, window_days, newest), window_days, newest)
    if not measured.newest_fault:  # The window is measured once the fault is left out of it.
        measured = measure_reactions(measure(measured), newest)
    signals = measurement.compare(measured)
    diagnosis = diagnose(measured, signals, settings.min_gain)
    if diagnosis.noise_only:
        diagnosis = diagnosis.keeping_window(measure_keeping(measured))
    agreement = measure_agreement(measured, diagnosis.meaning_fault)
    finding = Finding.of(measured, signals, diagnosis, agreement)
    action = None
    if newest is None:
        action = policy.decide(finding, policy.standing(finding), settings)
    record(finding, measured, action)
    draw_page(model)
    return with_action(finding, action)


def read_settings(model: str, given: dict, former: dict) -> policy.Settings:
    """Parameters of the decision, of those `given` and those with `former` names, which are
    logged."""
    for warning in renamed.warnings(former):
        get_run_logger().warning(warning)
    return policy.Settings.of(spec.load(model).policy, renamed.parameters(given, former))


def with_action(finding: Finding, action: policy.Action | None) -> Finding:
    """The finding, and what follows from it, which is logged; nothing follows from the past."""
    sentence = ""
    if action is not None:
        sentence = action.sentence
    get_run_logger().info(f"{finding.verdict.capitalize()}: {finding.reason} {sentence}")
    return finding.model_copy(update={"action": sentence})


def live_version(model: str, newest: int | None) -> int | None:
    """The champion, or that of the time when `newest` (ms since 1970 UTC) was; None, with a word
    why, if there is none, or nothing to compare it with."""
    champion = releases.champion(model)
    if newest is not None:
        champion = releases.champion_at(model, newest)
    if champion is None:
        get_run_logger().info(f"Nothing of {model} is live to be watched: run retrain first.")
        return None
    if registry.lookup(model, champion) is None:
        get_run_logger().warning(
            f"{model} version {champion} is live and was deleted in MLflow, with all that it "
            "is compared with. The next version that retrain makes live is watched again."
        )
        return None
    return champion
