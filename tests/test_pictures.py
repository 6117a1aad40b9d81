"""The picture of the curve; `system/test_browser.py` looks at pages."""

from pathlib import Path
from xml.etree import ElementTree

from demo.curve import Band, Day, draw

BANDS = [Band(1, 1, "calm"), Band(2, 3, "the season\nchanges")]


def test_the_curve_says_what_happened_in_text_and_in_the_same_bytes(tmp_path: Path):
    days = [Day(1, 0.6, 0.6), Day(2, 0.3, 0.3), Day(3, 0.6, 0.2)]
    for name in ("first.svg", "second.svg"):
        draw(days, BANDS, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    texts = set(ElementTree.parse(tmp_path / "first.svg").getroot().itertext())
    assert {"calm", "the season", "changes", "live model", "recall@20"} <= texts


def test_another_recall_is_another_curve(tmp_path: Path):
    draw([Day(1, 0.6, 0.6), Day(2, 0.3, 0.3)], BANDS, tmp_path / "first.svg")
    draw([Day(1, 0.6, 0.6), Day(2, 0.3, 0.2)], BANDS, tmp_path / "second.svg")
    assert (tmp_path / "first.svg").read_bytes() != (tmp_path / "second.svg").read_bytes()
