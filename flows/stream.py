"""Stream: a Kafka topic into the lake, batch after batch, for as long as its deployment is switched
on."""

import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import httpx
from prefect import flow, get_client, get_run_logger, runtime
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.exceptions import PrefectException

from kreislauf import events, lake
from kreislauf.lake import quarantine
from kreislauf.sources.kafka import Reader
from models import spec

PATIENCE_SECONDS = 300
"""So long Kafka or the lake may be silent before the run fails."""
LOOK_SECONDS = 5
SHOW_SECONDS = 60
ANNOUNCE_SECONDS = 300


class StreamReport(lake.Counts):
    """What a run of a stream did."""

    table: str
    topic: str
    commits: int
    messages_lost: int
    """Deleted by Kafka before they were read, and left out because `skip_lost` said so."""


@flow
def stream(
    topic: str,
    model: str = "session_recommender",
    batch_seconds: float = 30,
    batch_messages: int = 100_000,
    max_reject_share: float = 0.1,
    until_end: bool = False,
    skip_lost: bool = False,
) -> StreamReport:
    """Land a Kafka topic in the table of a model type, each message exactly once, one commit per
    batch.

    How far the topic has been read is stored in the commit of its rows, so a run that ends in any
    way, even by kill -9, leaves nothing to mend: the next one goes on. A run ends well when its
    deployment is paused, or when a newer run of its deployment is due, which then takes over.

    Args: topic: Kafka topic; each message is a line of JSON. Kafka's address is in KREISLAUF_KAFKA.
        model: Model type, a folder in `models/`; it decides the table and what a valid line is.
        batch_seconds: A batch is stored after so many seconds, or earlier when it is full. Each
        makes a version of the
            table, and files.
        batch_messages: A batch with so many messages, or 64 MB, is full.
        max_reject_share: A batch of whose messages a larger share is bad stops the stream before it
            is visible.
        until_end: End, whether paused or not, when everything has been read that was in the topic
            at the start.
        skip_lost: Go on where messages begin that Kafka still has, if it deleted some before they
            were read.

    Returns: The accounts of this run: lines (messages) in = loaded + rejected + blank, rows in =
        kept + rejected + duplicate. Rejected messages are in the table `rejects`, byte for byte;
        `line` is their offset.

    Raises:
        ValueError: No model type has this name.
        TopicError: There is no such topic, or Kafka's settings are wrong.
        MessagesLost: Kafka deleted messages before they were read.
        TooManyRejects: The topic is broken: the batch is not loaded.
        Overtaken: Another run lands the same topic.
        ConnectionError: Kafka or the lake did not answer for five minutes.
    """
    table = spec.load(model).table
    run = _Run(table.name, topic, ends_itself=until_end)
    read = partial(
        landings,
        table,
        topic,
        batch_messages,
        batch_seconds,
        max_reject_share,
        until_end,
        skip_lost,
    )
    try:
        for accounts, reader in _patiently(lambda: read(run.over), run.over):
            run.note(accounts, reader)
    except lake.TooManyRejects as error:
        events.emit_rejected(table.name, error.counts, stopped=1)
        raise
    except lake.Overtaken as error:
        raise lake.Overtaken(
            f"{error} Only one run may land a topic; end the other one. Nothing is lost or doubled."
        ) from error
    finally:
        run.close()
    return run.report()


def landings(
    table: spec.Table,
    topic: str,
    batch_messages: int,
    batch_seconds: float,
    max_reject_share: float,
    until_end: bool,
    skip_lost: bool,
    over: Callable[[], bool],
) -> Iterator[tuple[lake.Accounts | None, Reader]]:
    """Land batches until `over` says so: the accounts of each, None for an empty one, and the
    reader behind it."""
    quarantine.publish_rejects(table)
    with Reader(
        topic, f"kreislauf-{table.name}", partial(lake.progress, table), skip_lost
    ) as reader:
        enough = (lambda: over() or reader.ended) if until_end else over
        while not enough():
            batch = reader.batch(batch_messages, batch_seconds, enough)
            accounts = None
            if batch.raws:
                origin = lake.Origin("stream", f"kafka://{topic}", dict(batch.progress))
                accounts = lake.load(table, batch.raws, partial(_same, origin), max_reject_share)
                reader.landed(batch)
            yield accounts, reader


def _same(origin: lake.Origin) -> lake.Origin:
    return origin


