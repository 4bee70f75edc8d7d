"""The crossing on ladders whose crossing is known, and the picture of it."""

import math

import numpy as np
import pytest
from PIL import Image

from kip_flax import worth
from kip_flax.worth import Ladder


def logarithmic(a, b, sizes):
    return tuple((n, a + b * math.log(n)) for n in sizes)


def test_on_a_logarithmic_ladder_the_crossing_is_exact():
    ladder = Ladder(logarithmic(0.1, 0.1, (10, 30, 200, 1000)), 10, 0.1 + 0.1 * math.log(77))
    assert worth.crossing(ladder) == pytest.approx(77)
    assert worth.words(ladder) == "10 images are worth 77 real ones, 7.7 times their size"


@pytest.mark.parametrize(
    ("accuracy", "told"),
    [
        (0.9, "10 images are worth more than 100 real ones"),
        (0.1, "10 images are worth no more than 10 real ones"),
    ],
)
def test_beyond_the_ladder_nothing_is_claimed(accuracy, told):
    ladder = Ladder(((10, 0.3), (100, 0.6)), 10, accuracy)
    assert worth.crossing(ladder) is None
    assert worth.words(ladder) == told


def test_a_rung_itself_and_a_dip():
    assert worth.crossing(Ladder(((10, 0.3), (100, 0.6)), 10, 0.6)) == pytest.approx(100)
    dip = Ladder(((10, 0.3), (20, 0.25), (40, 0.5)), 10, 0.4)
    assert 20 < worth.crossing(dip) < 40


def test_the_picture_shows_every_ladder(tmp_path):
    path = tmp_path / "worth.png"
    ladder = Ladder(((10, 0.3), (100, 0.6)), 10, 0.5)
    worth.write_picture(path, {"krr": ladder, "kernel": Ladder(ladder.real, 10, 0.9)})
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (460, 760, 3)
    for colour in worth._COLOURS[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(axis=-1).sum() > 300
    rgb = [int(worth._COLOURS[2][i : i + 2], 16) for i in (1, 3, 5)]
    assert not (pixels == rgb).all(axis=-1).any()
