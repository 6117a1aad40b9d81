"""Grafana's dashboard, made from this list: `python -m deployments.dashboards` writes `FILE`."""

from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deployments.stack import ROOT

FILE = ROOT / "deployments" / "grafana" / "kreislauf.json"
BY = "model, version, variant"
WINDOW = "$__rate_interval"


class Panel(NamedTuple):
    """One question about what is live; the PromQL of each curve by its legend."""

    title: str
    unit: str
    curves: dict[str, str]


def quantile(share: float, series: str) -> str:
    """PromQL of a quantile over all requests of a variant."""
    return f"histogram_quantile({share}, sum by ({BY}, le) (rate({series}_bucket[{WINDOW}])))"


def per_answer(kind: str) -> str:
    """PromQL of how often an answer led to something."""
    asked = f"sum by ({BY}) (rate(kreislauf_requests_total[{WINDOW}]))"
    return (
        f'sum by ({BY}) (rate(kreislauf_feedback_total{{kind="{kind}"}}[{WINDOW}])) / ({asked} > 0)'
    )


def signal(part: str) -> str:
    """PromQL of a part of each of the monitor's signals."""
    return f'sum by (model, signal) (kreislauf_monitor_signal{{part="{part}"}})'


WHO = "{{model}} {{version}} {{variant}}"
MODEL = "{{model}}"
ROWS: dict[str, list[Panel]] = {
    "Do people use it?": [
        Panel("Clicks per answer", "percentunit", {WHO: per_answer("click")}),
        Panel("Carts and orders per answer", "percentunit", {
            f"{WHO} carts": per_answer("cart"),
            f"{WHO} orders": per_answer("order"),
        }),
        Panel("Items per answer, mean", "short", {
            WHO: f"sum by ({BY}) (rate(kreislauf_result_items_sum[{WINDOW}])) / "
            f"(sum by ({BY}) (rate(kreislauf_result_items_count[{WINDOW}])) > 0)",
        }),
    ],
    "Does it answer?": [
        Panel("Requests per second", "reqps", {WHO: f"sum by ({BY}) (rate(kreislauf_requests_total[{WINDOW}]))"}),
        Panel("Latency", "s", {
            f"{WHO} p50": quantile(0.5, "kreislauf_latency_seconds"),
            f"{WHO} p99": quantile(0.99, "kreislauf_latency_seconds"),
        }),
        Panel("Fallbacks per second", "reqps", {
            f"{MODEL} {{{{reason}}}}": f"sum by (model, reason) (rate(kreislauf_fallbacks_total[{WINDOW}]))",
        }),
        Panel("Refused per second", "reqps", {
            f"{MODEL} {{{{status}}}}": f"sum by (model, status) (rate(kreislauf_refused_total[{WINDOW}]))",
        }),
    ],
    "What is live?": [
        Panel("Release", "none", {MODEL: "max by (model) (kreislauf_release)"}),
        Panel("Age of the newest event that the champion learnt from", "s", {
            MODEL: "time() - max by (model) (kreislauf_data_watermark_seconds)",
        }),
        Panel("Items that the shadow shows too", "percentunit", {
            "{{model}} {{version}}": f"sum by (model, version) (rate(kreislauf_shadow_overlap_sum[{WINDOW}])) / "
            f"(sum by (model, version) (rate(kreislauf_shadow_overlap_count[{WINDOW}])) > 0)",
        }),
        Panel("Lines lost", "none", {"{{table}}": f"sum by (table) (increase(kreislauf_lost_lines_total[{WINDOW}]))"}),
    ],
    "Does the world change?": [
        Panel("Signals, in limits from usual", "none", {
            "{{model}} {{signal}}": f"({signal('value')} - {signal('usual')}) / {signal('limit')}",
        }),
        Panel("Live quality and what it was", "none", {
            "{{model}} {{signal}} {{part}}":
            'kreislauf_monitor_signal{signal=~"fresh|.*@.*|accuracy", part=~"value|usual"}',
        }),
        Panel("Verdict", "none", {"{{model}} {{verdict}}": "kreislauf_monitor_verdict"}),
        Panel("Age of the newest event that the monitor saw", "s", {
            MODEL: "time() - max by (model) (kreislauf_monitor_window_end_seconds)",
        }),
    ],
    "Triton": [
        Panel("Inferences per second", "reqps", {
            "{{model}} {{version}}": f"sum by (model, version) (rate(nv_inference_count[{WINDOW}]))",
        }),
        Panel("Mean batch", "short", {
            "{{model}} {{version}}": f"sum by (model, version) (rate(nv_inference_count[{WINDOW}])) / "
            f"(sum by (model, version) (rate(nv_inference_exec_count[{WINDOW}])) > 0)",
        }),
        Panel("Mean time in Triton", "µs", {
            f"{{{{model}}}} {{{{version}}}} {name}":
            f"sum by (model, version) (rate(nv_inference_{name}_duration_us[{WINDOW}])) / "
            f"(sum by (model, version) (rate(nv_inference_request_success[{WINDOW}])) > 0)"
            for name in ("queue", "compute_infer")
        }),
    ],
}  # fmt: skip


def build() -> Dashboard:
    """The dashboard as Grafana imports it."""
    board = (
        dashboard.Dashboard("Kreislauf: live answers")
        .uid("kreislauf")
        .tags(["kreislauf"])
        .time("now-6h", "now")
    )
    for row, panels in ROWS.items():
        board = board.with_row(dashboard.Row(row))
        for told in panels:
            panel = (
                timeseries.Panel()
                .title(told.title)
                .unit(told.unit)
                .span(24 // len(panels))
                .height(8)
            )
            for legend, expression in told.curves.items():
                panel = panel.with_target(
                    prometheus.Dataquery().expr(expression).legend_format(legend)
                )
            board = board.with_panel(panel)
    return board.build()


def text() -> str:
    """Of the file."""
    return JSONEncoder(sort_keys=True, indent=1).encode(build()) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
