"""Tasks of the flow inspect, and the page that it shows in Prefect's UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from kreislauf.inspection.look import Inspection, look, try_mapping


@task(task_run_name="look at {source}", cache_policy=NO_CACHE)
def look_at(source: str, model: str | None, out: str | None) -> Inspection:
    """Look at a sample of a source, and propose a mapping."""
    return look(source, model, out)


@task(task_run_name="try {mapping} on {source}", cache_policy=NO_CACHE)
def try_on(source: str, mapping: str, model: str | None) -> Inspection:
    """What a load of a sample of a source would make of it by a mapping."""
    return try_mapping(source, mapping, model)


def show_inspection(inspection: Inspection) -> None:
    """Show the report in Prefect's UI."""
    create_markdown_artifact(
        markdown=inspection.report, key="inspect", description=f"What is in {inspection.source}"
    )
