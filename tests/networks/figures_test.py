"""Figures of networks in words."""

import numpy as np
import pytest

from kip_flax.networks import figures


def test_a_row_in_words():
    row = {"network": "a", "on": "held_out", "mean": 0.4012, "std": 0.005}
    assert figures.spread(row) == "40.12 ± 0.50 %"
    assert figures.spread(row | {"std": None}) == "40.12 %"
    assert figures.words("held_out") == "held-out images"
    rows = [row, row | {"on": "test"}, row | {"network": "b", "mean": None}]
    assert figures.scalars(rows) == {"held_out_accuracy/a": 0.4012, "test_accuracy/a": 0.4012}
    assert figures.watched_rows(rows) == [rows[0], rows[2]]
    assert figures.outcome(rows) == [rows[1], rows[2]]
    row |= {"accuracies": [0.4, 0.4], "width": 128}
    assert figures.networks_text(row) == "2 x a, width 128"
    assert figures.networks_text(row | {"width": None}) == "2 x a"
    assert figures.sentence(row) == "40.12 ± 0.50 % of held-out images (2 x a, width 128)"
    assert figures.sentence(rows[2]) == "b diverged"


def test_a_summary_has_the_deviation_of_a_sample():
    summary = figures.summary([0.1, 0.2, 0.6])
    assert summary["mean"] == pytest.approx(0.3)
    assert summary["std"] == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert figures.summary([0.5])["std"] is None
    assert figures.spread(figures.summary([])) == "diverged"
