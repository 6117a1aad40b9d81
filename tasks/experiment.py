"""Tasks of look: see what the users of an A/B test did, and show it."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from kreislauf import registry
from kreislauf.experiment import look
from kreislauf.experiment.record import Record
from kreislauf.experiment.running import Running
from kreislauf.pages import experiment as experiment_page
from kreislauf.pages import markdown
from kreislauf.registry.artifacts import amend_card


@task(task_run_name="look-at-{test.model}", cache_policy=NO_CACHE)
def take_look(test: Running, maturity: int) -> Record | None:
    """The newest look at a test, as `look.take`."""
    return look.take(test, maturity, flow_run.get_id() or "")


def write_on_card(test: Running, record: Record) -> None:
    """Add what came of a test to the card of the version that is judged, if there is one."""
    version = registry.lookup(test.model, test.judged_version)
    if version is None:
        return
    section = experiment_page.card(test, record)

    def amended(card: str) -> str:
        page = card or markdown.page(f"{test.model} version {version.number}", "", [])
        return markdown.with_section(page, f"test-{test.number}", section)

    amend_card(version, amended)


def show(test: Running, record: Record) -> None:
    """What is known of a test, as an artifact of the run."""
    create_markdown_artifact(
        key=f"look-{test.model.replace('_', '-')}",
        markdown=experiment_page.page(test, record),
        description="What an A/B test has shown until now, and what came of it",
    )
