"""Tasks of publish: a version into Triton, verified."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import task

from kreislauf import registry
from kreislauf.release import golden, permission, releases, triton


@task(task_run_name="load-{model}-{version}")
def put_in_triton(model: str, resident: list[int], version: int) -> None:
    """Make the versions resident and prove that `version` answers the golden requests as
    registered."""
    requests, expected = golden.read_golden(
        registry.artifact(registry.get(model, version), "golden")
    )
    for number in resident:
        triton.add_version(model, number, registry.onnx_file(registry.get(model, number)))
    triton.keep_warm_up(model, version, requests)
    triton.serve(model, resident)
    differences = golden.compare(triton.ask(model, version, requests), expected)
    if differences:
        raise permission.PublishRefused(
            f"{model} version {version} in Triton answers otherwise than registered: {differences}"
        )


@contextmanager
def restored(candidate: registry.Version) -> Iterator[None]:
    """Undo what was done in Triton for `candidate` when it fails."""
    try:
        yield
    except Exception as error:
        try:
            undo(candidate)
        except triton.TritonError as second:
            error.add_note(
                f"What Triton served before could not be restored yet; publish again. {second}"
            )
        raise


def undo(candidate: registry.Version) -> None:
    """Make Triton serve what the release log says, and forget the candidate."""
    live = releases.current(candidate.model)
    if not live or candidate.number not in live.versions:
        triton.remove_version(candidate.model, candidate.number)
    if live:
        triton.serve(candidate.model, live.versions)
    else:
        triton.unload(candidate.model)
