"""The charts of the page as numbers."""

import dataclasses
import math

import pytest

from kip_flax.modes.report import charts
from kip_flax.modes.report.charts import AREA, Chart, ClassShares, Curve, Threshold


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.012, 0.033), (1e-6, 30.0), (1.2e-4, 2e-4), (900.0, 40000.0), (0.4, 0.5), (2.0, 2.0)],
)
def test_a_logarithmic_axis_has_round_ticks_inside(low, high):
    at, ticks, text = charts.value_axis(low, high, "log")
    assert len(ticks) >= 2 or low == high
    assert all(AREA.top - 1e-6 <= at(tick) <= AREA.bottom + 1e-6 for tick in ticks)
    assert all(float(text(tick)) == pytest.approx(tick, rel=1e-3) for tick in ticks)


def test_shares_stay_between_nothing_and_all():
    for low, high in ((1.0, 1.0), (0.0, 0.0), (0.98, 1.0), (0.3, 0.3)):
        at, ticks, text = charts.value_axis(low, high, "percent")
        assert 0 <= min(ticks) <= max(ticks) <= 1 + 1e-9, (low, high)
        assert len({text(tick) for tick in ticks}) >= 2
        assert all(AREA.top - 1e-6 <= at(value) <= AREA.bottom + 1e-6 for value in (low, high))


def chart(*points, **changes):
    curve = Curve("test", "k-test", points, dots=True)
    return dataclasses.replace(Chart("id", "A chart", "Of points.", "steps", [curve]), **changes)


def test_steps_lie_on_a_logarithmic_axis_that_has_a_zero():
    drawing = charts.draw(chart((0, 0.5), (9, 0.6), (99, 0.7), cursor=9))
    (line,) = drawing.polylines
    middle = (AREA.left + AREA.right) / 2
    assert [dot.x for dot in line.dots] == pytest.approx([AREA.left, middle, AREA.right])
    assert drawing.cursor == pytest.approx(middle)
    assert drawing.step_scale == f"{AREA.left} {AREA.right - AREA.left} 99"
    assert charts.draw(chart((0, 0.5))).step_scale == ""
    assert line.points.split() == [f"{dot.x:.1f},{dot.y:.1f}" for dot in line.dots]
    assert line.dots[1].text == "test, 9: 0.6"


def test_values_that_cannot_be_drawn_are_left_out():
    levels = [Threshold("start", "k-start", math.inf), Threshold("solved", "k-solved", 0.25)]
    points = ((0, 0.5), (1, -1.0), (2, math.nan))
    drawing = charts.draw(chart(*points, thresholds=levels, y_scale="log"))
    assert [dot.text for dot in drawing.polylines[0].dots] == ["test, 0: 0.5"]
    assert [css for css, _ in drawing.levels] == ["k-solved"]
    assert [(key.name, key.dashed) for key in drawing.legend] == [("test", False), ("solved", True)]
    assert charts.draw(chart((0, -1.0), (1, math.nan), y_scale="log")) is None


def test_bars_of_classes_have_a_mark_where_there_is_a_share():
    rows = [ClassShares("cat", 0.5, (0.25, math.nan)), ClassShares("x" * 30, 1.0, (0.0, 1.0))]
    drawn = charts.class_bars("id", "Shares", rows, ("now", "before", "solved"))
    full = drawn.bars[1].width
    assert drawn.left + full < drawn.width
    assert drawn.bars[0].width == pytest.approx(full / 2)
    assert drawn.bars[0].marks == (("k-start", pytest.approx(drawn.left + full / 4)),)
    assert [x for _, x in drawn.bars[1].marks] == pytest.approx([drawn.left, drawn.left + full])
    assert drawn.bars[1].label == "x" * 18 + "…"
    assert drawn.description == f"cat 50%; {'x' * 30} 100%"
    assert [key.name for key in drawn.legend] == ["now", "before", "solved"]
