"""The axes of the page's charts."""

import pytest

from kip_flax.modes.report import axes as report_axes


@pytest.mark.parametrize(("low", "high"), [(0.012, 0.033), (1e-6, 30.0), (0.4, 0.5), (2.0, 2.0)])
def test_a_logarithmic_axis_has_round_ticks_inside(low, high):
    at, ticks, text = report_axes.value_axis(low, high, percent=False, log=True)
    assert len(ticks) >= 2 or low == high
    assert all(12 - 1e-6 <= at(tick) <= 280 - 44 + 1e-6 for tick in ticks)
    assert all(float(text(tick)) == pytest.approx(tick, rel=1e-3) for tick in ticks)
