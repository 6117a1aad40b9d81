"""The data of the tiny model type."""

from tests.flows.conftest import orders  # noqa: F401
