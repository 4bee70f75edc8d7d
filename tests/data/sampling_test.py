"""Draws that are balanced over the classes, and even parts."""

import jax
import numpy as np
import pytest

from kip_flax.data import balanced_batch, balanced_draw, sampling
from kip_flax.runtime.errors import UserError

RNG = np.random.default_rng(0)


def test_balanced_draw_is_even_and_without_replacement():
    labels = RNG.permutation(np.repeat(np.arange(4), 50))
    draw = balanced_draw(labels, 42, 4, jax.random.key(0))
    assert draw.dtype == np.int64
    assert len(set(draw.tolist())) == 42
    np.testing.assert_array_equal(np.sort(np.bincount(labels[draw])), [10, 10, 11, 11])
    # Shuffled: the classes do not come one after the other.
    assert np.count_nonzero(np.diff(labels[draw])) > 10


def test_batches_of_a_pass_share_no_image_and_are_even():
    labels = RNG.permutation(np.repeat(np.arange(4), (30, 25, 40, 25)))  # 100 are even.
    key = jax.random.key(0)
    batches = [balanced_batch(labels, 32, 4, key, number) for number in range(1, 7)]
    for first in (0, 3):  # Three batches a pass.
        taken = np.concatenate(batches[first : first + 3])
        assert len(set(taken.tolist())) == 96
        for batch in batches[first : first + 3]:
            np.testing.assert_array_equal(np.bincount(labels[batch]), [8, 8, 8, 8])
    assert len(np.intersect1d(batches[0], batches[3])) < 20  # 9 are expected.
    np.testing.assert_array_equal(batches[4], balanced_batch(labels, 32, 4, key, 5))
    whole = balanced_batch(labels, 120, 4, key, 2)  # More than is even: a pass is one batch.
    np.testing.assert_array_equal(np.sort(whole), np.arange(120))


def test_balanced_draw_follows_from_the_key():
    labels = np.arange(1000) % 10
    draws = [balanced_draw(labels, 100, 10, jax.random.key(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert len(np.intersect1d(draws[0], draws[2])) < 40  # 10 are expected
    old_style = balanced_draw(labels, 100, 10, jax.random.PRNGKey(3))
    np.testing.assert_array_equal(old_style, draws[0])


def test_balanced_draw_gives_the_remainder_to_random_classes():
    labels = np.arange(100) % 10
    counts = np.zeros(10)
    for seed in range(100):
        draw = balanced_draw(labels, 13, 10, jax.random.key(seed))
        counts += np.bincount(labels[draw], minlength=10) - 1
    assert counts.sum() == 300
    assert counts.min() > 15  # 30 are expected, 4.6 standard deviations at most away
    assert counts.max() < 51


def test_balanced_draw_fills_up_from_the_other_classes():
    labels = np.array([0] * 2 + [1] * 20 + [2] * 20)
    draw = balanced_draw(labels, 30, 3, jax.random.key(0))
    np.testing.assert_array_equal(np.bincount(labels[draw]), [2, 14, 14])
    everything = balanced_draw(labels, 42, 3, jax.random.key(0))
    np.testing.assert_array_equal(np.sort(everything), np.arange(42))


@pytest.mark.parametrize("size", [0, 43])
def test_balanced_draw_of_an_impossible_size(size):
    with pytest.raises(UserError, match=rf"{size} images .* between 1 and 42"):
        balanced_draw(np.zeros(42, np.int32), size, 1, jax.random.key(0))


def test_a_part_of_the_test_set_is_spread_over_it(digits):
    total = len(digits.test_images)
    images, labels = sampling.test_subset(digits, 4)
    rows = [0, (total - 1) // 3, 2 * (total - 1) // 3, total - 1]
    np.testing.assert_array_equal(images, digits.test_images[rows])
    np.testing.assert_array_equal(labels, digits.test_labels[rows])
    for everything in (0, total, total + 1):
        assert len(sampling.test_subset(digits, everything)[0]) == total


def test_numbers_spread_evenly_have_both_ends():
    assert sampling.evenly(3, 5).tolist() == [0, 1, 2]
    assert sampling.evenly(10, 4).tolist() == [0, 3, 6, 9]
    assert sampling.evenly(4, 3).tolist() == [0, 2, 3]
    assert sampling.evenly(4, 1).tolist() == [0]


def drawn_plainly(labels, taken, num_classes, key):
    """The order of all images, then its part."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels, minlength=num_classes)
    rank = np.concatenate([np.arange(count) for count in counts])
    order = np.lexsort((rng.random(len(labels)), rank))
    return rng.permutation(by_class[order[taken]])


@pytest.mark.parametrize("classes", [3, 57])
@pytest.mark.parametrize("taken", [(0, 1), (0, 5), (0, 100), (40, 60), (0, 400)], ids=str)
def test_a_draw_is_the_part_of_the_order_of_all_images(classes, taken):
    labels = np.random.default_rng(classes).integers(classes, size=400)
    labels[:classes] = np.arange(classes)
    key = jax.random.key(7)
    found = sampling._drawn(labels, slice(*taken), classes, key)
    np.testing.assert_array_equal(found, drawn_plainly(labels, slice(*taken), classes, key))
