"""What Prometheus sees of the gateway; the names are those of `deployments/prometheus` and of the
dashboards."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kreislauf.monitoring.status import MonitorStatus

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
ITEMS = (0, 1, 5, 10, 20, 50, 100)
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
REASONS = ("deadline", "unavailable")
SERVED = ("model", "version", "variant")


PARTS = ("value", "usual", "limit")


class Metrics:
    """All series, in a registry of their own, so that two gateways in one process keep apart."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "kreislauf_requests", "Answered requests.", SERVED, registry=registry
        )
        self.latency = Histogram(
            "kreislauf_latency_seconds", "From the request read to its answer.", SERVED, buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.items = Histogram(
            "kreislauf_result_items",
            "Items in an answer.",
            SERVED,
            buckets=ITEMS,
            registry=registry,
        )
        self.refused = Counter(
            "kreislauf_refused", "Requests not answered.", ("model", "status"), registry=registry
        )
        self.fallbacks = Counter(
            "kreislauf_fallbacks", "Fallback answers.", ("model", "reason"), registry=registry
        )
        self.feedback = Counter(
            "kreislauf_feedback",
            "What people did with answers.",
            (*SERVED, "kind"),
            registry=registry,
        )
        self.lost = Counter(
            "kreislauf_lost_lines",
            "Lines that the spool's disk refused.",
            ("table",),
            registry=registry,
        )
        self.release = Gauge(
            "kreislauf_release", "Number of the release in force.", ("model",), registry=registry
        )
        self.champion = Gauge(
            "kreislauf_champion", "Version that is the champion.", ("model",), registry=registry
        )
        self.release_errors = Counter(
            "kreislauf_release_errors",
            "Reads of the release log that failed.",
            ("model",),
            registry=registry,
        )
        self.watermark = Gauge(
            "kreislauf_data_watermark_seconds", "Newest event that the champion learnt from, since 1970.", ("model",),
            registry=registry,
        )  # fmt: skip
        self.shadow = Histogram(
            "kreislauf_shadow_overlap", "Share of the items shown that the shadowing challenger has too.", SERVED[:2],
            buckets=SHARES, registry=registry,
        )  # fmt: skip
        self.shadow_dropped = Counter(
            "kreislauf_shadow_dropped", "Shadow questions that were not asked or not answered.", ("model",),
            registry=registry,
        )  # fmt: skip
        self.signal = Gauge(
            "kreislauf_monitor_signal", "A signal of the monitor's newest window: value, usual, limit.",
            ("model", "signal", "part"), registry=registry,
        )  # fmt: skip
        self.verdict = Gauge(
            "kreislauf_monitor_verdict",
            "1 for the monitor's newest verdict.",
            ("model", "verdict"),
            registry=registry,
        )
        self.window_end = Gauge(
            "kreislauf_monitor_window_end_seconds", "Newest event that the monitor saw, since 1970.", ("model",),
            registry=registry,
        )  # fmt: skip
        self.monitored = Gauge(
            "kreislauf_monitor_run_seconds",
            "When the monitor last ran, since 1970.",
            ("model",),
            registry=registry,
        )

    def start(self, models: list[str], tables: list[str]) -> None:
        """At 0, because Prometheus sees no increase in a counter that appears with its first
        count."""
        for model in models:
            self.release_errors.labels(model)
            for reason in REASONS:
                self.fallbacks.labels(model, reason)
        for table in tables:
            self.lost.labels(table)

    def watched(self, said: MonitorStatus) -> None:
        """Show what the monitor said, and nothing of what it said before."""
        for gauge in (self.signal, self.verdict):
            gauge.remove_by_labels({"model": said.model})
        for name, vital in said.signals.items():
            for part in PARTS:
                self.signal.labels(said.model, name, part).set(getattr(vital, part))
        self.verdict.labels(said.model, said.verdict).set(1)
        self.window_end.labels(said.model).set(said.end / 1000)
        self.monitored.labels(said.model).set(said.at / 1000)
