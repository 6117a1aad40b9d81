"""The gateway's fixtures."""

from tests.serving.conftest import listening, live  # noqa: F401
