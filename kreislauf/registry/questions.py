"""What a person is asked about a version, and what came of it, as tags of the version."""

from kreislauf.registry import runs
from kreislauf.registry.versions import Version


def ask(version: Version, question: str) -> None:
    """Note what a person is asked before the version may go live."""
    runs.client().set_model_version_tag(version.model, str(version.number), "question", question)


def answer(version: Version, words: str) -> None:
    """Note what came of the question, which nobody is asked any more."""
    client = runs.client()
    number = str(version.number)
    client.set_model_version_tag(version.model, number, "answer", words)
    client.delete_model_version_tag(version.model, number, "question")
