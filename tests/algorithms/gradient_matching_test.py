"""Gradient matching against PyTorch (tests/fixtures), NumPy, and its own resume and devices."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kip_flax.algorithms import _gradient_matching as gradient_matching
from kip_flax.algorithms import base
from kip_flax.networks import build, zoo
from kip_flax.runtime import batching, sharding

FILE = np.load(Path(__file__).parents[1] / "fixtures" / "gradient_matching.npz")
SHAPE, CLASSES, PER_CLASS = (8, 8, 2), 3, 2
MAKE = functools.partial(zoo.convnet, SHAPE, CLASSES, width=6, depth=2)
# Where the file's weights belong: number of the layer, name.
PLACES = (
    *((0, "kernel"), (0, "bias"), (1, "scale"), (1, "bias")),
    *((4, "kernel"), (4, "bias"), (5, "scale"), (5, "bias"), (9, "kernel"), (9, "bias")),
)


def weights(name):
    """The file's weights as leaves of our network."""
    found = {place: FILE[f"{name}/{i}"] for i, place in enumerate(PLACES)}
    params = build.functions(lambda rngs: MAKE(rngs=rngs)).init(jax.random.key(0))[0]
    leaves = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        keys = [getattr(key, "key", getattr(key, "name", None)) for key in path]
        layer, part = [key for key in keys if key is not None][1:3]
        leaves.append(found[int(layer), part].astype(np.float32))
        assert leaves[-1].shape == leaf.shape
    return tuple(map(jnp.asarray, leaves))


def network(leaves=None):
    """Our network; with `leaves` every one that is drawn has these weights."""
    net = build.functions(lambda rngs: MAKE(rngs=rngs))
    if leaves is None:
        return net

    def init(key):
        params, other = net.init(key)
        return jax.tree.unflatten(jax.tree.structure(params), leaves), other

    return dataclasses.replace(net, init=init)


def first_state(net, tx):
    images = FILE["images"].reshape(-1, *SHAPE)
    labels = np.repeat(np.eye(CLASSES), PER_CLASS, axis=0) - 1 / CLASSES
    return gradient_matching.init(images, labels, net, tx)


def run(net, training, devices, steps, key=1):
    """States after 0, 1, ... steps, and the metrics of each."""
    mesh = sharding.make_mesh(devices, 1)
    tx = optax.sgd(0.5, 0.5)
    make = gradient_matching.make_step(net, tx, training, mesh, jax.random.key(key))
    step = base.pinned(make, mesh)
    states, history = [sharding.replicate(mesh, first_state(net, tx))], []
    for number in range(steps):
        real = np.swapaxes(FILE["real"][number % 3], 0, 1).astype(np.float32)
        batch = sharding.put_targets(mesh, real, np.zeros(len(real)))
        state, metrics = step(jax.tree.map(jnp.copy, states[-1]), batch[0], batch[2])
        states.append(state)
        history.append(metrics)
    return states, history


PUBLISHED = gradient_matching.InnerTraining(3, 2, 0.1, 256)
# Batches of four of the six images: permuted, the last one half empty; all augmented.
SMALL_BATCHES = gradient_matching.InnerTraining(2, 2, 0.1, 4, ("scale", "flip"))


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(2048, id="one pass", marks=pytest.mark.slow),
        pytest.param(2 * 64, id="three passes, one not full"),
    ],
)
def test_distance_and_its_gradient_are_pytorchs(pixels, monkeypatch):
    """The first update, without momentum yet, is the rate times the gradient."""
    monkeypatch.setattr(batching, "PIXELS", pixels)
    (before, after), (metrics,) = run(network(weights("weights")), PUBLISHED, 1, 1)
    assert float(metrics["loss"]) == pytest.approx(FILE["distances"].mean(), rel=1e-5)
    gradient = (before.images - after.images) / 0.5
    expected = FILE["gradients"].reshape(-1, *SHAPE)
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
    assert float(metrics["grad_norm"]) == pytest.approx(np.linalg.norm(expected), rel=1e-4)


