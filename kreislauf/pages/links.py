"""Where the lifecycle page leads: the pages of other servers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """Addresses of the other servers, as the writer of the page has them; empty where unknown."""

    prefect: str = ""
    mlflow: str = ""
    grafana: str = ""

    def version(self, model: str, number: int) -> str:
        """Address of a version in MLflow."""
        if not self.mlflow:
            return ""
        return f"{self.mlflow}/#/models/{model}/versions/{number}"

    def flow_run(self, flow_run: str | None) -> str:
        """Address of a flow run in Prefect."""
        if not self.prefect or not flow_run:
            return ""
        return f"{self.prefect}/runs/flow-run/{flow_run}"

    def of_model(self, model: str, is_served: bool, has_batches: bool) -> list[tuple[str, str]]:
        """Name and address of what else there is to see."""
        pages = []
        if self.prefect:
            key = model.replace("_", "-")
            for name, artifact in (
                ("releases", "release"),
                ("cards", "card"),
                ("looks of the monitor", "monitor"),
            ):
                pages.append((f"Prefect: {name}", f"{self.prefect}/artifacts/key/{artifact}-{key}"))
            if has_batches:
                pages.append(("Prefect: batches", f"{self.prefect}/artifacts/key/batch-{key}"))
            pages.append(("Prefect: runs", f"{self.prefect}/runs"))
        if self.mlflow:
            pages.append(("MLflow: versions", f"{self.mlflow}/#/models/{model}"))
        if self.grafana and is_served:
            pages.append(("Grafana: live answers", f"{self.grafana}/d/kreislauf"))
        return pages
