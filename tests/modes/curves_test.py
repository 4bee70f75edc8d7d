"""What accuracies are likely to cost, by hand and against the rows in results/."""

import json
from pathlib import Path

import pytest

from kip_flax.modes.plan import curves
from kip_flax.modes.plan.curves import Curve
from results import curves as results_curves
from results import record

POINTS = (
    (0, 0.2), (2000, 0.4), (10_000, 0.5), (20_000, 0.49), (40_000, 0.55), (80_000, 0.6),
)  # fmt: skip


def curve(size=10, targets=2000, algorithm="kip_newton", dataset="mnist", mirrored=False):
    names = f"row_{size}_{targets}", algorithm, dataset, "convnet", mirrored
    return Curve(*names, size, targets, POINTS, "validation")


def evaluations(row):
    path = Path(results_curves.__file__).parent / row / record.FIGURES
    return json.loads(path.read_text())["draws"][0]["watched"]["evaluations"]


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
    assert curves.nearest(every, setting, False, 60, 4000).row == "row_100_5000"
    assert curves.nearest(every, setting, False, 20, 100).row == "row_10_2000"
    assert curves.nearest(every, setting, True, 20, 100).row == "row_10_2000"
    nearer = (*every, curve(60, mirrored=True))
    assert curves.nearest(nearer, setting, False, 60, 4000).row == "row_60_2000"
    both = (curve(60, 5000), curve(60, 2000, mirrored=True))
    assert [curves.nearest(both, setting, sides, 60, 5000).mirrored for sides in (0, 1)] == [0, 1]
    for other in (("svhn", "convnet"), ("mnist", "fc")):
        assert curves.nearest(every, ("kip_newton", *other), False, 20, 100) is None
    assert curves.nearest((), setting, False, 20, 100) is None


def test_the_packaged_curves_are_those_of_the_rows():
    rows = results_curves.of_rows()
    assert curves.measured() == tuple(rows)
    assert results_curves.FILE.read_text() == results_curves.written(rows)
    by_row = {row.row: row for row in rows}
    assert by_row["kip_digits_10"].images == "test images"
    assert by_row["kip_newton_mnist_10"].images == "held-out images"
    assert by_row["kip_fc_mnist_10"].points[-1] == (20 * 5000, pytest.approx(0.888))
    assert not any(row.algorithm in ("ls", "frepo") for row in rows)


def test_rows_that_go_on_are_one_curve():
    """Ten steps of 2,000 targets (of 16, the best), 24 and 12 of 2,000, and three of 5,000."""
    by_row = {row.row: row for row in results_curves.of_rows()}
    larger = by_row["kip_newton_cifar10_100_larger"]
    assert not by_row.keys() & {
        f"kip_newton_cifar10_100{end}" for end in ("", "_further", "_furthest")
    }
    first = [row["accuracy"] for row in evaluations("kip_newton_cifar10_100")]
    last = [row["accuracy"] for row in evaluations("kip_newton_cifar10_100_larger")]
    assert larger.points[0] == (0, pytest.approx(first[0], abs=1e-4))
    assert larger.points[1] == (20_000, pytest.approx(first[1], abs=1e-4))
    assert larger.points[-1] == (46 * 2000 + 3 * 5000, pytest.approx(last[-1], abs=1e-4))
    assert [drawn for drawn, _ in larger.points] == sorted({drawn for drawn, _ in larger.points})
    assert larger.targets == 5000


def test_a_batch_that_grows_counts_all_its_targets():
    config = {"batch_size": 100, "num_steps": 7, "newton": {"growth": 4}}
    # Four steps of 100, two of 200, one of 400.
    expected = [0, 100, 200, 300, 400, 600, 800, 1200]
    assert [results_curves._targets(config, steps) for steps in range(8)] == expected
