"""The digits against scikit-learn's."""

import numpy as np
import sklearn.datasets

from kip_flax.data import load_dataset


def test_digits_are_those_of_scikit_learn():
    data = load_dataset("digits", test_fraction=0.2)
    source = sklearn.datasets.load_digits()
    assert data.image_shape == (8, 8, 1)
    assert data.num_classes == 10
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int32
    # Nothing is lost and nothing is in both parts: together they are the source, 16 -> 255.
    both = np.concatenate([data.train_images, data.test_images])[..., 0].reshape(-1, 64)
    expected = np.floor(source.images * 255 / 16 + 0.5).reshape(-1, 64)
    np.testing.assert_array_equal(
        both[np.lexsort(both.T)], expected[np.lexsort(expected.T)].astype(np.uint8)
    )
    held_out = np.bincount(data.test_labels) / np.bincount(source.target)
    np.testing.assert_allclose(held_out, 0.2, atol=0.003)
    again = load_dataset("digits", test_fraction=0.2)
    np.testing.assert_array_equal(again.test_images, data.test_images)
