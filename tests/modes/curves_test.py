"""What accuracies are likely to cost, by hand and against the rows in results/."""

import pytest

from kip_flax.modes.plan import curves
from kip_flax.modes.plan.curves import Curve
from results import curves as results_curves

POINTS = ((0, 0.2), (1, 0.4), (5, 0.5), (10, 0.49), (20, 0.55), (40, 0.6))


def curve(size=10, targets=2000, algorithm="kip_newton", dataset="mnist"):
    return Curve(
        f"row_{size}_{targets}", algorithm, dataset, "convnet", size, targets, POINTS, "validation"
    )


def test_steps_follow_the_targets_and_seconds_the_planned_step():
    found = curves.milestones(curve(), targets=4000, step_seconds=3.0)
    assert [(one.accuracy, one.steps, one.seconds) for one in found] == [
        (0.4, 1, 3.0), (0.5, 3, 9.0), (0.55, 10, 30.0), (0.6, 20, 60.0),
    ]  # fmt: skip
    few = curves.milestones(curve(), targets=2000, step_seconds=1.0, most=2)
    assert [(one.accuracy, one.steps) for one in few] == [(0.4, 1), (0.6, 40)]


def test_the_nearest_run_has_the_same_data_and_a_similar_support():
    every = tuple(curve(size, targets) for size in (10, 100, 500) for targets in (2000, 5000))
    every += (curve(50, dataset="cifar10"), curve(50, algorithm="kip"))
    setting = ("kip_newton", "mnist", "convnet")
    assert curves.nearest(every, setting, 60, 4000).row == "row_100_5000"
    assert curves.nearest(every, setting, 20, 100).row == "row_10_2000"
    for other in (("kip_newton", "svhn", "convnet"), ("kip_newton", "mnist", "fc")):
        assert curves.nearest(every, other, 20, 100) is None
    assert curves.nearest((), setting, 20, 100) is None


def test_the_packaged_curves_are_those_of_the_rows():
    rows = results_curves.of_rows()
    assert curves.measured() == tuple(rows)
    assert results_curves.FILE.read_text() == results_curves.written(rows)
    by_row = {row.row: row for row in rows}
    assert by_row["kip_digits_10"].images == "test images"
    assert by_row["kip_newton_cifar10_10"].images == "held-out images"
    assert by_row["kip_newton_cifar10_10"].points[-1] == (80, pytest.approx(0.613))
    assert not any(row.algorithm in ("ls", "frepo") for row in rows)
