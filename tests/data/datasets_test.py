"""Data sets by name, and the split of those without a test part."""

import numpy as np
from dataset_checks import fails

from kip_flax.data import DATASETS, hold_out, load_dataset


def test_unknown_name_and_missing_folder(tmp_path):
    fails("'cifar'", *DATASETS, name="cifar")
    fails("dataset.data_dir", name="mnist")
    fails(str(tmp_path / "mnist"), "train-images-idx3-ubyte", name="mnist", data_dir=tmp_path)
    fails("not a folder", name="folder", data_dir=tmp_path / "none")
    fails("test_fraction", name="digits", test_fraction=1.0)


def test_validation_images_come_out_of_the_training_set_and_hide_the_test_set():
    whole = load_dataset("digits")
    data = hold_out(whole, 0.1)
    assert (whole.split, data.split) == ("test", "validation")
    both = np.concatenate([data.train_images, data.test_images]).reshape(-1, 64)
    expected = whole.train_images.reshape(-1, 64)
    np.testing.assert_array_equal(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)])
    share = np.bincount(data.test_labels) / np.bincount(whole.train_labels)
    np.testing.assert_allclose(share, 0.1, atol=0.005)
    np.testing.assert_array_equal(hold_out(whole, 0.1).test_labels, data.test_labels)
