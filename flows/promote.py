"""Judge a challenger: champion and challenger answer the same later hold-out; a paired interval
decides."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from kreislauf import events, registry
from kreislauf.evaluation import gate
from kreislauf.release import releases
from tasks.page import draw_page
from tasks.promote import choose_challenger, describe, judge, note_decision

EVENTS = {
    "promote": events.MODEL_PROMOTED,
    "refuse": events.MODEL_REFUSED,
    "inconclusive": events.MODEL_INCONCLUSIVE,
}


@flow
def promote(model: str = "session_recommender", version: int | None = None) -> gate.Decision:
    """Decide whether a version may replace the champion. Changes nothing that serves.

    Args:
        model: Name of the model type.
        version: The challenger; default: the newest version.

    Returns:
        The decision. It is also emitted as an event, stored on the version, and shown in the
        version's card: an artifact of this run, and an HTML file in the version's MLflow run. A
        version that was judged against today's champion before gets the same decision again.

    Raises:
        registry.RegistryError: no such version, or MLflow does not answer.
    """
    challenger = choose_challenger(model, version)
    champion = releases.champion(model)
    if challenger.decision:
        before = gate.Decision.model_validate_json(challenger.decision)
        if before.champion_version == champion or challenger.number == champion:
            return before
    decision = judge(model, challenger.number, champion)
    note_decision(challenger, decision)
    page = describe(model, challenger.number, decision)
    create_markdown_artifact(
        key=f"card-{model.replace('_', '-')}",
        markdown=page,
        description="Why a version may go live, or not",
    )
    events.emit_model_event(
        EVENTS[decision.outcome],
        model,
        " ".join(decision.reasons),
        version=challenger.number,
        champion=champion,
    )
    # Last: a run that died before does all of it again.
    registry.record_decision(challenger, decision)
    draw_page(model)
    return decision
