"""What the flow stream is made of: batches that land, patience, and the run in Prefect's eyes."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger, runtime
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.exceptions import PrefectException

from kreislauf import events, lake
from kreislauf.lake import quarantine
from kreislauf.sources.kafka import Batch, Reader
from models import spec
from models.mapping import Mapping

MAX_SILENCE_SECONDS = 300
"""Seconds for which Kafka or the lake may be silent before the run fails."""
MAX_PAUSE_SECONDS = 30.0
"""Maximum seconds between two attempts to reach them."""
CHECK_SECONDS = 5
"""Seconds between two questions to Prefect whether the run should end."""
SHOW_SECONDS = 60
"""Seconds between two artifacts with the totals."""
ANNOUNCE_SECONDS = 300
"""Seconds between two events about rejected messages."""

Landings = Iterator[tuple[lake.Accounts | None, Reader]]
"""Accounts of each batch, None for an empty one, and the reader behind it."""


class StreamReport(lake.Counts):
    """What a run of a stream did."""

    table: str
    topic: str
    commits: int
    messages_lost: int
    """Number of messages that Kafka deleted unread, and that `skip_lost` left out."""


class BrokenTopic(RuntimeError):
    """Most messages of a topic are rejected."""


def land_topic(
    table: spec.Table,
    topic: str,
    batch_messages: int,
    batch_seconds: float,
    max_reject_share: float,
    until_end: bool,
    skip_lost: bool,
    mapping: Mapping | None,
    is_over: Callable[[], bool],
) -> Landings:
    """Land batches until `is_over`, or, with `until_end`, until the topic has been read."""
    quarantine.publish_rejects(table)
    group = f"kreislauf-{table.name}"
    with Reader(topic, group, partial(lake.progress, table), skip_lost) as reader:

        def is_enough() -> bool:
            return is_over() or (until_end and reader.reached_end)

        while not is_enough():
            batch = reader.read_batch(batch_messages, batch_seconds, is_enough)
            accounts = None
            if batch.raws:
                accounts = _load_batch(table, topic, batch, max_reject_share, mapping)
                reader.confirm(batch)
            yield accounts, reader


def _load_batch(
    table: spec.Table,
    topic: str,
    batch: Batch,
    max_reject_share: float,
    mapping: Mapping | None,
) -> lake.Accounts:
    source = f"kafka://{topic}"
    progress: lake.Progress = dict(batch.progress)
    origin = lake.Origin("stream", source, progress, mapping=mapping, source_name=source)
    return lake.load(table, batch.raws, lambda: origin, max_reject_share, mapping=mapping)


def retry_while_unreachable(land: Callable[[], Landings], is_over: Callable[[], bool]) -> Landings:
    """What `land` yields, which is started again for a while if the network is down."""
    silent_since = None
    pause = 1.0
    while True:
        try:
            for landing in land():
                silent_since = None
                pause = 1.0
                yield landing
            return
        except OSError as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > MAX_SILENCE_SECONDS:
                raise
            get_run_logger().warning("Trying again in %.0f s: %s", pause, error)
        end = time.monotonic() + pause
        pause = min(MAX_PAUSE_SECONDS, 2 * pause)
        while time.monotonic() < end and not is_over():
            time.sleep(0.2)
        if is_over():
            return


@contextmanager
def stream_run(
    table: str, topic: str, max_reject_share: float, ends_itself: bool
) -> "Iterator[StreamRun]":
    """A run that tells Prefect of what it did, however it ends.

    Raises Overtaken, with what to do, if another run lands the same topic.
    """
    run = StreamRun(table, topic, max_reject_share, ends_itself)
    try:
        yield run
    except lake.TooManyRejects as error:
        events.emit_rejected(table, error.counts, stopped=1)
        raise
    except lake.Overtaken as error:
        raise lake.Overtaken(
            f"{error} Only one run may land a topic; end the other one. Nothing is lost or doubled."
        ) from error
    finally:
        run.close()


class StreamRun:
    """What a run tells Prefect, and what Prefect tells it."""

    def __init__(self, table: str, topic: str, max_reject_share: float, ends_itself: bool) -> None:
        self._max_reject_share = max_reject_share
        self._table = table
        self._topic = topic
        self._log = get_run_logger()
        self._deployment = runtime.deployment.id
        if ends_itself:
            self._deployment = None
        self._over = False
        self._checked_at = -math.inf
        self._announced_at = -math.inf
        self._shown_at = time.monotonic()
        self._commits = 0
        self._messages_lost = 0
        self._totals = lake.total([])
        self._unannounced = lake.total([])

    def is_over(self) -> bool:
        """Whether to end: the deployment is paused, or a newer run of it is due.

        Asks Prefect every few seconds.
        """
        if self._deployment is None or self._over:
            return self._over
        if time.monotonic() - self._checked_at > CHECK_SECONDS:
            try:
                reason = reason_to_end(self._deployment)
                if reason:
                    self._over = True
                    self._log.info("%s This run ends.", reason)
            except (httpx.HTTPError, PrefectException) as error:
                self._log.warning("Prefect does not answer (%s): streaming on.", error)
            self._checked_at = time.monotonic()
        return self._over

    def note(self, accounts: lake.Accounts | None, reader: Reader) -> None:
        """Log a landing; show and announce the totals now and then. Raises BrokenTopic."""
        if reader.lost_messages:
            self._log.error(
                "%s messages of %s were deleted unread: left out.",
                reader.lost_messages,
                self._topic,
            )
            self._messages_lost += reader.lost_messages
            reader.lost_messages = 0
        if accounts:
            self._add(accounts, reader.lag)
        now = time.monotonic()
        if self._unannounced.lines_rejected and now - self._announced_at > ANNOUNCE_SECONDS:
            self._announce()
        if accounts and now - self._shown_at > SHOW_SECONDS:
            self._show()
        self._check()

    def close(self) -> None:
        """Announce and show what is still due."""
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
            messages_lost=self._messages_lost,
            **totals,
        )

    def _add(self, accounts: lake.Accounts, lag: int) -> None:
        self._commits += 1
        self._totals = lake.total([self._totals, accounts])
        self._unannounced = lake.total([self._unannounced, accounts])
        self._log.info(
            "Version %s: %s messages, %s rows kept, %s duplicates, %s messages rejected; "
            "%s messages behind.",
            accounts.version,
            accounts.lines_in,
            accounts.rows_kept,
            accounts.rows_duplicate,
            accounts.lines_rejected,
            lag,
        )

    def _check(self) -> None:
        """Stop at a topic whose batches are each too small to be called broken."""
        totals = self._totals
        share = totals.lines_rejected / max(totals.lines_in, 1)
        if totals.lines_rejected >= lake.MIN_REJECTS and share > self._max_reject_share:
            raise BrokenTopic(
                f"{totals.lines_rejected} of {totals.lines_in} messages that this run has read "
                f"were rejected ({share:.1%}), more than the limit of {self._max_reject_share:.1%},"
                f" mostly: {totals.reasons[0].rule}. They are in the table rejects: mend what "
                "sends such messages, or the rules, and use the flow replay. The next run goes on "
                "behind them."
            )

    def _announce(self) -> None:
        events.emit_rejected(self._table, self._unannounced, stopped=0)
        self._unannounced = lake.total([])
        self._announced_at = time.monotonic()

    def _show(self) -> None:
        key = f"stream-{self._topic}-{self._table}".lower().replace("_", "-").replace(".", "-")
        row = self.report().model_dump(exclude={"reasons"})
        description = f"`{self._topic}` into `{self._table}`"
        try:
            create_table_artifact(table=[row], key=key, description=description)
        except (httpx.HTTPError, PrefectException) as error:
            self._log.warning("Prefect does not answer (%s): the artifact is missing.", error)
        self._shown_at = time.monotonic()


def reason_to_end(deployment: str) -> str | None:
    """Why a run of this deployment should end, if it should."""
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
    if not waiting:
        return None
    return f"Run {waiting[0].name} is due and takes over."
