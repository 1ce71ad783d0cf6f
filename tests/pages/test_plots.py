import re
import xml.etree.ElementTree as ET

import pytest

from mouse_facelift.pages.plots import Interval, Series, interval_chart, line_chart, stacked_bars


def circles(chart: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', chart)]


def test_higher_values_are_drawn_higher_and_to_the_right():
    chart = line_chart([Series("a", "s1", [(0, 1), (10, 3)], [(0.5, 1.5), (2, 4)])], "t", "x", "y")
    (left, low), (right, high) = circles(chart)
    assert left < right
    assert high < low, "SVG's y runs downwards"
    assert ET.fromstring(chart).find(".//polygon[@class='band']") is not None


@pytest.mark.parametrize("points", [[(3.0, 2.0)], [(0.0, 0.0), (1.0, 0.0)]])
def test_one_point_and_a_flat_line_have_axes_too(points):
    chart = line_chart([Series("a <b>", "s1", points)], "t", "x", "y")
    assert "nan" not in chart
    assert "a &lt;b&gt;" in chart
    ET.fromstring(chart)


def test_intervals_reach_from_low_to_high_and_zero_is_marked():
    chart = interval_chart([Interval("a", "s1", 1.0, 0.5, 2.0, "1 dB")], "t", "dB", zero=True)
    mark = ET.fromstring(chart).find(".//line[@class='interval']")
    assert float(mark.get("x1")) < circles(chart)[0][0] < float(mark.get("x2"))
    zero = ET.fromstring(chart).find(".//line[@class='zero']")
    assert float(zero.get("x1")) < float(mark.get("x1"))


def test_parts_of_a_bar_lie_end_to_end():
    chart = stacked_bars(
        [("a", (1.0, 2.0, 0.0)), ("b", (0.5, 0.5, 1.0))], [("p", "s1"), ("q", "s2"), ("r", "s3")], "t", "u"
    )
    bars = [(float(r.get("x")), float(r.get("width"))) for r in ET.fromstring(chart).iter("rect")]
    assert bars[1][0] == pytest.approx(bars[0][0] + bars[0][1], abs=0.11)
    assert bars[1][1] == pytest.approx(2 * bars[0][1], abs=0.2)
    assert bars[2][1] == 0
