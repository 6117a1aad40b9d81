"""Imported before Prefect: flows run on the Prefect server of the local stack."""

from kreislauf.settings import use_recorded_prefect

use_recorded_prefect()
