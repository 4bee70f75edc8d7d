"""The picture of two ways of making 100 images."""

import itertools
import json

import pytest

from results import record, ways


def test_hours_of_a_chain_add_up(tmp_path):
    """A row of 2 core hours whose set of step 5 of 10 is taken, and one that goes on from it."""
    one = ("one", "real", (0, 5, 10), 5, 7200)
    two = ("two", "results/one/x.npz", (0, 4), 4, 1800)
    for name, init, steps, chosen, seconds in (one, two):
        rows = [{"step": step, "accuracy": step / 10} for step in steps]
        draw = {"watched": {"evaluations": rows}, "cpu_seconds": seconds, "step": chosen}
        (tmp_path / name).mkdir()
        figures = {"config": {"support": {"init": init}}, "draws": [draw]}
        (tmp_path / name / record.FIGURES).write_text(json.dumps(figures))
    hours, accuracies = zip(*ways.curve("two", tmp_path), strict=True)
    assert hours == pytest.approx((0, 1, 2, 2.5))
    assert accuracies == pytest.approx((0, 0.5, 0, 0.4))


@pytest.mark.parametrize(("last", "length"), [*zip(ways.WAYS.values(), (4, 2), strict=True)])
def test_a_chain_goes_on_from_set_to_set(last, length):
    rows = record.chain(ways.FOLDER / last)
    assert len(rows) == length
    for before, after in itertools.pairwise(rows):
        start = record.read(after)["config"]["support"]["init"]
        assert start == f"results/{before.name}/{record.read(before)['set']}"


def test_the_features_reach_the_end_of_the_steps_in_a_third_of_their_hours():
    steps, features = map(ways.curve, ways.WAYS.values())
    reached = [point for point in features if point.accuracy >= steps[-1].accuracy]
    assert reached[0].core_hours < steps[-1].core_hours / 3
