"""Optimisers, drawn supports and marked steps, against formulas and lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.algorithms import base
from kip_flax.data import Targets, coresets
from kip_flax.runtime.errors import UserError


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_optimizer_follows_its_schedule(name, schedule):
    """With a gradient of 1, Adam's step is the rate, and so is that of sgd without momentum."""
    tx = base.optimizer(name, 0.1, schedule, 4, 0.0, 20)
    params = jnp.zeros(())
    state, steps = tx.init(params), []
    for _ in range(20):
        update, state = tx.update(jnp.ones(()), state, params)
        steps.append(-float(update))
    t = np.arange(16)
    decay = 0.05 * (1 + np.cos(np.pi * t / 16)) if schedule == "cosine" else np.full(16, 0.1)
    np.testing.assert_allclose(steps, [0, 0.025, 0.05, 0.075, *decay], rtol=1e-5, atol=1e-8)


def test_noise_support_has_one_of_each_class():
    targets = Targets(np.zeros((40, 8, 8, 1), np.float32), np.arange(40) % 10, 10)
    images, labels = base.draw_support(targets, 20, "noise", jax.random.key(0))
    assert images.shape == (20, 8, 8, 1)
    assert abs(float(images.std()) - 1) < 0.1
    np.testing.assert_array_equal(np.argmax(labels, axis=1), np.repeat(np.arange(10), 2))


def test_real_support_is_drawn_from_the_targets_class_by_class():
    images = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype(np.float32)
    targets = Targets(images, np.arange(40) % 10, 10)
    drawn, labels = base.draw_support(targets, 20, "real", jax.random.key(0))
    classes = np.argmax(labels, axis=1)
    np.testing.assert_array_equal(classes, np.repeat(np.arange(10), 2))
    for image, label in zip(drawn, classes, strict=True):
        assert any(np.array_equal(image, other) for other in images[targets.labels == label])
    np.testing.assert_allclose(np.asarray(labels).sum(axis=1), 0, atol=1e-6)


def test_a_support_by_herding_has_the_images_whose_mean_is_nearest_to_that_of_their_class():
    """The first of each class is the image nearest to the mean, the two have the nearest mean."""
    images = np.random.default_rng(1).normal(size=(60, 4, 4, 1)).astype(np.float32)
    targets = Targets(images, np.arange(60) % 10, 10)
    chosen, labels = base.draw_support(targets, 20, "herding", jax.random.key(0))
    np.testing.assert_array_equal(np.argmax(labels, axis=1), np.repeat(np.arange(10), 2))
    for number in range(10):
        own = images[targets.labels == number].reshape(6, -1)
        first, second = np.asarray(chosen[2 * number : 2 * number + 2]).reshape(2, -1)
        distances = np.linalg.norm(own - own.mean(axis=0), axis=1)
        np.testing.assert_array_equal(first, own[np.argmin(distances)])
        means = (first + np.delete(own, np.argmin(distances), axis=0)) / 2
        nearest = np.linalg.norm(means - own.mean(axis=0), axis=1).min()
        found = np.linalg.norm((first + second) / 2 - own.mean(axis=0))
        assert found == pytest.approx(nearest, rel=1e-5)


@pytest.mark.parametrize("name", coresets.CORESETS)
def test_a_class_with_too_few_images_to_choose_from_is_an_error(name):
    images = np.random.default_rng(2).normal(size=(30, 4, 4, 1)).astype(np.float32)
    targets = Targets(images, np.minimum(np.arange(30), 9), 10)
    with pytest.raises(UserError, match="one has fewer: take a smaller"):
        base.draw_support(targets, 20, name, jax.random.key(0))
