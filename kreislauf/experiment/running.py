"""Which experiment runs, and what was agreed on when it began.

The release log says which versions are in it, and for which share of the users. Beside its entries
stands `experiment-<number>.json` with the terms, where the number is that of the release since
which the share is what it is: users who were moved by a changed share are not compared with what
they did before.
"""

import itertools
from contextlib import suppress
from typing import Self

import fsspec
from pydantic import BaseModel, ConfigDict, model_validator

from kreislauf import exposures, lake, object_store
from kreislauf.clock import DAY_MS, when
from kreislauf.experiment.design import Design
from kreislauf.exposures import Kind
from kreislauf.release import releases
from kreislauf.release.releases import Release
from kreislauf.settings import settings

NO_PLAN = (
    "Nobody can say yet how long it takes, because too few users have reacted to answers. Until "
    "then only lost users end it."
)


class Terms(BaseModel):
    """What is judged, and until when."""

    model_config = ConfigDict(frozen=True)

    kpi: Kind = "click"
    """What people do with an answer of a better version more often."""
    minimum_effect: float = 0.03
    """How much more often, at least, to be worth finding: 0.03 for 3 %."""
    guardrails: tuple[Kind, ...] = ("order",)
    """What they must not do less often."""
    plan: Design | None = None
    """None while nobody can say how long it takes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.minimum_effect <= 10:
            raise ValueError(
                f"minimum_effect is {self.minimum_effect}: give a share of the champion's rate, "
                "such as 0.03 for 3 %."
            )
        if self.kpi in self.guardrails:
            raise ValueError(f"{self.kpi} is the KPI: leave it out of the guardrails.")
        return self

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The KPI, then the guardrails."""
        return (self.kpi, *self.guardrails)

    def sentence(self) -> str:
        """What is judged, and until when, for people."""
        judged = (
            f"It is judged by {self.kpi}s per answer, of which {self.minimum_effect:.1%} more are "
            "worth finding."
        )
        if self.guardrails:
            names = " and ".join(f"{kind}s" for kind in self.guardrails)
            judged += f" It must not cost {names}."
        if self.plan is None:
            return f"{judged} {NO_PLAN}"
        return (
            f"{judged} That takes about {self.plan.days} days, or {self.plan.users:,} users, at "
            "most."
        )


class Running(BaseModel):
    """An experiment that runs, since the last change of its share."""

    model_config = ConfigDict(frozen=True)

    release: Release
    """The release that is in force."""
    number: int
    """Number of the first release with this share."""
    first: Release
    """The first release of the experiment, with any share."""
    terms: Terms

    @property
    def model(self) -> str:
        """Name of the model type."""
        return self.release.model


def current(model: str) -> Running | None:
    """The experiment of a model type, in which some users get a challenger and the others do not;
    None if there is none."""
    log = releases.history(model)
    if not log or log[-1].challenger is None or not 0 < log[-1].share < 1:
        return None
    newest = log[-1]
    same_salt = list(itertools.takewhile(lambda entry: entry.salt == newest.salt, reversed(log)))
    same_share = itertools.takewhile(lambda entry: entry.share == newest.share, same_salt)
    number = list(same_share)[-1].number
    return Running(
        release=newest, number=number, first=same_salt[-1], terms=read_terms(model, number)
    )


def reason_to_wait(model: str) -> str:
    """Why nothing new is trained yet: it would replace the champion, and end an A/B test that has a
    verdict soon. Empty if none runs, or if its horizon has passed for more than a day."""
    test = current(model)
    if test is None or test.terms.plan is None:
        return ""
    begin = test.release.at or 0
    end = begin + (test.terms.plan.days + 1) * DAY_MS
    if (lake.watermark(exposures.EXPOSURES) or 0) > end:
        return ""
    return (
        f"Version {test.release.challenger} is in an A/B test, which has a verdict by {when(end)} "
        "UTC. A new champion would end it. To train now, end the test with the flow experiment."
    )


def read_terms(model: str, number: int) -> Terms:
    """The terms of the experiment whose first release with this share has the `number`; the default
    ones if nobody has agreed on any."""
    fs, path = _terms_file(model, number)
    if not fs.exists(path):
        return Terms()
    return Terms.model_validate_json(fs.cat_file(path))


def agree(test: Running, terms: Terms) -> Running:
    """The experiment with these terms, or with those on which somebody has agreed before."""
    fs, path = _terms_file(test.model, test.number)
    with suppress(FileExistsError):
        object_store.create(fs, path, terms.model_dump_json(indent=1).encode())
    return test.model_copy(update={"terms": read_terms(test.model, test.number)})


def write_plan(test: Running, plan: Design) -> None:
    """Add the plan to the terms."""
    fs, path = _terms_file(test.model, test.number)
    terms = test.terms.model_copy(update={"plan": plan})
    object_store.replace(fs, path, terms.model_dump_json(indent=1).encode())


def _terms_file(model: str, number: int) -> tuple[fsspec.AbstractFileSystem, str]:
    return object_store.locate(settings().releases, model, f"experiment-{number}.json")
