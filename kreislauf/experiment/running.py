"""Which experiment runs, and what was agreed on when it began.

An experiment is an A/B test, which asks whether a challenger shall replace the champion, or a
hold-back, which asks whether a release was right: a share of the users keeps the version before.

The release log says which versions are in it, and for which share of the users. Beside its entries
stands `experiment-<number>.json` with the terms. The number is that of the first release with this
share: a changed share moves users, and what is judged begins anew.
"""

import itertools
import time
from contextlib import suppress
from typing import Self

import fsspec
from pydantic import BaseModel, ConfigDict, model_validator

from kreislauf import exposures, lake, object_store
from kreislauf.clock import DAY_MS, when
from kreislauf.experiment.design import Design
from kreislauf.exposures import Arm, Kind
from kreislauf.release import releases
from kreislauf.release.releases import HOLD_BACK_DAYS, Release
from kreislauf.settings import settings

LONGEST_DAYS = 42
"""Most days for which a retraining waits for a verdict."""
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
    """How much more often, at least, to be worth finding: 0.03 for 3 %. A hold-back has none."""
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
        return self

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The KPI, then the guardrails, each once."""
        return tuple(dict.fromkeys((self.kpi, *self.guardrails)))

    def sentence(self) -> str:
        """What is judged, and until when, for people."""
        judged = (
            f"It is judged by {self.kpi}s per answer, of which {self.minimum_effect:.1%} more are "
            "worth finding."
        )
        if len(self.kinds) > 1:
            names = " and ".join(f"{kind}s" for kind in self.kinds[1:])
            judged += f" It must not cost {names}."
        if self.plan is None:
            return f"{judged} {NO_PLAN}"
        horizon = f"{self.plan.days} days, or {self.plan.users:,} users"
        if self.plan.days > LONGEST_DAYS:
            return (
                f"{judged} That takes about {horizon}, which is too long to be of use: start again "
                "with a larger minimum_effect, or with a share nearer to a half."
            )
        return f"{judged} That takes about {horizon}, at most."


class Running(BaseModel):
    """An experiment that runs, since the last change of its share. The version that is judged is
    the challenger of an A/B test, and the champion of a hold-back."""

    model_config = ConfigDict(frozen=True)

    release: Release
    """The release that is in force."""
    begin: Release
    """The first release with this share."""
    first: Release
    """The first release of the experiment, with any share."""
    terms: Terms

    @property
    def number(self) -> int:
        """Number of the first release with this share."""
        return self.begin.number

    @property
    def model(self) -> str:
        """Name of the model type."""
        return self.release.model

    @property
    def is_hold_back(self) -> bool:
        """Whether it is a hold-back, and no A/B test."""
        return self.release.is_hold_back

    @property
    def judged_arm(self) -> Arm:
        """The users that get the version that is judged."""
        if self.is_hold_back:
            return "champion"
        return "challenger"

    @property
    def reference_arm(self) -> Arm:
        """The users that get the version that it is compared with."""
        if self.is_hold_back:
            return "challenger"
        return "champion"

    @property
    def share(self) -> float:
        """Share of the users that get the version that is judged."""
        if self.is_hold_back:
            return 1 - self.release.share
        return self.release.share

    @property
    def judged_version(self) -> int:
        """The version that is judged."""
        if self.is_hold_back:
            return self.release.champion
        assert self.release.challenger is not None
        return self.release.challenger

    @property
    def reference_version(self) -> int:
        """The version that it is compared with."""
        if self.is_hold_back:
            assert self.release.challenger is not None
            return self.release.challenger
        return self.release.champion

    def sentence(self) -> str:
        """What is judged, and until when, for people."""
        if not self.is_hold_back:
            return self.terms.sentence()
        judged = " and ".join(f"{kind}s" for kind in self.terms.kinds)
        sentence = (
            f"Version {self.judged_version} must not cost {judged}, compared with "
            f"{releases.name(self.reference_version)}, which {self.release.share:.1%} of the users "
            f"get for {HOLD_BACK_DAYS} days."
        )
        if self.terms.plan is None:
            return sentence
        effect = self.terms.plan.relative_effect
        if effect == 0:
            return f"{sentence} How small a fall is seen was not clear after less than a day."
        if effect >= 1:
            return f"{sentence} Too few users come in that time for harm to be seen."
        return f"{sentence} {effect:.0%} fewer {self.terms.kpi}s per answer are probably seen."


def current(model: str) -> Running | None:
    """The experiment of a model type, in which some users get a challenger and the others do not;
    None if there is none."""
    log = releases.history(model)
    if not log or log[-1].challenger is None or not 0 < log[-1].share < 1:
        return None
    newest = log[-1]
    same_salt = list(itertools.takewhile(lambda entry: entry.salt == newest.salt, reversed(log)))
    same_share = itertools.takewhile(lambda entry: entry.share == newest.share, same_salt)
    begin = list(same_share)[-1]
    terms = read_terms(model, begin.number)
    return Running(release=newest, begin=begin, first=same_salt[-1], terms=terms)


def reason_to_wait(model: str) -> str:
    """Why nothing new is trained yet: it would replace the champion, and end an A/B test that has a
    verdict soon. Empty if none runs, or if its horizon has passed for more than a day, or
    `LONGEST_DAYS` have. A hold-back delays nothing, because the next release begins another one,
    and a self-test neither."""
    test = current(model)
    if test is None or test.release.tested_version is None or test.terms.plan is None:
        return ""
    days = min(test.terms.plan.days, LONGEST_DAYS) + 1
    end = (test.begin.at or 0) + days * DAY_MS
    if max(lake.watermark(exposures.EXPOSURES) or 0, int(time.time() * 1000)) > end:
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
