"""The lifecycle page has what the tables have, bounded, and says who is asked what."""

import itertools
import re
import uuid

import polars as pl
import pytest

from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.evaluation.decision import DECISIONS
from kreislauf.lake import approvals, exclusions, journal
from kreislauf.lake.exclusions import HumanVerdict
from kreislauf.monitoring import calibration, feedback, policy, tables
from kreislauf.pages import charts, life, life_tables, lifecycle
from kreislauf.pages.links import Links
from kreislauf.release import lifecycle_page
from models import spec
from models.session_recommender import SPEC
from tests.kreislauf.pages import story
from tests.kreislauf.pages.story import FIRST, MODEL, WEEK

LINKS = Links("http://prefect:1", "http://mlflow:2", "http://grafana:3")


def page() -> str:
    """The page of what the test has written."""
    current = life.read(SPEC)
    rates = feedback.clicks_by_batch([answered.batch for answered in current.batches])
    return lifecycle.draw(current, LINKS, (), rates)


def summary() -> str:
    """Its first sentence."""
    return lifecycle.summary(life.read(SPEC))


def section(html: str, title: str) -> str:
    """The part of the page below a heading."""
    return html.split(f">{title}</h2>")[1].split("</section>")[0]


def cells(html: str) -> list[list[str]]:
    """Texts of the rows of the tables in a part of the page."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    texts = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]
    return [[re.sub("<[^>]+>", "", text).strip() for text in row] for row in texts]


@pytest.mark.parametrize("name", spec.names())
def test_a_model_type_of_which_there_is_nothing_has_a_page(name: str):
    current = life.read(spec.load(name))
    assert lifecycle.summary(current) == "No version is live yet, and nothing waits for a person."
    html = lifecycle.draw(current, Links())
    assert f"<h1>{name}</h1>" in html
    for title in ("Quality over time", "Releases", "Decisions", "A/B tests", "Alarms"):
        assert 'class="note"' in section(html, title), title
    assert "Trainings learn from all of the data." in section(html, "What is not trusted")
    assert "<table" not in html
    assert "<nav" not in html


def test_the_first_sentence_says_what_is_live_how_well_and_what_waits():
    story.write_releases(2)
    assert summary() == (
        "Version 2 is live since 2026-10-05 02:00 UTC; the monitor has not looked at it yet; "
        "nothing waits for a person."
    ), "the A/B test, which came later, changed no champion"
    story.write_decisions(2)
    assert "(recall@20 0.410 when it was judged)" in summary()
    story.write_windows(2)
    story.write_status(1, FIRST + WEEK, "concept drift")
    assert "the monitor has not looked at it yet" in summary(), "it looked at the version before"
    story.write_status(2, FIRST + 2 * WEEK, "undecided", wait="Too young.")
    assert summary() == (
        "Version 2 is live since 2026-10-05 02:00 UTC; its answers have become worse, and it is "
        "too early to say why (recall@20 0.394, where the first version would reach 0.276); "
        "nothing waits for a person."
    )


def test_the_first_version_is_not_compared_with_itself():
    story.write_releases(1)
    story.write_windows(1)
    story.write_status(1, FIRST + WEEK)
    assert "its answers are as good as usual (recall@20 0.364); nothing" in summary()


def test_each_part_comes_from_its_table():
    story.write()
    current = life.read(SPEC)
    start = current.clicks_since
    reactions = feedback.reactions(MODEL, start, exclusions.NO_END, history_days=0)
    html = lifecycle.draw(current, LINKS, feedback.clicks_by_variant(reactions, start))
    quality = section(html, "Quality over time")
    assert quality.count("<svg class=") == 2, "one for wide screens, one for narrow ones"
    wide = quality.split("</svg>")[0]
    assert wide.count("<use") == 72
    assert re.findall(r">(v\d)</text>", wide) == ["v1", "v2", "v3", "v4", "v5", "v6"]
    assert wide.count('<polyline class="curve live"') == 6, "broken where the version changes"
    for css, verdict in (("concept-drift", 1), ("data-fault", 1), ("stable", 68)):
        assert wide.count(f'href="#{css}"') == verdict, css
    windows = cells(quality)
    assert windows[1] == ["2026-11-09 00:00", "6", "0.3541", "0.1201", "0.3401", "stable"]
    assert len(windows) == 1 + life.MAX_ROWS
    releases = cells(section(html, "Releases"))
    assert releases[1][:4] == ["7", "2026-11-07 00:00", "6", "5"]
    assert releases[-1][:4] == ["1", "2026-09-28 02:00", "1", "none"]
    decisions = cells(section(html, "Decisions"))
    assert decisions[1][:5] == ["8", "refuse", "0.4100", "0.3700", "-0.0180 [-0.0290, -0.0070]"]
    assert decisions[-1][4] == "none", "there was no champion yet"
    assert section(html, "Decisions").split("</svg>")[0].count("<circle") == 7
    tests = cells(section(html, "A/B tests"))
    assert tests[1] == ["2026-11-07 00:00", "it runs", "6", "7", "10.0%", "Ada", "Day 5."]
    picture = section(html, "A/B tests")
    assert "The A/B test of version 7 against version 6, look by look" in picture
    assert picture.split("</svg>")[0].count("<circle") == 5
    assert "it is +4.0%, from -6.7% to +14.7%. The bound of harm is -12.2%." in picture
    assert picture.split("</svg>")[0].count('class="bound harm"') == 5
    assert tests[3][:2] == ["champion", "6"]
    assert tests[4][:2] == ["challenger", "7"]
    rates = [float(row[3].split()[0]) for row in tests[3:]]
    assert rates == pytest.approx([0.25, 0.5], abs=0.01)
    alarms = cells(section(html, "Alarms"))
    assert alarms[1][3:] == [story.EVIDENCE, policy.ASKED]
    faults = section(html, "What is not trusted")
    assert "<li>2026-10-28 00:00 to 2026-10-29 00:00</li>" in faults
    assert [row[2:4] for row in cells(faults)[1:]] == [
        ["Ada", "trusted"],
        ["the monitor", "left out"],
    ], "a fault that grew is one stretch"
    assert "article 0 (0)" in faults, "the newest reason"
    addresses = set(re.findall(r'href="(http[^"]+)"', html))
    assert {
        "http://prefect:1/artifacts/key/monitor-session-recommender",
        "http://mlflow:2/#/models/session_recommender/versions/6",
        "http://grafana:3/d/kreislauf",
    } <= addresses


def test_releases_decisions_and_verdicts_lead_to_their_flow_runs_where_these_are_on_record():
    def number() -> str:
        return str(uuid.uuid4())

    story.write_releases(1)
    story.write_windows(1)
    story.write_decisions(1)
    story.write_alarms()
    assert "/runs/flow-run/" not in page(), "an earlier version of Kreislauf recorded none"
    runs = {"release": number(), "window": number(), "decision": number(), "alarm": number()}
    story.write_release(3, 2, FIRST + WEEK, flow_run=runs["release"])
    windows = calibration.signal_rows(
        MODEL, 2, FIRST, FIRST + WEEK, WEEK, "stable", {SPEC.metric: 0.4}
    )
    rows = windows.with_columns(flow_run=pl.lit(runs["window"]))
    journal.append_once(tables.WINDOWS, "w", rows)
    rows = story.decision(4, FIRST + WEEK, "promote", 0.1)
    journal.append_once(DECISIONS, "d", rows.with_columns(flow_run=pl.lit(runs["decision"])))
    rows = journal.read(tables.ALARMS).with_columns(flow_run=pl.lit(runs["alarm"]))
    journal.append_once(tables.ALARMS, "a", rows)
    html = page()
    for title, text, run in (
        ("Quality over time", "stable", runs["window"]),
        ("Releases", "2026-10-05 00:00", runs["release"]),
        ("Decisions", "promote", runs["decision"]),
        ("Alarms", "concept drift", runs["alarm"]),
    ):
        links = re.findall(
            r'<a href="http://prefect:1/runs/flow-run/(.*?)">(.*?)</a>', section(html, title)
        )
        assert links == [(run, text)], title
    assert "lead to their runs in Prefect" in html
    without_prefect = lifecycle.draw(life.read(SPEC), Links())
    assert "flow-run" not in without_prefect
    assert "lead to their runs" not in without_prefect


def test_a_champion_of_more_releases_than_the_page_shows_is_live_since_its_first():
    for number in range(1, life.MAX_ROWS + 12):
        version = 1 + (number > 2)
        story.write_release(number, version, FIRST + number * HOUR_MS, watermark=FIRST)
    assert len(life.read(SPEC).log) == life.MAX_ROWS
    assert summary().startswith("Version 2 is live since 2026-09-28 03:00 UTC;")
    assert lifecycle.marks(life.read(SPEC)) == [(FIRST + 3 * HOUR_MS, "v2")]


def test_an_ended_test_has_its_end_and_all_shares():
    story.write_releases(1)
    about = {"challenger": 2, "share": 0.25, "who": "Ada"}
    story.write_release(3, 1, FIRST + 6 * DAY_MS, **about)
    story.write_release(4, 1, FIRST + 7 * DAY_MS)
    (row,) = cells(section(page(), "A/B tests"))[1:]
    assert row == [
        "2026-10-03 00:00", "2026-10-05 00:00", "1", "2", "10.0% then 25.0%", "Ada", "",
    ]  # fmt: skip


def test_what_people_and_data_say_stays_text():
    nasty = '<script>alert("1")</script><img src=x onerror=alert(1)> & "q" \' }}{{ 7*7 }}'
    story.write_release(1, 1, FIRST, reason=nasty, who=nasty, hold=nasty)
    story.write_alarms(reason=nasty)
    verdict = HumanVerdict(table="events", start=FIRST, end=None, who=nasty, reason=nasty, at=1)
    exclusions.record_verdict(verdict)
    exclusions.exclude("events", FIRST, FIRST + 1, nasty)
    html = page()
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;") == 7
    assert "{{ 7*7 }}" in html
    assert "now on" in section(html, "What is not trusted")


def test_a_year_of_looks_makes_no_large_page():
    story.write(52)
    html = page()
    assert len(html) < 200_000
    assert len(cells(section(html, "Releases"))) == 1 + life.MAX_ROWS
    newest = FIRST + 52 * WEEK
    assert life.read(SPEC).windows["end"].min() > newest - life.DAYS * DAY_MS
    assert f"go back {life.DAYS} days of data; each table has the newest {life.MAX_ROWS} rows" in (
        html
    )


def test_looks_at_short_windows_are_bounded_too():
    story.write_release(1, 1, FIRST)
    story.write_status(1, FIRST + 2_000 * HOUR_MS)
    frames = []
    for number in range(2_000):
        end = FIRST + number * HOUR_MS
        place = (MODEL, 1, end - DAY_MS, end, DAY_MS)
        frames.append(calibration.signal_rows(*place, "stable", {SPEC.metric: 0.4}))
    journal.append_once(tables.WINDOWS, "many", pl.concat(frames))
    assert life.read(SPEC).windows.height == life.MAX_WINDOWS
    assert len(page()) < 400_000


def test_a_hold_waits_for_a_person():
    story.write_release(1, 1, FIRST)
    story.write_release(2, 1, FIRST + 1, hold="version 2 was rolled back: clicks fell.")
    assert summary().endswith("something waits for a person, see below.")
    waiting = section(page(), "This waits for a person")
    assert "The model is on hold: version 2 was rolled back: clicks fell. A person is" in waiting


@pytest.mark.parametrize("answer", ["none", "declined", "live", "withdrawn"])
def test_a_question_waits_until_it_is_answered(answer: str):
    story.write_release(1, 1, FIRST)
    approvals.record(MODEL, 2, "asked", "version 2 may go live.")
    if answer == "declined":
        approvals.record(MODEL, 2, "declined", "Ada")
    if answer == "live":
        story.write_release(2, 2, FIRST + 1)
    if answer == "withdrawn":
        row = story.decision(3, FIRST, "promote", 0.1)
        journal.append_once(DECISIONS, "3", row)
    waiting = life.read(SPEC).waiting
    assert waiting == ["version 2 may go live."] * (answer == "none")


def test_a_question_about_the_data_waits_until_somebody_gives_a_verdict():
    story.write_release(1, 1, FIRST)
    end = FIRST + WEEK
    wait = f"{policy.QUESTION} Is it a new assortment?"
    story.write_status(1, end, "data fault", wait=wait)
    assert life.read(SPEC).waiting == [wait]
    answer = HumanVerdict(
        table="events", start=FIRST, end=None, who="Ada", reason="It is.", at=end + 2 * HOUR_MS
    )
    exclusions.record_verdict(answer.model_copy(update={"at": end}))
    assert life.read(SPEC).waiting == [wait], "it was said before the question"
    exclusions.record_verdict(answer)
    assert life.read(SPEC).waiting == []


def test_a_release_stands_where_it_was_written_or_in_a_replay_where_its_data_ended():
    story.write_releases(3)
    log = life.read(SPEC).log
    newest = FIRST + 3 * WEEK
    assert life.moments(log, newest) == [release.at for release in log]
    years_later = [release.model_copy(update={"at": FIRST + 10**12}) for release in log]
    watermarks = [release.watermark for release in log]
    assert life.moments(years_later, newest) == watermarks
    old = [release.model_copy(update={"at": None}) for release in log]
    assert life.moments(old, newest) == watermarks
    back = old[0].model_copy(update={"number": 9})
    assert life.moments([*old, back], newest)[-1] == watermarks[-1], "a rollback is no step back"


def test_crowded_marks_keep_their_line_and_lose_their_label():
    story.write_releases(1)
    story.write_windows(6)
    releases = [(FIRST, "v1"), (FIRST + 1, "v2"), (FIRST + 6 * WEEK, "v3")]
    windows = life.read(SPEC).windows
    drawn = charts.curves("wide", 860, 300, windows, tuple(life.CURVES), releases)
    assert [mark.label for mark in drawn.marks] == ["", "v2", "v3"]
    assert all(drawn.left <= mark.at <= drawn.right for mark in drawn.marks)


@pytest.mark.parametrize("days", [0.4, 3, 8.3, 17, 90])
def test_dates_of_an_axis_keep_apart_and_inside(days: float):
    x = charts.Scale(FIRST + HOUR_MS, FIRST + HOUR_MS + days * DAY_MS, 52, 842)
    places = [tick.at for tick in charts.dates(x, 8)]
    assert 1 <= len(places) <= 8
    gaps = {round(later - earlier) for earlier, later in itertools.pairwise(places)}
    assert len(gaps) <= 1, "the steps are equal"
    assert min(gaps, default=charts.TICK_GAP) >= charts.TICK_GAP
    assert places[0] >= 52
    assert places[-1] <= 842 - charts.DATE_ROOM


def test_a_long_text_is_unfolded_by_who_wants_it():
    reason = "It loses more than 0.01 in a slice. " * 12
    story.write_release(1, 1, FIRST, reason=reason.strip())
    (row,) = re.findall(
        "<details><summary>(.*?)</summary>(.*?)</details>", section(page(), "Releases")
    )
    beginning, rest = (text.replace("&nbsp;...", "").replace("... ", "") for text in row)
    assert len(beginning) <= life_tables.LONG
    assert f"{beginning}{rest}".split() == reason.split()


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [(0.0, 0.44, [0, 0.2, 0.4, 0.6]), (-0.03, 0.05, [-0.04, -0.02, 0, 0.02, 0.04, 0.06])],
)
def test_an_axis_has_round_steps(low: float, high: float, steps: list[float]):
    assert charts.nice_steps(low, high, 4) == pytest.approx(steps)


def test_curves_and_axes_of_nothing_but_zeros_can_be_drawn():
    windows = life.read(SPEC).windows
    row = pl.DataFrame([{"end": FIRST, "version": 1, "verdict": "stable", "live": 0.0}])
    drawn = charts.curves(
        "wide", 860, 300, pl.concat([windows, row], how="diagonal"), tuple(life.CURVES), []
    )
    assert len(drawn.points) == 1
    assert drawn.times


@pytest.fixture
def release_folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release log on disk, or on S3."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        monkeypatch.setenv("KREISLAUF_RELEASES", "s3://shop/releases/")


@pytest.mark.parametrize("release_folder", ["disk", "s3"], indirect=True)
def test_the_file_lies_beside_the_release_log_and_is_replaced_whole(release_folder):
    assert lifecycle_page.read("m") is None
    lifecycle_page.write("m", "<p>ä</p>")
    lifecycle_page.write("m", "<p>ö</p>")
    assert lifecycle_page.read("m") == "<p>ö</p>".encode()
    assert lifecycle_page.address("m").endswith("/releases/m/lifecycle.html")
