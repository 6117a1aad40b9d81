"""What came of a batch."""

from pydantic import BaseModel, ConfigDict

from kreislauf.batch.answers import ANSWERS
from kreislauf.batch.batch import Batch
from kreislauf.clock import when


class BatchReport(BaseModel):
    """A batch, and what became of its requests."""

    model_config = ConfigDict(frozen=True)

    batch: Batch
    answered: int
    refused: int
    """Requests that cannot be asked; the table says why of each."""
    shards_answered: int
    """Shards that this run answered; others were answered before."""

    def sentence(self) -> str:
        """What was answered, for people."""
        batch = self.batch
        asked = f"the file {batch.source}"
        if batch.start is not None and batch.end is not None:
            asked = f"{batch.source} from {when(batch.start)} to {when(batch.end)} UTC"
        refused = ""
        if self.refused:
            refused = f" {self.refused} requests cannot be asked; the column `refusal` says why."
        return (
            f"{batch.model} version {batch.version} answered {self.answered} requests of {asked}."
            f"{refused}"
        )

    def page(self) -> str:
        """The same as Markdown, and where the answers are."""
        return (
            f"{self.sentence()}\n\n"
            f"They are in the table `{ANSWERS}`, where `batch` is `{self.batch.name}`. "
            f"{self.shards_answered} of {self.batch.shards} shards were answered by this run. The "
            f"file that answered has the SHA-256 `{self.batch.onnx}`.\n"
        )
