"""Batches in passes: the sums of a whole batch, and how many images a pass takes."""

import jax
import numpy as np
import pytest

from kip_flax.runtime import batching


@pytest.mark.parametrize("pixels", [1, 8, 12, 1000])
def test_the_sum_is_that_of_the_whole_batch(pixels, monkeypatch):
    """Seven images of 2x2: one, two, three or all at a time; padding counts for nothing."""
    monkeypatch.setattr(batching, "PIXELS", pixels)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(7, 2, 2, 1)).astype(np.float32)
    labels, weights = rng.normal(size=(2, 7)).astype(np.float32)
    seen = []

    def loss(p, x, y, w):
        seen.append(len(x))
        return w @ (x.reshape(len(x), -1) @ p["weights"] + p["bias"] - y) ** 2

    p = {"weights": rng.normal(size=4).astype(np.float32), "bias": np.float32(0.3)}
    found = batching.sum_of_gradients(loss, p, images, labels, weights)
    flat = images.reshape(7, 4).astype(float)
    slopes = 2 * weights * (flat @ p["weights"] + p["bias"] - labels)
    np.testing.assert_allclose(found["weights"], slopes @ flat, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], slopes.sum(), rtol=1e-5)
    assert set(seen) == {{1: 1, 8: 2, 12: 3, 1000: 7}[pixels]}


def test_a_pass_on_an_accelerator_is_as_long_as_asked_for(monkeypatch):
    assert batching.images_of((28, 28, 1), 100) == 2
    assert batching.images_of((8, 8, 1), 100) == 32
    assert batching.images_of((8, 8, 1), 10) == 10
    assert batching.images_of((64, 64, 3), 10) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert batching.images_of((28, 28, 1), 100) == 100
