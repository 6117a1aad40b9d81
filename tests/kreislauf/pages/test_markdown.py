"""A card is one file, and text of people stays text."""

from kreislauf.pages import markdown


def test_a_table_has_its_cells_as_they_are():
    rows = [("a|b", None), (1, "+0.1 [+0.0, +0.2]")]
    assert (
        markdown.table(["x", "y"], rows)
        == "| x | y |\n| --- | --- |\n| a\\|b |  |\n| 1 | +0.1 [+0.0, +0.2] |"
    )
    assert markdown.table(["x"], []) == ""


def test_the_page_needs_no_other_file_and_runs_no_code_of_others():
    curves = [("train_loss", 0, 2.0), ("train_loss", 50, 1.0), ("recall", 50, 0.4)]
    table = markdown.table(["who"], [("<img src=x onerror=alert(1)>",)])
    text = f"# A <script>alert(1)</script>\n\n{table}"
    page = markdown.page("<b>m</b>", text, curves)
    assert "<svg" in page
    assert "<td>&lt;img src=x" in page
    assert "<title>&lt;b&gt;m" in page
    assert "<script" not in page
    for outside in ('src="', "url(http", "<link", "@import"):
        assert outside not in page
    assert markdown.page("m", "text", []).count("<svg") == 0


def test_a_section_is_added_replaced_and_taken_over():
    page = markdown.page("m", "text", [])
    first = markdown.with_section(page, "test-1", "## One\n\n<b>first</b>")
    section = '<section id="test-1"><h2>One</h2>\n<p>&lt;b&gt;first&lt;/b&gt;</p>\n</section>'
    assert first == page.replace("</body>", f"{section}</body>")
    both = markdown.with_section(first, "test-12", "## Two")
    replaced = markdown.with_section(both, "test-1", "## One again")
    assert list(markdown.sections(replaced)) == ["test-12", "test-1"]
    assert "first" not in replaced
    rejudged = markdown.with_sections_of(markdown.page("m", "judged again", []), replaced)
    assert markdown.sections(rejudged) == markdown.sections(replaced)
    assert "judged again" in rejudged
    assert markdown.with_sections_of(page, "") == page
    assert markdown.with_section("<h1>cut o", "test-1", "## One").startswith("<h1>cut o<section")


def test_each_curve_has_a_panel():
    assert markdown.drawn([("a", 0, 1.0), ("a", 1, 2.0)]).count('id="axes_') == 1
    assert markdown.drawn([("a", 0, 1.0), ("b", 0, 2.0)]).count('id="axes_') == 2
