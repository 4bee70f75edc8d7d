"""Training of finite networks against a loop in NumPy, and what the seeds and the devices share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kip_flax import architectures as arch
from kip_flax.architectures import Dense, Flatten
from kip_flax.networks import build, train, zoo
from kip_flax.runtime import batching, sharding

CLASSES = 3
LINEAR = (Flatten(), Dense())


def network(spec=LINEAR, shape=(2, 2, 1), width=8):
    return build.functions(lambda rngs: build.make_network(spec, shape, CLASSES, rngs, width=width))


def problem(n=6, seeds=4, shape=(2, 2, 1)):
    """Images and centred labels for each seed, and their keys."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((seeds, n, *shape)).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, (seeds, n))] - 1 / CLASSES
    return images, labels.astype(np.float32), jax.random.split(jax.random.key(5), seeds)


def recipe(**changes):
    options = {"loss": "mse", "num_steps": 20, "batch_size": 100, "momentum": 0.9}
    return train.Recipe(**(options | changes))


def numpy_training(weights, bias, x, y, rate, l2, steps, momentum, loss):
    """Gradient descent on a linear network, in float64."""
    x = x.reshape(len(x), -1).astype(np.float64)
    p = [weights.astype(np.float64), bias.astype(np.float64)]
    velocity = [np.zeros_like(v) for v in p]
    for step in range(steps):
        outputs = x @ p[0] + p[1]
        if loss == "mse":  # 0.5 * mean over images and classes
            error = (outputs - y) / y.size
        else:
            soft = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
            error = (soft - y) / len(y)
        grads = [x.T @ error + l2 * p[0], error.sum(0) + l2 * p[1]]
        cosine = 0.5 * (1 + np.cos(np.pi * step / steps))
        velocity = [momentum * v + g for v, g in zip(velocity, grads, strict=True)]
        p = [v - rate * cosine * m for v, m in zip(p, velocity, strict=True)]
    return p