def test_three_steps_with_training_between_are_pytorchs(monkeypatch):
    """Five real images of a class do not divide by four devices: padding counts for nothing.

    One image at a time goes through the network.
    """
    monkeypatch.setattr(batching, "PIXELS", 64)
    states, _ = run(network(weights("weights")), PUBLISHED, 4, 3)
    expected = FILE["images after"].reshape(-1, *SHAPE)
    np.testing.assert_allclose(states[-1].images, expected, atol=2e-4)
    assert np.abs(expected - FILE["images"].reshape(-1, *SHAPE)).max() > 0.3
    for ours, theirs in zip(states[-1].network, weights("weights after"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), weights("weights"), states[-1].network)
    assert max(moved) > 0.05


@pytest.mark.parametrize(
    "augments",
    [("scale", "rotate"), pytest.param(("flip", "crop", "color"), marks=pytest.mark.slow)],
)
def test_real_and_learned_images_are_augmented_alike(augments):
    """DSA's siamese augmentation: equal images stay equal, so their gradients do."""
    training = gradient_matching.InnerTraining(1, 1, 0.1, 256, augments)
    net, mesh = network(weights("weights")), sharding.make_mesh(1, 1)
    state = first_state(net, optax.sgd(0.5, 0.5))
    make = gradient_matching.make_step(net, optax.sgd(0.0), training, mesh, jax.random.key(3))
    step = base.pinned(make, mesh)

    def distance(real, number):
        before = jax.tree.map(jnp.copy, state).replace(step=jnp.asarray(number, jnp.int32))
        before = before.replace(opt_state=optax.sgd(0.0).init(before.images))
        batch = sharding.put_targets(mesh, real.astype(np.float32), np.zeros(len(real)))
        placed = sharding.replicate(mesh, before)
        return float(step(placed, batch[0], batch[2])[1]["loss"])

    learned = np.swapaxes(np.asarray(FILE["images"]).reshape(CLASSES, PER_CLASS, *SHAPE), 0, 1)
    other = learned[:, ::-1]  # Images of other classes.
    for number in range(3):
        assert distance(learned, number) < 0.05 < 3 < distance(other, number)


def test_distance_is_numpys():
    rng = np.random.default_rng(0)
    shapes = ((3, 3, 2, 4), (4,), (8, 3), (3,))
    ours, theirs = ([rng.standard_normal(s).astype(np.float32) for s in shapes] for _ in range(2))
    expected = 0.0
    for a, b in ((ours[0], theirs[0]), (ours[2], theirs[2])):
        for column in range(a.shape[-1]):
            x, y = a[..., column].ravel(), b[..., column].ravel()
            expected += 1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-6)
    assert float(gradient_matching.distance(ours, theirs)) == pytest.approx(expected, rel=1e-5)
    assert float(gradient_matching.distance(ours, ours)) == pytest.approx(0, abs=1e-5)
    opposite = [-g for g in ours]
    assert float(gradient_matching.distance(ours, opposite)) == pytest.approx(2 * 7, rel=1e-5)


def test_a_gradient_of_zero_does_not_poison_the_images():
    ours, theirs = [jnp.zeros((5, 3))], [jnp.ones((5, 3))]
    value, grad = jax.jit(jax.value_and_grad(gradient_matching.distance))(ours, theirs)
    assert float(value) == 3
    assert np.isfinite(grad[0]).all()


@pytest.mark.slow
def test_devices_change_nothing():
    states, _ = run(network(), SMALL_BATCHES, 1, 3)
    more, _ = run(network(), SMALL_BATCHES, 2, 3)
    np.testing.assert_allclose(more[-1].images, states[-1].images, atol=1e-3)
    for ours, theirs in zip(more[1].network, states[1].network, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_network_lives_for_the_outer_loops():
    states, _ = run(network(), SMALL_BATCHES, 1, 4)
    kernels = [max(state.network, key=lambda leaf: leaf.size) for state in states[1:]]
    kept, replaced, kept_too = (
        float(jnp.abs(kernels[i] - kernels[i + 1]).mean()) for i in (0, 1, 2)
    )
    assert kept == kept_too == 0  # The second step matches what the first one trained.
    drawn = network().init(jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 0), 0))[0]
    first = max(jax.tree.leaves(drawn), key=lambda leaf: leaf.size)
    trained = float(jnp.abs(kernels[0] - first).mean())
    assert 1e-5 < trained < replaced / 2  # The third step draws another, far from it.


def test_published_loops():
    assert gradient_matching.LOOPS[1] == (1, 1)
    assert gradient_matching.LOOPS[10] == (10, 50)
    assert gradient_matching.LOOPS[50] == (50, 10)
