"""Watch the live model: has the shop changed, or is its data faulty?"""

from prefect import flow, get_run_logger

from kreislauf import registry
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

    Returns:
        The finding; None if nothing is live, or if the champion was deleted in MLflow, with all
        that it is compared with. Evidently's report is an artifact of the champion's MLflow run.

    Raises:
        ValueError: `confirmations` is not from 1 to `out_of`.
        registry.RegistryError: MLflow does not answer, or lacks a file of the champion.
    """
    logger = get_run_logger()
    given: dict = {"confirmations": confirmations, "out_of": out_of}
    given |= {"min_gain": min_gain, "retraining_cost": retraining_cost}
    former = {"worth": worth, "cost": cost, "needed": needed, "of": of}
    for warning in renamed.warnings(former):
        logger.warning(warning)
    settings = policy.Settings.of(spec.load(model).policy, renamed.parameters(given, former))
    version = live_version(model)
    if version is None:
        return None
    measured, finding = look(model, version, window_days, settings.min_gain)
    action = policy.decide(finding, policy.standing(finding), settings)
    record(finding, measured, action)
    draw_page(model)
    logger.info(f"{finding.verdict.capitalize()}: {finding.reason} {action.sentence}")
    return finding.model_copy(update={"action": action.sentence})


def look(
    model: str, version: int, window_days: float, min_gain: float, until: int | None = None
) -> tuple[measurement.Measurement, Finding]:
    """What the newest window says of a version; with `until` (ms since 1970 UTC), the newest one
    there was then. Nothing is recorded."""
    measured = measure_tails(model, version, window_days, until)
    if until is None:
        measured = add_remarks(measured, window_days)
    if not measured.newest_fault:  # The window is measured once the fault is left out of it.
        measured = measure_reactions(measure(measured))
    signals = measurement.compare(measured)
    diagnosis = diagnose(measured, signals, min_gain)
    if diagnosis.noise_only:
        diagnosis = diagnosis.keeping_window(measure_keeping(measured))
    agreement = measure_agreement(measured, diagnosis.meaning_fault)
    return measured, Finding.of(measured, signals, diagnosis, agreement)


def live_version(model: str) -> int | None:
    """The champion; None, with a word why, if there is none, or nothing to compare it with."""
    live = releases.current(model)
    if live is None:
        get_run_logger().info(f"Nothing of {model} is live to be watched: run retrain first.")
        return None
    if registry.lookup(model, live.champion) is None:
        get_run_logger().warning(
            f"{model} version {live.champion} is live and was deleted in MLflow, with all that it "
            "is compared with. The next version that retrain makes live is watched again."
        )
        return None
    return live.champion