def _patiently(
    read: Callable[[], Iterator[tuple[lake.Accounts | None, Reader]]], over: Callable[[], bool]
) -> Iterator[tuple[lake.Accounts | None, Reader]]:
    """What `read` yields, which is started again while the network is down, for as long as it is
    worth it."""
    silent_since = None
    pause = 1.0
    while True:
        try:
            for landing in read():
                silent_since = None
                pause = 1.0
                yield landing
            return
        except OSError as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > PATIENCE_SECONDS:
                raise
            get_run_logger().warning("Trying again in %.0f s: %s", pause, error)
        end = time.monotonic() + pause
        pause = min(30.0, 2 * pause)
        while time.monotonic() < end and not over():
            time.sleep(0.2)
        if over():
            return


class _Run:
    """What a run tells Prefect, and what Prefect tells it."""

    def __init__(self, table: str, topic: str, ends_itself: bool) -> None:
        self._table = table
        self._topic = topic
        self._log = get_run_logger()
        self._deployment = None if ends_itself else runtime.deployment.id
        self._over = False
        self._looked = self._announced = -math.inf
        self._shown = time.monotonic()
        self._commits = 0
        self._lost = 0
        self._totals = self._unannounced = lake.total([])

    def over(self) -> bool:
        """Whether to end: the deployment is paused, or a newer run of it is due. Asks every few
        seconds."""
        if self._deployment and not self._over and time.monotonic() - self._looked > LOOK_SECONDS:
            try:
                self._over = bool(why := _reason_to_end(self._deployment))
                if why:
                    self._log.info("%s This run ends.", why)
            except (httpx.HTTPError, PrefectException) as error:
                self._log.warning("Prefect does not answer (%s): streaming on.", error)
            self._looked = time.monotonic()
        return self._over

    def note(self, accounts: lake.Accounts | None, reader: Reader) -> None:
        """Log a landing; show and announce the totals now and then."""
        if reader.lost:
            self._log.error(
                "%s messages of %s were deleted unread: left out.", reader.lost, self._topic
            )
            self._lost = self._lost + reader.lost
            reader.lost = 0
        if accounts:
            self._commits += 1
            self._totals = lake.total([self._totals, accounts])
            self._unannounced = lake.total([self._unannounced, accounts])
            self._log.info(
                "Version %s: %s messages, %s rows kept, %s duplicates, %s messages rejected; %s messages behind.",
                accounts.version, accounts.lines_in, accounts.rows_kept, accounts.rows_duplicate,
                accounts.lines_rejected, reader.behind,
            )  # fmt: skip
        now = time.monotonic()
        if self._unannounced.lines_rejected and now - self._announced > ANNOUNCE_SECONDS:
            self._announce()
        if accounts and now - self._shown > SHOW_SECONDS:
            self._show()

    def close(self) -> None:
        """Tell what has not been told yet."""
        if self._unannounced.lines_rejected:
            self._announce()
        self._show()

    def report(self) -> StreamReport:
        """What this run did so far."""
        totals = self._totals.model_dump()
        return StreamReport(
            table=self._table,
            topic=self._topic,
            commits=self._commits,
            messages_lost=self._lost,
            **totals,
        )

    def _announce(self) -> None:
        events.emit_rejected(self._table, self._unannounced, stopped=0)
        self._unannounced = lake.total([])
        self._announced = time.monotonic()

    def _show(self) -> None:
        key = f"stream-{self._topic}-{self._table}".lower().replace("_", "-").replace(".", "-")
        row = self.report().model_dump(exclude={"reasons"})
        try:
            create_table_artifact(
                table=[row], key=key, description=f"`{self._topic}` into `{self._table}`"
            )
        except (httpx.HTTPError, PrefectException) as error:
            self._log.warning("Prefect does not answer (%s): the artifact is missing.", error)
        self._shown = time.monotonic()


def _reason_to_end(deployment: str) -> str:
    """Why a run of this deployment should end, or nothing."""
    due = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "expected_start_time": {"before_": datetime.now(UTC)},
    }
    with get_client(sync_client=True) as client:
        if client.read_deployment(UUID(deployment)).paused:
            return "The deployment is paused."
        waiting = client.read_flow_runs(
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment]}}),
            flow_run_filter=FlowRunFilter.model_validate(due),
            limit=1,
        )
    return f"Run {waiting[0].name} is due and takes over." if waiting else ""
