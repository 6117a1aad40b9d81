"""A page is photographed after its scripts have run, by Debian's Chromium."""

from pathlib import Path

import pytest
from PIL import Image

from demo import browser

pytestmark = pytest.mark.system
PAGE = """
<body style="background: white">
<script>setTimeout(() => document.body.style.background = "rgb(200, 0, 0)", 3000)</script>
"""


def test_a_page_is_a_picture_of_its_size_once_its_scripts_have_run(tmp_path: Path):
    (tmp_path / "page.html").write_text(PAGE)
    picture = tmp_path / "picture.png"
    browser.photograph((tmp_path / "page.html").as_uri(), picture, 600, 500)
    with Image.open(picture) as photo:
        assert photo.size == (600, 500)
        assert photo.convert("RGB").getpixel((300, 250)) == (200, 0, 0)


@pytest.mark.parametrize(("dark", "ground"), [(False, (255, 255, 255)), (True, (0, 0, 200))])
def test_a_page_looks_as_on_a_small_or_dark_screen(tmp_path: Path, dark: bool, ground: tuple):
    style = "@media (prefers-color-scheme: dark) { body { background: rgb(0, 0, 200) } }"
    style += "@media (min-width: 401px) { body { background: rgb(200, 0, 0) } }"
    long = "<body><p style='height: 900px'>"
    (tmp_path / "page.html").write_text(f"<style>{style} p {{ background: inherit }}</style>{long}")
    picture = tmp_path / "picture.png"
    browser.photograph((tmp_path / "page.html").as_uri(), picture, 400, 500, dark)
    with Image.open(picture) as photo:
        assert photo.size == (400, 500)
        assert photo.convert("RGB").getpixel((200, 250)) == ground
        assert photo.convert("RGB").getpixel((200, 499)) == ground


def test_a_small_sign_keeps_its_colour_beside_many(tmp_path: Path):
    ground = "body { margin: 0; background: linear-gradient(to right, #002000, #dfffef) }"
    sign = "i { position: absolute; top: 250px; left: 300px; width: 8px; height: 8px }"
    style = f"<style>{ground} {sign} i {{ background: rgb(180, 40, 30) }}</style>"
    (tmp_path / "page.html").write_text(
        f"<!doctype html>{style}<body style='height: 500px'><i></i>"
    )
    picture = tmp_path / "picture.png"
    browser.photograph((tmp_path / "page.html").as_uri(), picture, 600, 500)
    with Image.open(picture) as photo:
        assert photo.convert("RGB").getpixel((304, 254)) == pytest.approx((180, 40, 30), abs=10)


def test_what_went_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(browser, "FLAGS", ("--version",))
    with pytest.raises(RuntimeError, match=r"no picture of http://127\.0\.0\.1:9"):
        browser.photograph("http://127.0.0.1:9", tmp_path / "picture.png", 600, 500)
