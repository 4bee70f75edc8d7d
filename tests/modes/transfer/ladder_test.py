"""The crossing on ladders whose crossing is known."""

import math

import pytest

from kip_flax.modes.transfer.ladder import Ladder, Rung, crossing, ladders, words


def logarithmic(a, b, sizes):
    return tuple(Rung(n, a + b * math.log(n)) for n in sizes)


def test_on_a_logarithmic_ladder_the_crossing_is_exact():
    ladder = Ladder(logarithmic(0.1, 0.1, (10, 30, 200, 1000)), 10, 0.1 + 0.1 * math.log(77))
    assert crossing(ladder) == pytest.approx(77)
    assert words(ladder) == "10 images are worth 77 real ones, 7.7 times their size"


@pytest.mark.parametrize(
    ("accuracy", "text"),
    [
        (0.9, "10 images are worth more than 100 real ones"),
        (0.1, "10 images are worth no more than 10 real ones"),
    ],
)
def test_beyond_the_ladder_nothing_is_claimed(accuracy, text):
    ladder = Ladder((Rung(10, 0.3), Rung(100, 0.6)), 10, accuracy)
    assert crossing(ladder) is None
    assert words(ladder) == text


def test_a_rung_itself_and_a_dip():
    assert crossing(Ladder((Rung(10, 0.3), Rung(100, 0.6)), 10, 0.6)) == pytest.approx(100)
    dip = Ladder((Rung(10, 0.3), Rung(20, 0.25), Rung(40, 0.5)), 10, 0.4)
    assert 20 < crossing(dip) < 40


def row(kind, size, mean, network="krr", std=None):
    return {"set": kind, "size": size, "network": network, "mean": mean, "std": std}


def test_ladders_are_of_networks_with_a_set_and_two_rungs():
    krr = [row("random", 100, 0.6, std=0.02), row("distilled", 10, 0.5), row("random", 10, 0.3)]
    herding = [row("herding", 10, 0.4), row("herding", 100, 0.8)]
    found = ladders([*krr, *herding])
    assert found == {"krr": Ladder((Rung(10, 0.3, 0.0), Rung(100, 0.6, 0.02)), 10, 0.5)}
    # Where the set's training diverged, or all rungs but one.
    fewer = [row("random", 10, 0.3, "a"), row("random", 100, 0.6, "a")]
    fewer += [row("distilled", 10, 0.5, "b"), row("random", 100, 0.6, "b")]
    assert ladders([*fewer, *krr]) == found
