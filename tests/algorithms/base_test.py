"""Optimisers, first supports and marked steps, against formulas and lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_kernel
from whole_runs import (
    small,
)

from kip_flax.algorithms import base as tasks
from kip_flax.data import Targets
from kip_flax.runtime import sharding


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_optimizer_follows_its_schedule(name, schedule):
    """With a gradient of 1, Adam's step is the rate, and so is that of sgd without momentum."""
    tx = tasks.optimizer(name, 0.1, schedule, 4, 0.0, 20)
    params = jnp.zeros(())
    state, steps = tx.init(params), []
    for _ in range(20):
        update, state = tx.update(jnp.ones(()), state, params)
        steps.append(-float(update))
    t = np.arange(16)
    decay = 0.05 * (1 + np.cos(np.pi * t / 16)) if schedule == "cosine" else np.full(16, 0.1)
    np.testing.assert_allclose(steps, [0, 0.025, 0.05, 0.075, *decay], rtol=1e-5, atol=1e-8)


def test_noise_support_has_one_of_each_class():
    config = small(support__init="noise", support__size=20)
    labels = np.arange(40) % 10
    targets = Targets(np.zeros((40, 8, 8, 1), np.float32), labels, 10)
    images, labels = tasks.init_support(config, targets, jax.random.key(0))
    assert images.shape == (20, 8, 8, 1)
    assert abs(float(images.std()) - 1) < 0.1
    np.testing.assert_array_equal(np.argmax(labels, axis=1), np.repeat(np.arange(10), 2))


def test_published_steps_are_marked():
    marks = tasks.make_task(
        small(num_steps=2100, eval__steps=()),
        Targets(np.zeros((40, 8, 8, 1), np.float32), np.arange(40) % 10, 10),
        (jnp.zeros((10, 8, 8, 1)), jnp.zeros((10, 10))),
        quick_kernel(None),
        sharding.make_mesh(1, 1),
        jax.random.key(0),
    ).marks
    assert {0, 1, 54, 695, 1000, 1500, 2000, 2100} <= marks
    assert marks & set(range(700, 2101)) == {1000, 1500, 2000, 2100}
