"""How the first version that was ever live would answer a window: what the trainings since have
brought."""

import logging

from kreislauf import registry
from kreislauf.evaluation import scoring
from kreislauf.monitoring import tables
from kreislauf.monitoring.probe import Probe, QualityMeasurement
from kreislauf.monitoring.window import Window
from kreislauf.release import releases

log = logging.getLogger(__name__)


def quality(
    probe: Probe, window: Window, version: int, measured: QualityMeasurement
) -> float | None:
    """Metric of the first version in the window, at the mix of requests of the live `version`'s
    hold-out; `measured` is that of the live one.

    None if the first version was deleted, if its file does not take today's requests, or if the
    window was recorded before: most looks measure such a one, and ask no second file then.
    """
    model = probe.model_type.name
    release = releases.first(model)
    place = {"model": model, "version": version, "start": window.start, "end": window.end}
    if release is None or tables.read(tables.WINDOWS, **place).height:
        return None
    if release.champion == version:
        return probe.live_quality(window, measured.scores)
    registered = registry.lookup(model, release.champion)
    if registered is None:
        return None
    try:
        outputs = scoring.answer(registry.onnx_file(registered), measured.examples.inputs)
        scores = probe.model_type.score(measured.examples, outputs)
    except Exception as error:  # Whatever the old file lacks, the live one must be watched.
        log.warning("%s version %d cannot be asked any more: %s", model, release.champion, error)
        return None
    return probe.live_quality(window, scores)
