"""Grafana's dashboard, made from lists of panels: `python -m deployments.dashboards` writes it."""

from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, VariableOption, VariableRefresh

from deployments.stack import ROOT

FILE = ROOT / "deployments" / "grafana" / "kreislauf.json"
BY_VARIANT = "model, version, variant"
BY_VERSION = "model, version"
WINDOW = "$__rate_interval"
CHOSEN = 'model=~"$model"'
"""PromQL of the models that are chosen at the top of the dashboard."""
MODEL = "{{model}}"
VERSION = "{{model}} {{version}}"
VARIANT = "{{model}} {{version}} {{variant}}"


class Panel(NamedTuple):
    """One question about what is live; the PromQL of each curve by its legend."""

    title: str
    unit: str
    curves: dict[str, str]


def chosen(series: str, *conditions: str) -> str:
    """PromQL of a series of the models that are chosen, on further conditions."""
    return f"{series}{{{', '.join([CHOSEN, *conditions])}}}"


def rate(series: str, labels: str, *conditions: str) -> str:
    """PromQL of the increase per second of a counter."""
    return f"sum by ({labels}) (rate({chosen(series, *conditions)}[{WINDOW}]))"


def ratio(numerator: str, denominator: str) -> str:
    """PromQL of a ratio, which has no value where the denominator is 0."""
    return f"{numerator} / ({denominator} > 0)"


def mean(series: str, labels: str) -> str:
    """PromQL of the mean of a histogram."""
    return ratio(rate(f"{series}_sum", labels), rate(f"{series}_count", labels))


def quantile(share: float, series: str) -> str:
    """PromQL of a quantile over all requests of a variant."""
    return f"histogram_quantile({share}, {rate(f'{series}_bucket', f'{BY_VARIANT}, le')})"


def per_answer(feedback: str) -> str:
    """PromQL of how often an answer led to this feedback."""
    return ratio(
        rate("kreislauf_feedback_total", BY_VARIANT, f'kind="{feedback}"'),
        rate("kreislauf_requests_total", BY_VARIANT),
    )


def signal(field: str) -> str:
    """PromQL of a field of each of the monitor's signals."""
    series = chosen("kreislauf_monitor_signal", f'part="{field}"')
    return f"sum by (model, signal) ({series})"


def age(series: str) -> str:
    """PromQL of the seconds since a time."""
    return f"time() - max by (model) ({chosen(series)})"


USE = [
    Panel("Clicks per answer", "percentunit", {VARIANT: per_answer("click")}),
    Panel(
        "Carts and orders per answer",
        "percentunit",
        {f"{VARIANT} carts": per_answer("cart"), f"{VARIANT} orders": per_answer("order")},
    ),
    Panel("Items per answer, mean", "short", {VARIANT: mean("kreislauf_result_items", BY_VARIANT)}),
]
ANSWERS = [
    Panel("Requests per second", "reqps", {VARIANT: rate("kreislauf_requests_total", BY_VARIANT)}),
    Panel(
        "Latency",
        "s",
        {
            f"{VARIANT} p50": quantile(0.5, "kreislauf_latency_seconds"),
            f"{VARIANT} p99": quantile(0.99, "kreislauf_latency_seconds"),
        },
    ),
    Panel(
        "Fallbacks per second",
        "reqps",
        {f"{MODEL} {{{{reason}}}}": rate("kreislauf_fallbacks_total", "model, reason")},
    ),
    Panel(
        "Refused per second",
        "reqps",
        {f"{MODEL} {{{{status}}}}": rate("kreislauf_refused_total", "model, status")},
    ),
]
RELEASES = [
    Panel("Release", "none", {MODEL: f"max by (model) ({chosen('kreislauf_release')})"}),
    Panel(
        "Age of the newest event that the champion learnt from",
        "s",
        {MODEL: age("kreislauf_data_watermark_seconds")},
    ),
    Panel(
        "Items that the shadow shows too",
        "percentunit",
        {VERSION: mean("kreislauf_shadow_overlap", BY_VERSION)},
    ),
    Panel(
        "Lines lost, of all models",
        "none",
        {"{{table}}": f"sum by (table) (increase(kreislauf_lost_lines_total[{WINDOW}]))"},
    ),
]
MONITOR = [
    Panel(
        "Deviation of the signals from their means, in tolerances",
        "none",
        {"{{model}} {{signal}}": f"({signal('value')} - {signal('mean')}) / {signal('tolerance')}"},
    ),
    Panel(
        "Live quality and its mean",
        "none",
        {
            "{{model}} {{signal}} {{part}}": chosen(
                "kreislauf_monitor_signal",
                'signal=~"refit_baseline|.*@.*|accuracy"',
                'part=~"value|mean"',
            )
        },
    ),
    Panel("Verdict", "none", {"{{model}} {{verdict}}": chosen("kreislauf_monitor_verdict")}),
    Panel(
        "Age of the newest event that the monitor saw",
        "s",
        {MODEL: age("kreislauf_monitor_window_end_seconds")},
    ),
]
INFERENCES = rate("nv_inference_count", BY_VERSION)
SUCCESSES = rate("nv_inference_request_success", BY_VERSION)
TRITON = [
    Panel("Inferences per second", "reqps", {VERSION: INFERENCES}),
    Panel(
        "Mean batch",
        "short",
        {VERSION: ratio(INFERENCES, rate("nv_inference_exec_count", BY_VERSION))},
    ),
    Panel(
        "Mean time in Triton",
        "µs",
        {
            f"{VERSION} {name}": ratio(
                rate(f"nv_inference_{name}_duration_us", BY_VERSION), SUCCESSES
            )
            for name in ("queue", "compute_infer")
        },
    ),
]
ROWS: dict[str, list[Panel]] = {
    "Do people use it?": USE,
    "Does it answer?": ANSWERS,
    "What is live?": RELEASES,
    "Does the world change?": MONITOR,
    "Triton": TRITON,
}


def build() -> Dashboard:
    """The dashboard as Grafana imports it."""
    board = (
        dashboard.Dashboard("Kreislauf: live answers")
        .uid("kreislauf")
        .tags(["kreislauf"])
        .time("now-6h", "now")
        .with_variable(models())
    )
    for row, panels in ROWS.items():
        board = board.with_row(dashboard.Row(row))
        for panel in panels:
            board = board.with_panel(draw(panel, width=24 // len(panels)))
    return board.build()


def models() -> dashboard.QueryVariable:
    """The choice at the top: models that are live, any number of them, or all that there are."""
    return (
        dashboard.QueryVariable("model")
        .query("label_values(kreislauf_release, model)")
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(text=["All"], value=["$__all"]))
    )


def draw(panel: Panel, width: int) -> timeseries.Panel:
    """The panel as Grafana draws it; a row of the dashboard is 24 wide."""
    drawn = timeseries.Panel().title(panel.title).unit(panel.unit).span(width).height(8)
    for legend, expression in panel.curves.items():
        query = prometheus.Dataquery().expr(expression).legend_format(legend)
        drawn = drawn.with_target(query)
    return drawn


def text() -> str:
    """The text of the file."""
    return JSONEncoder(sort_keys=True, indent=1).encode(build()) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
