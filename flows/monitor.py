"""Watch the live model: has the world changed, or is the data broken? If so, say so with an
event."""

from prefect import flow, get_run_logger

from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import act, tell
from kreislauf.release import releases
from tasks.monitor import look

COST = 0.25
"""See `monitor`; benchmarks/frequency.py has what others come to."""


@flow
def monitor(
    model: str = "session_recommender",
    window_days: float = 7.0,
    needed: int = 1,
    of: int = 1,
    worth: float | None = None,
    cost: float = COST,
) -> Finding:
    """Diagnose the newest window, note it, and act: ask for a retraining, or shut out broken data.

    Args: model: Name of the model type. window_days: Length of the window before the data's
        watermark, at most back to the champion's own hold-out. needed: So many of the newest `of`
        windows that do not overlap must say that the world has changed before a
            retraining is asked for.
        of: See `needed`.
        worth: Smallest gain of the metric that is worth a training; by default the policy's
            `decay`.
        cost: What a training costs, as points of the metric times days: a retraining is asked for
            when so much has been lost since the last one (0.25 is 0.025 for ten days). To pay when
            one has lost as much is at most twice as dear as to know the future: Karlin, Manasse,
            Rudolph and Sleator, "Competitive snoopy caching", 1988.

    Returns: What was found. Evidently's report is an artifact of the champion's MLflow run and, in
        short, of this run.

    Raises: RuntimeError: nothing is live yet. ValueError: `needed` is not from 1 to `of`.
        registry.RegistryError: the champion was registered by an earlier Kreislauf, or MLflow does
        not answer.
    """
    if not 1 <= needed <= of:
        raise ValueError(
            f"needed is {needed} and of is {of}: ask for 1 to {of} of the newest {of} windows."
        )
    live = releases.current(model)
    if live is None:
        raise RuntimeError(
            f"Nothing of {model} is live, so nothing can be watched: run retrain first."
        )
    finding = look(model, live.champion, window_days, worth)
    tell(finding)
    action = act(finding, needed, of, cost)
    get_run_logger().info(f"{finding.verdict.capitalize()}: {finding.reason} {action}")
    return finding.model_copy(update={"action": action})
