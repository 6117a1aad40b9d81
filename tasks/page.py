"""The task that draws the lifecycle page of a model type anew, for every flow that changes what it
shows."""

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_UI_URL

from kreislauf.lake.exclusions import NO_END
from kreislauf.monitoring import feedback
from kreislauf.pages import life, lifecycle
from kreislauf.pages.links import Links
from kreislauf.release import lifecycle_page
from kreislauf.settings import settings
from models import spec


@task(task_run_name="draw-page-{model}", cache_policy=NO_CACHE)
def draw_page(model: str) -> None:
    """Draw the page of a model type, and show in Prefect where it is.

    A failure is an error in the run's log and nothing more: no release may depend on a page.
    """
    try:
        current = life.read(spec.load(model))
        clicks = []
        if current.in_test:
            start = current.clicks_since
            reactions = feedback.reactions(model, start, NO_END, history_days=0)
            clicks = feedback.clicks_by_variant(reactions, start)
        rates = feedback.clicks_by_batch([answered.batch for answered in current.batches])
        lifecycle_page.write(model, lifecycle.draw(current, links(), clicks, rates))
        text = f"{lifecycle.summary(current)}\n\n{where(model)}"
        create_markdown_artifact(
            key=f"lifecycle-{model.replace('_', '-')}",
            markdown=text,
            description="What is live, how well it answers, and what waits for a person",
        )
    except Exception as error:  # Whatever the storage or Prefect raises.
        get_run_logger().error(
            f"The lifecycle page of {model} was not drawn anew, and may be old: {error!r}"
        )


def links() -> Links:
    """Where the other servers are, as this process has been told."""
    here = settings()
    mlflow = ""
    if here.mlflow_url.startswith("http"):
        mlflow = here.mlflow_url.rstrip("/")
    return Links(
        prefect=(PREFECT_UI_URL.value() or "").rstrip("/"),
        mlflow=mlflow,
        grafana=here.running.get("grafana", {}).get("url", ""),
    )


def where(model: str) -> str:
    """Where the page is, as Markdown."""
    file = f"Its file: `{lifecycle_page.address(model)}`."
    gateway = settings().running.get("gateway", {}).get("url")
    if gateway is None:
        return f"{file} A gateway shows it at `/models/{model}`."
    return f"[The page of {model}]({gateway}/models/{model}). {file}"
