"""The basis of the lowest frequencies: orthonormal, and smooth."""

import numpy as np
import pytest

from kip_flax.algorithms._low_frequencies import low_frequencies


def test_low_frequencies_are_orthonormal_and_smooth():
    basis = low_frequencies((6, 8, 2), 3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(18), atol=1e-6)
    grey = np.ones((6, 8, 2))
    checkers = (-1.0) ** np.add.outer(np.arange(6), np.arange(8))[..., None] * [1, 1]
    lengths = [
        np.linalg.norm(basis @ image.ravel()) / np.linalg.norm(image) for image in (grey, checkers)
    ]
    assert lengths[0] == pytest.approx(1, abs=1e-6)
    assert lengths[1] < 0.1
    np.testing.assert_allclose(
        low_frequencies((6, 8, 2), 8) @ np.ravel(checkers),
        low_frequencies((6, 8, 2), 9) @ np.ravel(checkers),
        atol=1e-6,
    )
