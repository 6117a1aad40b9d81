"""The lifecycle page in a real browser, Debian's Chromium: everybody can read it (axe), on small
screens and in the dark, and it needs nothing but itself."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from kreislauf.monitoring.feedback import clicks_by_variant, reactions
from kreislauf.pages import life, lifecycle
from kreislauf.pages.links import Links
from kreislauf.release import lifecycle_page
from tests.kreislauf.pages import story
from tests.serving.conftest import running

pytestmark = pytest.mark.system
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
LINKS = Links("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")
SMALLEST_PX = 11.0
"""Least height of the letters in a picture."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, with a profile of its own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=OPTIONS.split()
        )
        yield chromium
        chromium.close()


def draw() -> str:
    """The page of what a test has written."""
    current = life.read(story.SPEC)
    start = current.clicks_since
    shown = reactions(story.MODEL, start, current.newest, history_days=0)
    return lifecycle.draw(current, LINKS, clicks_by_variant(shown, start))


def opened(browser: Browser, html: str, folder: Path, width: int, scheme: str) -> Page:
    """The page from a file, with what can be unfolded open."""
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(f"file://{path}")
    for summary in page.locator("summary").all():
        summary.click()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("weeks", [0, 6], ids=["empty", "story"])
def test_axe_finds_nothing_wrong(
    browser: Browser, tmp_path: Path, weeks: int, width: int, scheme: str
):
    if weeks:
        story.write(weeks)
    page = opened(browser, draw(), tmp_path, width, scheme)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing hangs over"
    sizes = [
        box["height"]
        for text in page.locator("svg.chart text").all()
        if (box := text.bounding_box())
    ]
    assert min(sizes, default=SMALLEST_PX) >= SMALLEST_PX
    assert bool(sizes) == bool(weeks)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ('<html lang="en">', "<html>", "html-has-lang"),
        (' role="img" aria-label=', ' role="img" title-of=', "svg-img-alt"),
        ("--soft: #57606a", "--soft: #c9ced3", "color-contrast"),
        (' tabindex="0"', "", "scrollable-region-focusable"),
    ],
)
def test_axe_would_find_what_is_wrong(
    browser: Browser, tmp_path: Path, good: str, bad: str, rule: str
):
    story.write(6)
    html = draw()
    assert good in html
    page = opened(browser, html.replace(good, bad), tmp_path, 400, "light")
    violations = Axe().run(page).response["violations"]
    assert [violation["id"] for violation in violations] == [rule]


def test_a_screen_reader_gets_the_pictures_in_words_and_the_tables_by_name(
    browser: Browser, tmp_path: Path
):
    story.write(6)
    page = opened(browser, draw(), tmp_path, 1280, "light")
    assert page.get_by_role("heading", level=1).all_inner_texts() == ["session_recommender"]
    headings = page.get_by_role("heading", level=2).all_inner_texts()
    assert headings == [
        "This waits for a person", "Quality over time", "Releases", "Decisions", "A/B tests",
        "Batches", "Alarms", "What is not trusted",
    ]  # fmt: skip
    images = [image.get_attribute("aria-label") for image in page.get_by_role("img").all()]
    assert len(images) == 3, "of each picture the one that is shown"
    assert images[0].startswith("recall@20 in 72 windows: the live version from 0.440 to 0.354; ")
    assert images[1].startswith("Gain in recall@20 over the live version in the newest 7 decisions")
    assert images[2].startswith("The A/B test of version 7 against version 6: the difference at 5")
    table = page.get_by_role("table", name="Entries of the release log, the newest first")
    assert table.get_by_role("columnheader").count() == 7
    assert table.get_by_role("rowheader").all_inner_texts() == list("7654321")
    regions = page.get_by_role("region", name=re.compile("newest first")).all()
    assert len(regions) >= 5
    assert all(region.get_attribute("tabindex") == "0" for region in regions)


def test_the_gateway_s_page_asks_for_nothing_else_and_breaks_no_rule_of_its_own(
    browser: Browser,
):
    story.write(6)
    lifecycle_page.write(story.MODEL, draw())
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked = []
    messages = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    with running() as address:
        response = page.goto(f"http://{address}/models/{story.MODEL}")
    assert response.status == 200
    assert [url for url in asked if not url.endswith("/favicon.ico")] == [response.url]
    assert [text for text in messages if "favicon" not in text and "404" not in text] == []
    colour = page.locator(".curve.live").first.evaluate("e => getComputedStyle(e).stroke")
    assert colour == "rgb(11, 110, 79)", "the style of the page is allowed"


@pytest.mark.parametrize(("password", "status"), [("secret", 200), ("wrong", 401)])
def test_a_person_gives_the_gateway_s_token_as_a_password(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, password: str, status: int
):
    lifecycle_page.write(story.MODEL, draw())
    monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", "secret")
    credentials = {"username": "Ada", "password": password}
    page = browser.new_page(http_credentials=credentials)
    with running() as address:
        response = page.goto(f"http://{address}/models/{story.MODEL}")
    assert response.status == status
    assert ("No version is live yet" in page.content()) == (status == 200)
