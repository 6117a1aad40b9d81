"""Pictures of how popularity moves: favourites, their concentration, and new articles."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from notebooks.lake_data import LakeData
from notebooks.pictures import (
    GREEN,
    GREY,
    SERIES,
    Page,
    Shown,
    draw_empty,
    make_panels,
    percent,
    use_log_scale,
)


def show_popularity(page: Page, data: LakeData) -> Shown:
    """How long favourites last, how the weeks overlap, how concentrated and how new clicks are."""
    figure, panels = make_panels("How popularity moves", "AB;CD", 7.5)
    weekly = data.clicks.group_by("week", "aid").len("clicks")
    weekly = weekly.sort("week", "clicks", "aid", descending=[False, True, False])
    if weekly.is_empty():
        for axes in panels:
            draw_empty(axes, "The lake has no clicks.")
        return page.show("popularity", figure, "The lake has no clicks.")
    lasting, overlap, concentration, new = panels
    conclusions = [
        _draw_lasting(lasting, weekly, data),
        _draw_overlap(overlap, weekly),
        _draw_concentration(concentration, weekly),
        _draw_new(new, data),
    ]
    return page.show("popularity", figure, " ".join(conclusions))


def _draw_lasting(axes: Axes, weekly: pl.DataFrame, data: LakeData) -> str:
    """Share of the weeks' clicks that the favourites of the first week have."""
    favourites = weekly.filter(pl.col("week") == weekly["week"][0])["aid"]
    for k, colour in zip((500, 100, 20), SERIES, strict=False):
        kept = pl.col("clicks").filter(pl.col("aid").is_in(favourites.head(k).implode())).sum()
        percents = weekly.group_by("week", maintain_order=True).agg(
            percent=100 * kept / pl.sum("clicks")
        )
        week_starts = data.edges[7 * percents["week"]]
        axes.plot(week_starts, percents["percent"], "o-", color=colour, label=f"its top {k}")
    axes.set(
        title="what became of the first week's favourites",
        xlabel="week from",
        ylabel="% of the week's clicks",
    )
    axes.set(ylim=0)
    axes.legend()
    first = percents["percent"][0]
    final = percents["percent"][-1]
    return (
        f"The top 20 of the first week have {first:.3g} % of its clicks, "
        f"and {final:.3g} % of the last week's."
    )


def _draw_overlap(axes: Axes, weekly: pl.DataFrame) -> str:
    """Share of the top 100 that two weeks have in common."""
    shared = shared_favourites(weekly)
    ends = (0.5, len(shared) + 0.5)
    image = axes.imshow(
        shared, cmap="Greens", vmin=0, vmax=100, extent=(*ends, *ends[::-1]), aspect="auto"
    )
    axes.set(
        title="top 100 that two weeks have in common",
        xlabel="number of the week",
        ylabel="number of the week",
    )
    axes.figure.colorbar(image, label="% of the articles")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    neighbours = np.diagonal(shared, 1)
    neighbours = neighbours[~np.isnan(neighbours)]
    ends_shared = shared[weekly["week"][0], -1]
    conclusion = f"Of the top 100, the first and the last week share {ends_shared:.0f} %"
    if not len(neighbours):
        return f"{conclusion}."
    return f"{conclusion}, neighbouring weeks {neighbours.mean():.0f} % on average."


def shared_favourites(weekly: pl.DataFrame) -> np.ndarray:
    """Percent of the top 100 that two weeks share, (weeks, weeks); NaN for weeks without clicks."""
    top = weekly.group_by("week", maintain_order=True).head(100)
    sizes = np.bincount(top["week"]).astype(float)
    pairs = top.join(top, on="aid").group_by("week", "week_right").len()
    shared = np.zeros((len(sizes), len(sizes)))
    shared[pairs["week"], pairs["week_right"]] = pairs["len"]
    sizes[sizes == 0] = np.nan
    return 100 * shared / np.minimum.outer(sizes, sizes)


def _draw_concentration(axes: Axes, weekly: pl.DataFrame) -> str:
    """How few articles take how many of the clicks, in the first week, the last one, and ever."""
    ever = weekly.group_by("aid").agg(pl.sum("clicks")).sort("clicks", descending=True)
    first, final = (weekly.filter(pl.col("week") == weekly["week"][i]) for i in (0, -1))
    for label, counts, colour in (
        ("first week", first, GREEN),
        ("last week", final, SERIES[1]),
        ("ever", ever, GREY),
    ):
        share = 100 * counts["clicks"].cum_sum() / counts["clicks"].sum()
        axes.plot(100 * np.arange(1, len(share) + 1) / len(share), share, color=colour, label=label)
    axes.set(
        title="how few take how much",
        xlabel="% of the articles, most clicked first",
        ylabel="% of the clicks",
    )
    axes.legend()
    use_log_scale(axes, "x")
    most_clicked = share[max(len(share) // 100, 1) - 1]
    return f"The most clicked 1 % of the articles have {most_clicked:.3g} % of all clicks."


def _draw_new(axes: Axes, data: LakeData) -> str:
    """Share of the clicks on articles that the lake did not have on an earlier day."""
    axes.set(
        title="clicks on articles never seen before that day",
        xlabel="day (UTC)",
        ylabel="% of the day's clicks",
    )
    first_days = data.events.group_by("aid").agg(since=pl.min("day"))
    is_new = pl.col("day") == pl.col("since")
    clicks = data.clicks.join(first_days, on="aid").filter(pl.col("day") > 0)
    daily = clicks.group_by("day").agg(clicks=pl.len(), new=is_new.sum()).sort("day")
    if daily.is_empty():
        draw_empty(axes, "There is only one day.")
        return ""
    percents = 100 * daily["new"] / daily["clicks"]
    axes.plot(data.edges[daily["day"]], percents, ".-", color=GREEN, linewidth=0.8)
    axes.set(ylim=0)
    new, total = (int(daily[name].tail(7).sum()) for name in ("new", "clicks"))
    return (
        f"Of the clicks of the last seven days, {percent(new, total)} "
        "are on articles new on their day."
    )
