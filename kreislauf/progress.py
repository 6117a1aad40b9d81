"""Progress of a training: a bar in Prefect's UI, and lines in the log and the terminal."""

from dataclasses import dataclass, field
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import MissingContextError

STEP = 0.02
"""Minimum progress that is worth a request."""


@dataclass
class Progress:
    """To be called with the share that is done, 0 to 1, and the newest metrics; can be sent to
    another process."""

    title: str
    artifact: UUID
    reported: float = field(default=-1.0)
    """Share that was shown last."""

    @classmethod
    def of(cls, title: str) -> "Progress":
        """Shows a bar at 0 in the run that it is called from."""
        artifact = create_progress_artifact(progress=0.0, description=title)
        return cls(title, artifact)  # type: ignore[arg-type]

    def __call__(self, share: float, metrics: dict[str, float]) -> None:
        """Moves the bar and writes a line, unless hardly anything has happened since the last
        one."""
        if share < self.reported + STEP and share < 1:
            return
        self.reported = share
        numbers = "".join(f", {name} {value:.4f}" for name, value in metrics.items())
        line = f"{self.title}: {share:.0%}{numbers}"
        update_progress_artifact(self.artifact, progress=100 * share, description=line)
        try:
            get_run_logger().info(line)
        except MissingContextError:  # One of several training processes: its output is the run's.
            print(line, flush=True)
