"""Which images coresets choose: against brute force and against what the methods promise."""

import itertools

import numpy as np
import pytest
from sklearn.cluster import KMeans

from kip_flax.data import coresets


@pytest.mark.parametrize("choose", coresets.CORESETS.values())
@pytest.mark.parametrize("size", [10, 30, 34])
def test_budget_and_classes(digits, choose, size):
    rows = choose(digits.train_images, digits.train_labels, size, 10)
    assert len(set(rows.tolist())) == size
    counts = np.bincount(digits.train_labels[rows], minlength=10)
    expected = [size // 10 + (c < size % 10) for c in range(10)]
    assert counts.tolist() == expected


@pytest.mark.parametrize("choose", [coresets.kmeans, coresets.herding])
def test_one_image_is_the_one_nearest_to_the_mean(digits, choose):
    rows = choose(digits.train_images, digits.train_labels, 10, 10)
    for number in range(10):
        own = digits.train_labels == number
        vectors = digits.train_images[own].reshape(own.sum(), -1).astype(float)
        nearest = np.linalg.norm(vectors - vectors.mean(0), axis=1).argmin()
        assert rows[number] == np.flatnonzero(own)[nearest]


def test_herding_takes_the_next_best_each_time():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((9, 4))
    rows = coresets.herding(vectors.reshape(9, 2, 2, 1), np.zeros(9, int), 4, 1)
    for taken in range(1, 5):
        before = rows[: taken - 1].tolist()
        errors = {
            i: np.linalg.norm(vectors.mean(0) - vectors[[*before, i]].mean(0))
            for i in set(range(9)) - set(before)
        }
        assert rows[taken - 1] == min(errors, key=errors.get)


def test_herding_follows_the_mean_better_than_chance():
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((30, 3))
    rows = coresets.herding(vectors.reshape(30, 3, 1, 1), np.zeros(30, int), 3, 1)
    found = np.linalg.norm(vectors[rows].mean(0) - vectors.mean(0))
    chance = [
        np.linalg.norm(vectors[list(c)].mean(0) - vectors.mean(0))
        for c in itertools.combinations(range(30), 3)
    ]
    assert np.mean(np.array(chance) < found) < 0.02


def test_herding_of_unit_images_takes_the_image_at_the_least_angle_to_the_mean_direction():
    """Brightness does not count, and the palest image, nearest to a mean near 0, is not taken."""
    rng = np.random.default_rng(2)
    directions = rng.standard_normal((40, 6)) + 0.5
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bright = np.exp(rng.normal(size=(40, 1)))
    images = (bright * directions).reshape(40, 3, 2, 1)
    (row,) = coresets.herding_unit(images, np.zeros(40, int), 1, 1)
    assert row == np.argmax(directions @ directions.mean(axis=0))
    images[(row + 1) % 40] *= 1e-3
    assert coresets.herding_unit(images, np.zeros(40, int), 1, 1) == [row]


def test_an_image_of_zeros_is_no_error():
    images = np.zeros((3, 2, 2, 1))
    images[1:] = 1
    assert coresets.herding_unit(images, np.zeros(3, int), 1, 1)[0] in (1, 2)


def test_kmeans_takes_the_images_nearest_to_the_centres(digits):
    rows = coresets.kmeans(digits.train_images, digits.train_labels, 50, 10)
    own = np.flatnonzero(digits.train_labels == 3)
    vectors = digits.train_images[own].reshape(len(own), -1).astype(float)
    centres = KMeans(5, n_init=1, random_state=0).fit(vectors).cluster_centers_
    nearest = np.linalg.norm(vectors[:, None] - centres, axis=2).argmin(0)
    assert sorted(rows[15:20]) == sorted(own[nearest])
