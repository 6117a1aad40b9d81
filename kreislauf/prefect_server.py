"""Imported before Prefect: flows run on the Prefect server of the local stack."""

from kreislauf import temporary_server
from kreislauf.settings import use_recorded_prefect

if not use_recorded_prefect():
    temporary_server.stop_with_this_process()
