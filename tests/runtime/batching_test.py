"""Batches padded and in passes: what is added, the sums of a whole batch, images of a pass."""

import jax
import jax.numpy as jnp
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
        return w @ (x.reshape(len(x), -1) @ p["weights"].ravel() + p["bias"] - y) ** 2

    p = {"weights": rng.normal(size=(2, 2, 1, 1)).astype(np.float32), "bias": np.float32(0.3)}
    found = batching.gradient_in_passes(loss, p, images, labels, weights)
    flat = images.reshape(7, 4).astype(float)
    slopes = 2 * weights * (flat @ p["weights"].ravel() + p["bias"] - labels)
    np.testing.assert_allclose(found["weights"].ravel(), slopes @ flat, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], slopes.sum(), rtol=1e-5)
    assert set(seen) == {{1: 1, 8: 2, 12: 3, 1000: 7}[pixels]}


def test_a_pass_on_an_accelerator_is_as_long_as_asked_for(monkeypatch):
    assert batching.images_per_pass((28, 28, 1), 100) == 2
    assert batching.images_per_pass((8, 8, 1), 100) == 32
    assert batching.images_per_pass((8, 8, 1), 10) == 10
    assert batching.images_per_pass((64, 64, 3), 10) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert batching.images_per_pass((28, 28, 1), 100) == 100


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_rows_are_added_up_to_a_multiple(make):
    rows = make(np.arange(1, 6, dtype=np.int32).reshape(5, 1))
    found = batching.pad_rows(rows, 3, value=-1)
    assert type(found) is type(rows)
    assert found.dtype == np.int32
    assert np.asarray(found).ravel().tolist() == [1, 2, 3, 4, 5, -1]
    assert batching.pad_rows(rows, 5) is rows
    parts = batching.split_rows({"a": rows}, 2)["a"]
    assert np.asarray(parts)[..., 0].tolist() == [[1, 2], [3, 4], [5, 0]]


def test_the_last_row_can_be_repeated():
    rows = np.arange(5).reshape(5, 1)
    assert batching.repeat_last_row(rows, 4).ravel().tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert batching.repeat_last_row(rows, 5).tolist() == rows.tolist()


@pytest.mark.parametrize(("axes", "passes"), [(2, 1), (4, 4)], ids=["dense", "convolution"])
def test_networks_without_convolutions_take_all_images_at_once(axes, passes, monkeypatch):
    monkeypatch.setattr(batching, "PIXELS", 2 * 16)
    seen = []

    def loss(params, images, labels, weights):
        seen.append(len(images))
        outputs = params["w"].sum() * images.sum((1, 2, 3))
        return (weights * (outputs - labels) ** 2).sum()

    params = {"w": jnp.ones((3,) * axes), "b": jnp.ones(3)}
    images, labels = jnp.arange(8.0)[:, None, None, None] + jnp.zeros((8, 4, 4, 1)), jnp.ones(8)
    found = batching.gradient_in_passes(loss, params, images, labels, jnp.ones(8))
    assert set(seen) == {8 // passes}
    expected = jax.grad(loss)(params, images, labels, jnp.ones(8))
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-6)
