"""The flows. Called from a shell, they run on the Prefect server of the local stack."""

import kreislauf.prefect_server  # noqa: F401
