"""Series for Prometheus; their names are those of `deployments/prometheus` and of the dashboard."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kreislauf.exposures import KINDS, Variant
from kreislauf.monitoring.status import MonitorStatus
from kreislauf.release.releases import Release

LATENCIES = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of the buckets, in seconds."""
ITEM_COUNTS = (0, 1, 5, 10, 20, 50, 100)
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
REASONS = ("deadline", "unavailable")
VERSION = ("model", "version")
VARIANT = ("model", "version", "variant")
SIGNAL_FIELDS = ("value", "mean", "tolerance")
"""Fields of a signal, each a series: values of the label `part`."""


class Metrics:
    """All series, in a registry of their own, so that two gateways in one process keep apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._make_answer_series()
        self._make_release_series()
        self._make_monitor_series()

    def _make_answer_series(self) -> None:
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("kreislauf_requests", "Answered requests.", VARIANT)
        self.latency = histogram(
            "kreislauf_latency_seconds",
            "Seconds from the request read to its answer.",
            VARIANT,
            buckets=LATENCIES,
        )
        self.items = histogram(
            "kreislauf_result_items", "Items in an answer.", VARIANT, buckets=ITEM_COUNTS
        )
        self.refused = counter("kreislauf_refused", "Requests not answered.", ("model", "status"))
        self.fallbacks = counter("kreislauf_fallbacks", "Fallback answers.", ("model", "reason"))
        self.feedback = counter(
            "kreislauf_feedback", "What people did with answers.", (*VARIANT, "kind")
        )
        self.lost = counter(
            "kreislauf_lost_lines", "Lines that the spool's disk refused.", ("table",)
        )
        self.shadow = histogram(
            "kreislauf_shadow_overlap",
            "Share of the items shown that the shadowing challenger has too.",
            VERSION,
            buckets=SHARES,
        )
        self.shadow_dropped = counter(
            "kreislauf_shadow_dropped",
            "Shadow questions that were not asked or not answered.",
            ("model",),
        )

    def _make_release_series(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        self.release = gauge("kreislauf_release", "Number of the release in force.", ("model",))
        self.champion = gauge("kreislauf_champion", "Version that is the champion.", ("model",))
        self.release_errors = Counter(
            "kreislauf_release_errors",
            "Reads of the release log that failed.",
            ("model",),
            registry=self.registry,
        )
        self.watermark = gauge(
            "kreislauf_data_watermark_seconds",
            "Newest event that the champion learnt from, since 1970.",
            ("model",),
        )

    def _make_monitor_series(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        self.signal = gauge(
            "kreislauf_monitor_signal",
            f"A signal of the monitor's newest window: {', '.join(SIGNAL_FIELDS)}.",
            ("model", "signal", "part"),
        )
        self.verdict = gauge(
            "kreislauf_monitor_verdict", "1 for the monitor's newest verdict.", ("model", "verdict")
        )
        self.window_end = gauge(
            "kreislauf_monitor_window_end_seconds",
            "Newest event that the monitor saw, since 1970.",
            ("model",),
        )
        self.monitored = gauge(
            "kreislauf_monitor_run_seconds",
            "When the monitor last ran, since 1970.",
            ("model",),
        )

    def start(self, models: list[str], tables: list[str]) -> None:
        """Make counters appear with 0: Prometheus sees no increase in a series that begins."""
        for model in models:
            self.release_errors.labels(model)
            for reason in REASONS:
                self.fallbacks.labels(model, reason)
        for table in tables:
            self.lost.labels(table)

    def count_answer(
        self,
        model: str,
        version: int,
        variant: Variant,
        seconds: float,
        items: int,
        reason: str | None,
    ) -> None:
        """Count an answer with its latency and size, and why it is a fallback, if it is."""
        labels = (model, str(version), variant)
        self.requests.labels(*labels).inc()
        for kind in KINDS:
            self.feedback.labels(*labels, kind)
        self.latency.labels(*labels).observe(seconds)
        self.items.labels(*labels).observe(items)
        if reason:
            self.fallbacks.labels(model, reason).inc()

    def show_release(self, release: Release) -> None:
        """Show the release in force."""
        self.release.labels(release.model).set(release.number)
        self.champion.labels(release.model).set(release.champion)
        if release.watermark:
            self.watermark.labels(release.model).set(release.watermark / 1000)

    def show_monitor(self, status: MonitorStatus) -> None:
        """Show the monitor's newest status, and nothing of those before."""
        model = status.model
        for gauge in (self.signal, self.verdict):
            gauge.remove_by_labels({"model": model})
        for name, signal in status.signals.items():
            for field in SIGNAL_FIELDS:
                self.signal.labels(model, name, field).set(getattr(signal, field))
        self.verdict.labels(model, status.verdict).set(1)
        self.window_end.labels(model).set(status.end / 1000)
        self.monitored.labels(model).set(status.at / 1000)
