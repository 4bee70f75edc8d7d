"""Sets as a run writes them: their names, and what they say of their images."""

import dataclasses

import numpy as np
import pytest
from whole_runs import exporter_in, label_solve

from kip_flax import export
from kip_flax.runs.exporter import Exporter

MEASURES = {"accuracy": 0.5, "mse": 0.1}


@pytest.fixture
def exporter(tmp_path):
    return exporter_in(tmp_path)


def test_label_solve_publishes_one_step_with_other_labels(exporter):
    of_label_solve = Exporter(
        exporter.folder, label_solve(), exporter.dataset, exporter.fitted, exporter.initial
    )
    names = [of_label_solve.path(step).stem for step in (0, 3)]
    assert names == ["FC1_ssize20_nozca_nol_noaug_ckpt0", "FC1_ssize20_nozca_l_noaug_ckpt1"]


def test_a_set_says_with_which_classes_its_images_began(exporter):
    """Labels that are solved for, or learned, may have another largest value."""
    images, labels = exporter.initial
    exporter.write(0, (images, -labels), MEASURES)
    found = export.load_distilled(exporter.path(0))
    np.testing.assert_array_equal(found.first_classes, labels.argmax(axis=1))
    assert (found.first_classes != found.labels.argmax(axis=1)).any()


@pytest.mark.parametrize("resumed", [False, True])
def test_only_a_run_that_goes_on_asks_its_set_of_step_0(exporter, resumed):
    """A new run may find sets of another one in its folder, with other classes."""
    images, labels = exporter.initial
    others = np.roll(labels, 1, axis=1)
    older = dataclasses.replace(exporter, initial=(images, others))
    older.write(0, older.initial, MEASURES)
    later = dataclasses.replace(exporter, resumed=resumed)
    later.write(5, (images, labels), MEASURES)
    expected = others if resumed else labels
    found = export.load_distilled(later.path(5)).first_classes
    np.testing.assert_array_equal(found, expected.argmax(axis=1))
