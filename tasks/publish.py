"""Tasks of publish: a version into Triton, verified."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from kreislauf import registry
from kreislauf.evaluation import scoring
from kreislauf.release import crashes, golden, permission, releases, triton
from models import spec
from models.spec import Tensors

GOLDEN = "golden.json"
"""File beside a version in Triton's repository: its golden requests."""


@task(task_run_name="load-{model}-{version}")
def put_in_service(model: str, resident: list[int], version: int) -> None:
    """Make the versions, whose files are in the repository, resident, and prove that `version`
    answers the golden requests as registered.

    A model type that Triton does not serve is asked in this process. A Triton that ends meanwhile
    is asked once more when it has started anew. A machine too busy can end it, too: it takes a
    process for dead that gets no processor for a second.
    """
    questions = triton.kept_file(model, version, GOLDEN)
    if questions is None:
        raise permission.PublishRefused(
            f"{model} version {version} has no golden requests in Triton's repository, and MLflow "
            "has none to give: it cannot be verified."
        )
    requests, expected = golden.read_golden(questions)
    if not spec.load(model).is_served:
        content = triton.kept_file(model, version, "model.onnx")
        refuse_differences(model, version, scoring.answer(content, requests), expected)
        return
    triton.keep_warm_up(model, version, requests)
    try:
        answers = load_and_ask(model, resident, version, requests)
    except triton.TritonError as error:
        if triton.is_live():
            raise
        get_run_logger().warning(f"Triton is asked once more. {error}")
        triton.wait_until_live(triton.RESTART_SECONDS)
        answers = load_and_ask(model, resident, version, requests)
    refuse_differences(model, version, answers, expected)
    triton.keep(model, resident)


def refuse_differences(model: str, version: int, answers: Tensors, expected: Tensors) -> None:
    """Raise PublishRefused if a version answers otherwise than registered."""
    differences = golden.compare(answers, expected)
    if differences:
        raise permission.PublishRefused(
            f"{model} version {version} answers otherwise than registered: {differences}"
        )


def serve(model: str, versions: list[int]) -> None:
    """Let Triton serve exactly these versions, if it serves the model type; the files of others are
    deleted."""
    if spec.load(model).is_served:
        triton.serve(model, versions)
    else:
        triton.remove_others(model, versions)


def load_and_ask(model: str, resident: list[int], version: int, requests: Tensors) -> Tensors:
    """Answers of a version that is loaded with those that are resident."""
    triton.load(model, resident)
    return triton.ask(model, version, requests)


def hand_over(model: str, versions: Iterable[int]) -> None:
    """Bring the versions' files into Triton's repository, where a rollback has them without MLflow.

    Of a version that was deleted in MLflow, and of each while MLflow does not answer, what is there
    is used. Raises RegistryError if there is nothing.
    """
    for number in versions:
        try:
            registered = registry.lookup(model, number)
            if registered:
                triton.add_version(model, number, registry.onnx_file(registered))
                questions = registry.artifact(registered, "golden").read_bytes()
                triton.keep_file(model, number, GOLDEN, questions)
                record = registered.model_dump_json().encode()
                triton.keep_file(model, number, permission.RECORD, record)
        except registry.RegistryError as error:
            if not triton.holds(model, number):
                raise
            get_run_logger().warning(f"Triton's repository has version {number}. {error}")


def missing(model: str, versions: list[int]) -> list[int]:
    """Those of the versions that nobody has any more, neither MLflow nor Triton's repository."""
    not_held = [number for number in versions if not triton.holds(model, number)]
    absent = [number for number in not_held if registry.lookup(model, number) is None]
    for number in absent:
        get_run_logger().warning(
            f"{model} version {number} was deleted in MLflow, and Triton's repository lacks it, "
            "too: it is served no more."
        )
    return absent


@contextmanager
def restored(candidate: registry.Version) -> Iterator[None]:
    """Undo what was done in Triton for `candidate` when it fails.

    Raises permission.PublishRefused for a version that ended Triton, now or earlier.
    """
    permission.check_never_crashed(candidate)
    if not spec.load(candidate.model).is_served:
        try:
            yield
        except Exception:
            live = releases.current(candidate.model)
            if not live or candidate.number not in live.versions:
                triton.remove_version(candidate.model, candidate.number)
            raise
        return
    # A Triton that is gone before anything was loaded is no version's fault.
    triton.wait_until_live(0)
    try:
        yield
    except Exception as error:
        failure = error
        if isinstance(error, triton.TritonError) and not triton.is_live():
            failure = blame(candidate, error)
        try:
            undo(candidate)
        except triton.TritonError as second:
            failure.add_note(
                f"What Triton served before could not be restored yet; publish again. {second}"
            )
        if failure is error:
            raise
        raise failure from error


def blame(candidate: registry.Version, error: triton.TritonError) -> Exception:
    """Note in the release log that `candidate` ended Triton, and close it.

    A version that was live before is not blamed.
    """
    live = releases.current(candidate.model)
    if live and candidate.number in live.versions:
        return error
    reason = (
        f"{candidate.model} version {candidate.number} ended Triton while it was loaded. It is "
        f"never loaded again: train another one. {error}"
    )
    who = flow_run.get_name() or "a person, from Python"
    crashes.record(candidate.model, candidate.number, reason, who)
    registry.close(candidate)
    return permission.PublishRefused(reason)


def undo(candidate: registry.Version) -> None:
    """Make Triton serve what the release log says, and forget the candidate."""
    triton.wait_until_live(triton.RESTART_SECONDS)
    live = releases.current(candidate.model)
    if not live or candidate.number not in live.versions:
        triton.remove_version(candidate.model, candidate.number)
    if live:
        resident = [n for n in live.versions if triton.holds(candidate.model, n)]
        triton.serve(candidate.model, resident)
    else:
        triton.unload(candidate.model)
