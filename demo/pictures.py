"""`make pictures`: the pictures of README and docs, from a run of the demo.

Look at them before you commit them. The loop (`docs/loop.svg`) is drawn by hand.
"""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from demo import browser, curve
from demo.__main__ import Everything, Narrator, started
from demo.plan import SPANS, STARTS, day
from deployments import stack

if TYPE_CHECKING:
    from demo.loop import Loop

FOLDER = stack.ROOT / "docs"
PERIODS = tuple(SPANS)[1:]
"""All but the history."""
TEXTS = (
    "a stable period:\nnothing is retrained",
    "the season changes: concept drift,\nan event retrains",
    "tracking breaks: data\nfault, no training",
    "one version is refused,\none is rolled back",
)
"""What happens in each period."""
WIDTH = 1200
HEIGHT = 810
"""Pixels of a page."""
NARROW = 400
"""Pixels of a telephone's width."""
TALL = 1400
"""Pixels of a long page."""


def main() -> None:
    """Play the story, and write the pictures while its servers run."""
    narrator = Narrator()
    with (
        tempfile.TemporaryDirectory() as folder,
        started(Path(folder), narrator) as everything,
    ):
        loop = play(Path(folder) / "shop", narrator, everything)
        curve.draw(days(loop), bands(), FOLDER / "curve.svg")
        running = everything()
        photograph_card(loop.recalls[-1].version, running["prefect"]["url"])
        photograph_life(running["gateway"]["url"])
    narrator.say(f"the pictures are in {FOLDER}")


def play(folder: Path, narrator: Narrator, everything: Everything) -> "Loop":
    """Play the six acts. Ends the program if one did not happen, because a picture would lie."""
    from demo import story
    from demo.loop import Loop

    loop = Loop(folder, everything)
    for act in story.acts(loop):
        narrator.say(f"{act.title}: {act.sentence}")
        if not act.happened:
            sys.exit("This did not happen as it should, so no picture was made.")
    return loop


def days(loop: "Loop") -> list[curve.Day]:
    """Recall of each day after the history: of the version that was live, and of the first one."""
    from demo.loop import MODEL
    from kreislauf import registry
    from kreislauf.evaluation import scoring
    from models import spec

    model_type = spec.load(MODEL)
    points = []
    for name, recalls in zip(PERIODS, loop.recalls, strict=True):
        live = registry.onnx_file(registry.get(MODEL, recalls.version))
        for number in range(STARTS[name], STARTS[name] + SPANS[name]):
            examples = model_type.examples(loop.shop.filter(day() == number))
            recall = [
                float(model_type.score(examples, scoring.answer(file, examples.inputs)).mean())
                for file in (live, loop.frozen)
            ]
            points.append(curve.Day(number + 1, *recall))
    return points


def bands() -> list[curve.Band]:
    """The periods after the history, in days from 1."""
    return [
        curve.Band(STARTS[name] + 1, STARTS[name] + SPANS[name], text)
        for name, text in zip(PERIODS, TEXTS, strict=True)
    ]


def photograph_card(version: int, prefect: str) -> None:
    """Take a picture of a version's card in Prefect's UI."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    wanted = ArtifactFilter(key=ArtifactFilterKey(like_="card-"))
    with get_client(sync_client=True) as client:
        cards = client.read_artifacts(artifact_filter=wanted)
    (card,) = [card for card in cards if f"version {version}:" in str(card.data).splitlines()[0]]
    url = f"{prefect}/v2/artifacts/artifact/{card.id}"
    browser.photograph(url, FOLDER / "card.png", WIDTH, HEIGHT)


def photograph_life(gateway: str) -> None:
    """Take pictures of the lifecycle page: on a wide screen, on a narrow one, and in the dark."""
    from demo.loop import MODEL

    url = f"{gateway}/models/{MODEL}"
    browser.photograph(url, FOLDER / "lifecycle.png", WIDTH, TALL)
    browser.photograph(url, FOLDER / "lifecycle-narrow.png", NARROW, TALL)
    browser.photograph(url, FOLDER / "lifecycle-dark.png", WIDTH, TALL, dark=True)


if __name__ == "__main__":
    main()