@pytest.mark.parametrize("pixels", [2048, 16], ids=["one pass", "two passes"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_training_is_gradient_descent_as_written_out_in_numpy(loss, pixels, monkeypatch):
    monkeypatch.setattr(batching, "PIXELS", pixels)
    images, labels, keys = problem()
    if loss == "cross_entropy":
        labels = labels + np.float32(1 / CLASSES)
    trainer = train.make_trainer(network(), recipe(loss=loss), sharding.make_mesh())
    states, _ = trainer.start(keys, images[0])
    rates = jnp.array([0.1, 0.2, 0.3, 0.4], jnp.float32)
    after = trainer.advance(states, train.Trainings(keys, images, labels, rates), 0.05, 0, 20)
    for seed in range(4):
        first, last = (
            [np.asarray(s["params"]["layers"][1][k][...][seed]) for k in ("kernel", "bias")]
            for s in (states, after)
        )
        expected = numpy_training(
            *(*first, images[seed], labels[seed], float(rates[seed])),
            *(0.05, 20, 0.9, loss),
        )
        for ours, theirs in zip(last, expected, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def same(a, b, **tolerances):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerances)


def test_training_in_parts_is_training_to_the_bit():
    images, labels, keys = problem(n=9)
    options = recipe(batch_size=4, augments=("flip", "shift"))
    trainer = train.make_trainer(network(), options, sharding.make_mesh())
    start, rates = trainer.start(keys, images[0])
    data = (train.Trainings(keys, images, labels, 0.1 * rates), 1e-3)
    whole = trainer.advance(start, *data, 0, 20)
    parts = start
    for first, last in ((0, 3), (3, 10), (10, 20)):
        parts = trainer.advance(parts, *data, first, last)
    same(whole, parts, rtol=0, atol=0)


def test_a_seed_does_not_depend_on_the_others_or_the_devices():
    images, labels, keys = problem(n=9)
    net, options = network(arch.fc(1)), recipe(batch_size=4)
    found = []
    for devices, part in ((4, slice(None)), (1, slice(None)), (1, slice(1, 3))):
        trainer = train.make_trainer(net, options, sharding.make_mesh(devices))
        start, rates = trainer.start(keys[part], images[0])
        data = (train.Trainings(keys[part], images[part], labels[part], 0.1 * rates), 1e-3)
        found.append((trainer.advance(start, *data, 0, 20)["params"], rates))
    same(found[0], found[1], rtol=1e-5, atol=1e-6)
    same(jax.tree.map(lambda leaf: leaf[1:3], found[1]), found[2], rtol=1e-5, atol=1e-6)
    kernels = np.asarray(found[0][0]["layers"][1]["kernel"][...])
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_one_augmentation_is_drawn_for_a_batch():
    images, labels, _ = problem(n=6, shape=(8, 8, 1))
    one = recipe(augments=("cutout", "flip"), augment_draw="one")
    kinds = []
    for number in range(12):
        x = np.asarray(train._batch(one, images[0], labels[0], jax.random.key(number))[0])
        cut = (x == 0).any(axis=(1, 2, 3))
        assert cut.all() or not cut.any()
        kinds.append(bool(cut.all()))
    assert set(kinds) == {True, False}


def test_batches_and_augmentations_are_drawn_anew_for_every_step():
    images, labels, keys = problem(n=50, seeds=4)
    one = recipe(batch_size=7, augments=("flip",))
    drawn = [train._batch(one, images[0], labels[0], key)[0] for key in keys]
    flat = [np.abs(np.asarray(x)).sum((2, 3)).round(4).tolist() for x in drawn]
    assert len({str(rows) for rows in flat}) == 4
    for rows in flat:
        assert len({str(row) for row in rows}) == 7  # Without replacement.


def test_running_averages_are_carried_along_and_used(monkeypatch):
    """And normalisation is over the whole batch, even where a pass would hold one image."""
    monkeypatch.setattr(batching, "PIXELS", 4)

    def make(rngs):
        readout = build.make_network(LINEAR, (2, 2, 1), CLASSES, rngs)
        return nnx.Sequential(zoo.batch_norm(1, rngs), readout)

    images, labels, keys = problem(n=4, seeds=1)
    images = images + 3
    options = recipe(num_steps=200)
    trainer = train.make_trainer(build.functions(make), options, sharding.make_mesh(1))
    states, _ = trainer.start(keys, images[0])
    rates = jnp.array([0.1], jnp.float32)
    after = trainer.advance(states, train.Trainings(keys, images, labels, rates), 0.0, 0, 200)
    kept = after["other"]["layers"][0]
    assert float(kept["mean"][...][0, 0]) == pytest.approx(images.mean(), rel=1e-5)
    assert float(kept["var"][...][0, 0]) == pytest.approx(images.var(), rel=1e-4)
    assert float(trainer.accuracy(after, images[0], labels[0].argmax(1))[0]) == 1


@pytest.mark.parametrize("size", [4, 10, 100])
def test_accuracy_counts_all_test_images_once(size):
    images, _, keys = problem()
    net = network()
    trainer = train.make_trainer(net, recipe(), sharding.make_mesh(), eval_batch=size)
    states, _ = trainer.start(keys, images[0])
    rng = np.random.default_rng(1)
    test = rng.standard_normal((10, 2, 2, 1)).astype(np.float32)
    truth = rng.integers(0, CLASSES, 10)
    found = trainer.accuracy(states, test, truth)
    for seed in range(4):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], states["params"])
        outputs = np.asarray(net.apply(params, {}, test))
        assert float(found[seed]) == pytest.approx(np.mean(outputs.argmax(1) == truth))


def test_a_training_that_diverges_has_no_accuracy():
    images, labels, keys = problem()
    trainer = train.make_trainer(network(), recipe(num_steps=300), sharding.make_mesh())
    states, rates = trainer.start(keys, images[0])
    rates = rates * jnp.array([0.5, 1e3, 0.5, 1e3], jnp.float32)
    states = trainer.advance(states, train.Trainings(keys, images, labels, rates), 0.0, 0, 300)
    found = np.asarray(trainer.accuracy(states, images[0], labels[0].argmax(1)))
    assert np.isfinite(found).tolist() == [True, False, True, False]


def test_labels_for_every_loss():
    learned = np.array([[0.9, -0.5, -0.2], [-0.4, 0.3, 0.2], [-2, -2, -2.0]], np.float32)
    soft = train.training_labels(learned, "cross_entropy", "soft")
    third = 1 / 3
    expected = [[1, 0, 0], [0, 0.3 + third, 0.2 + third], [third] * 3]
    expected[0] = [(0.9 + third), 0, (-0.2 + third)]
    expected = np.array(expected)
    expected[:2] /= expected[:2].sum(1, keepdims=True)
    np.testing.assert_allclose(soft, expected, rtol=1e-6)
    np.testing.assert_array_equal(train.training_labels(learned, "mse", "soft"), learned)
    hard = train.training_labels(learned[:2], "cross_entropy", "hard")
    np.testing.assert_array_equal(hard, [[1, 0, 0], [0, 1, 0]])
    centred = train.training_labels(learned[:2], "mse", "hard")
    np.testing.assert_allclose(centred, hard - third, rtol=1e-6)
    natural = np.eye(3, dtype=np.float32)[[0, 2]] - np.float32(third)
    one_hot = train.training_labels(natural, "cross_entropy", "soft")
    np.testing.assert_allclose(one_hot, np.eye(3)[[0, 2]], atol=1e-6)
