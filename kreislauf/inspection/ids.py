"""Which model type takes a source's ids as they are."""

from collections.abc import Iterator

import polars as pl

from kreislauf.inspection.roles import Role
from kreislauf.inspection.traits import Traits
from models import session_names, spec
from models.loading import twin_for_text
from models.spec import ModelSpec
from models.table import Table

MIN_SHARE = 0.1
"""Share of a column's values that are no whole numbers from which on its ids are text, and not a
few of them broken."""
LEADING_ZERO = r"^\s*[+]?0\d"


def model_for(of_ids: list[Role], columns: list[Traits], model: str | None) -> ModelSpec:
    """The model type `model`; by default the usual one, or its twin for text if a column that has
    ids needs it. Raises ValueError if there is no such model type.

    Text takes all ids, so one of several candidates decides; where there are but guesses, all.
    Sessions that are made by user and gap need text, too.
    """
    model_type = spec.load(model or spec.DEFAULT)
    makes_sessions = any("user" in reading.spec for role in of_ids for reading in role.readings)
    if model is None and makes_sessions:
        return twin_for_text(model_type) or model_type
    for role in of_ids:
        needs = [_are_text(t) for t in columns if t.name in role.sources]
        decides = all if role.is_guess else any
        if model is None and needs and decides(needs):
            return twin_for_text(model_type) or model_type
    return model_type


def can_make_sessions(model: str | None) -> bool:
    """Whether the model type, or by default one of the usual ones, takes sessions that are made by
    user and gap."""
    model_type = spec.load(model or spec.DEFAULT)
    if model is None:
        model_type = twin_for_text(model_type) or model_type
    return session_names.fault(model_type.table, model_type.table.group) is None


def _are_text(traits: Traits) -> bool:
    if traits.is_empty or traits.is_float:
        return False
    is_meant = ~traits.is_placeholder
    misfits = _misfits(traits).filter(is_meant)
    is_frequent = len(misfits.filter(misfits)) >= MIN_SHARE * len(misfits) > 0
    return is_frequent or bool(_zeros(traits).any())


def _misfits(traits: Traits) -> pl.Series:
    """Whether a value is no whole number from 0 to 2^63 - 1."""
    return (traits.whole.fill_null(-1) < 0).rename("misfit")


def _zeros(traits: Traits) -> pl.Series:
    return traits.present.str.contains(LEADING_ZERO)


def doubts(role: Role, columns: list[Traits], table: Table) -> Iterator[str]:
    """Sentences on ids that the table cannot hold, or on why it is one for text."""
    is_text = table.dtypes[table.group] == pl.String
    for traits in columns:
        if traits.name not in role.sources:
            continue
        misfits = traits.present.filter(_misfits(traits))
        zeros = traits.present.filter(_zeros(traits))
        if is_text and _are_text(traits) and len(misfits):
            yield (
                f"{traits.name} has ids that are no whole numbers from 0 to 2^63-1, such as "
                f"{misfits[0]}. So ids are taken as text."
            )
        elif is_text and len(zeros):
            yield (
                f"{traits.name} has ids that begin with 0, such as {zeros[0]}, and would lose it "
                "as numbers. So ids are taken as text."
            )
        elif len(misfits) and not is_text:
            yield (
                f"{len(misfits):,} of {len(traits.present):,} values of {traits.name} are no whole "
                f"numbers from 0 to 2^63-1, such as {misfits[0]}: their rows are rejected."
            )
        elif len(zeros):
            yield (
                f"{traits.name} has numbers that begin with 0, such as {zeros[0]}: the 0 is lost, "
                "and two ids that differ by it become one."
            )
