"""Names and payloads of the events that Kreislauf emits. The only place that spells them."""

from typing import Any

from prefect.events import Event, emit_event

DRIFT_DETECTED = "kreislauf.drift.detected"
DECAY_DETECTED = "kreislauf.decay.detected"
DATA_REJECTED = "kreislauf.data.rejected"
DATA_BROKEN = "kreislauf.data.broken"
DATA_QUESTIONED = "kreislauf.data.questioned"
SOURCE_STOPPED = "kreislauf.source.stopped"
MODEL_PROMOTED = "kreislauf.model.promoted"
MODEL_REFUSED = "kreislauf.model.refused"
MODEL_INCONCLUSIVE = "kreislauf.model.inconclusive"
MODEL_QUESTIONED = "kreislauf.model.questioned"
MODEL_PUBLISHED = "kreislauf.model.published"
MODEL_ROLLED_BACK = "kreislauf.model.rolled-back"
EXPERIMENT_ENDED = "kreislauf.experiment.ended"
KPI_FELL = "kreislauf.kpi.fell"
ALERT = "kreislauf.alert"
ALERT_RESOLVED = "kreislauf.alert.resolved"


def emit_model_event(event: str, model: str, reason: str, **payload: object) -> Event | None:
    """Emit `event` about a model type; `reason` is a sentence for people, `payload` is JSON."""
    return emit_event(
        event=event,
        resource={
            "prefect.resource.id": f"kreislauf.model.{model}",
            "prefect.resource.name": model,
        },
        payload={"model": model, "reason": reason, **payload},
    )


def emit_table_event(event: str, table: str, reason: str, **payload: object) -> Event | None:
    """Emit `event` about a Delta table; `reason` is a sentence for people, `payload` is JSON."""
    return emit_event(
        event=event,
        resource={
            "prefect.resource.id": f"kreislauf.table.{table}",
            "prefect.resource.name": table,
        },
        payload={"table": table, "reason": reason, **payload},
    )


def emit_rejected(table: str, counts: Any, stopped: int) -> Event | None:
    """Emit that lines were rejected, and how many loads were stopped because of it.

    `counts` are the lake's Counts, with one line in at least.
    """
    share = counts.lines_rejected / counts.lines_in
    halted = ""
    if stopped:
        halted = f" {stopped} load(s) were stopped, nothing of them is in the table."
    return emit_table_event(
        DATA_REJECTED,
        table,
        f"{counts.lines_rejected} of {counts.lines_in} lines ({share:.1%}) were rejected, "
        f"mostly: {counts.reasons[0].rule}.{halted}",
        count=counts.lines_rejected,
        share=share,
        stopped=stopped,
        reasons=[reason.model_dump() for reason in counts.reasons],
    )
