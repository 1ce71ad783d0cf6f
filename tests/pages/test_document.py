import base64
import io
import re

import numpy as np
from PIL import Image

from mouse_facelift.pages.document import data_url, facts, html_table, section, verdict, write_page


def test_page_needs_nothing_from_elsewhere_and_is_the_same_every_time(tmp_path):
    parts = (verdict("look", "Nearly.", [("good", "this"), ("beyond", "that & <more>")]), facts([("a", "b")]))
    for name in ("one.html", "two.html"):
        write_page(tmp_path / name, "A <title>", *parts, styles=".x {}", script="1 < 2;")
    text = (tmp_path / "one.html").read_text()
    assert text == (tmp_path / "two.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "<h1>A &lt;title&gt;</h1>" in text
    assert "that &amp; &lt;more&gt;" in text
    assert "1 < 2;" in text
    assert not re.search(r"(src|href)=|@import|url\(", text)
    assert not list(tmp_path.glob(".*")), "nothing half-written stays behind"


def test_verdict_marks_each_finding():
    page = verdict("good", "Fine.", [("good", "this"), ("look", "that")])
    assert page.count("<li") == 2
    assert "✓" in page
    assert "!" in page


def test_tables_name_their_rows_and_columns():
    table = html_table(["arm", "dB"], [["direct", "20"], ["e2e", "18"]])
    assert table.count('scope="row"') == 2
    assert table.count('scope="col"') == 2
    assert '<section id="x"><h2>T</h2>' in section("x", "T", table)


def test_embedded_pictures_are_the_same_pixels():
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 3), (5, 7, 4)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        url = data_url(pixels)
        assert url.startswith("data:image/png;base64,")
        content = base64.b64decode(url.partition(",")[2])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
