"""Noisy class means: exact without noise, as sensitive as they claim, and noise of its size."""

import jax
import numpy as np
import pytest

from kip_flax.algorithms import _private_means

SHAPE, COUNT = (3, 2, 1), 4
SUPPORT = np.array([0, 0, 1, 1])  # Two images of each of two classes.
CLIP = 0.5


@pytest.fixture
def images():
    """Dark and bright ones: a third is below the clip."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, *SHAPE)) * np.repeat([0.1, 1.0, 1e3], 10)[:, None, None, None]
    return rows.astype(np.float32)


def drawn(count, seed=0):
    labels = np.arange(count) % 2
    return labels, _private_means.draw_groups(labels, SUPPORT, jax.random.key(seed))


def clipped(image):
    """Scaled down to a root mean square of `CLIP`, if it is brighter."""
    size = np.sqrt(np.mean(np.square(image.astype(float))))
    return image.astype(float) * min(1, CLIP / size)


def test_without_noise_they_are_the_means_of_the_groups(images):
    _, groups = drawn(len(images))
    sums = _private_means.group_sums(images, groups, COUNT, CLIP)
    found = _private_means.noisy_means(sums, CLIP, 0.0, jax.random.key(1))
    exact = [
        np.mean([clipped(x) for x, g in zip(images, groups, strict=True) if g == group], axis=0)
        for group in range(COUNT)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-7)


def test_a_group_is_one_of_the_image_s_class_and_takes_its_share():
    labels, groups = drawn(4000)
    np.testing.assert_array_equal(SUPPORT[groups], labels)
    shares = np.bincount(groups, minlength=COUNT) / len(groups)
    np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 4000))


def test_an_image_more_or_less_moves_the_sums_by_a_norm_of_one_at_most(images):
    """Brute force over all neighbours; bright images reach the bound."""
    _, groups = drawn(len(images))
    whole = _private_means.group_sums(images, groups, COUNT, CLIP)
    norms = []
    for left_out in range(len(images)):
        keep = np.arange(len(images)) != left_out
        less = _private_means.group_sums(images[keep], groups[keep], COUNT, CLIP)
        moved = [np.ravel(a - b) for a, b in zip(whole, less, strict=True)]
        norms.append(np.linalg.norm(np.concatenate(moved)))
    assert max(norms) == pytest.approx(1, abs=1e-9)
    assert max(norms) <= 1 + 1e-9
    assert min(norms) < 0.8


def test_the_noise_is_as_large_as_it_is_said_to_be():
    count, noise = 20000, 7.0
    images = np.full((count, *SHAPE), 0.25, np.float32)
    _, groups = drawn(count)
    sums = _private_means.group_sums(images, groups, COUNT, CLIP)
    draws = np.stack(
        [_private_means.noisy_means(sums, CLIP, noise, jax.random.key(k)) for k in range(200)]
    )
    # Of a sum: noise * sqrt(2) clips, of which a clip is CLIP * sqrt(numbers of an image).
    expected = noise * np.sqrt(2) * CLIP * np.sqrt(6) / (count / COUNT)
    assert draws.std() == pytest.approx(expected, rel=0.05)
    assert draws.mean() == pytest.approx(0.25, abs=4 * expected / np.sqrt(draws.size / 6))


def test_a_group_without_images_stays_near_nothing():
    sums = _private_means.GroupSums(np.zeros((COUNT, *SHAPE)), np.zeros(COUNT))
    found = _private_means.noisy_means(sums, CLIP, 2.0, jax.random.key(0))
    assert np.abs(found).max() < 5 * CLIP * np.sqrt(6)


def test_the_same_groups_are_drawn_with_and_without_float64():
    labels, support = np.arange(6000) % 3, np.repeat(np.arange(3), 7)
    drawn = []
    for wide in (True, False):
        with jax.enable_x64(wide):
            drawn.append(_private_means.draw_groups(labels, support, jax.random.key(3)))
    np.testing.assert_array_equal(*drawn)
    assert set(drawn[0]) == set(range(21))
