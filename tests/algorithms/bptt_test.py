"""BPTT's step against plain differentiation of the whole training, its pool, resume and devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pooled_steps
import pytest
from pooled_steps import CLASSES, SHAPE, S, T
from whole_runs import assert_same, small

from configs import bptt_digits
from kip_flax import config as config_lib
from kip_flax import preprocess
from kip_flax.algorithms import base, bptt
from kip_flax.algorithms.interface import Problem
from kip_flax.data import Targets
from kip_flax.modes.train import mode as train
from kip_flax.networks import train as networks_train
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import batching, sharding
from kip_flax.runtime.errors import UserError

TINY = {
    "bptt.network": "fc:1",
    "bptt.width": 7,
    "bptt.pool": 1,
    "bptt.networks": 1,
    "bptt.window": 4,
    "bptt.life": 20,
    "bptt.learning_rate": 0.03,
    "bptt.label_scale": 2.0,
    "bptt.augment": "",
    "bptt.augment_draw": "all",
    "bptt.average": 0.0,
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.0,
    "optimizer.schedule": "constant",
    "optimizer.learning_rate": 1.0,
    "support.size": S,
    "batch_size": T,
}


def settings(**fields):
    return pooled_steps.changed(bptt_digits.get_config(), TINY, fields)


def targets():
    return pooled_steps.targets(scale=3)


def run(config, steps, devices=1):
    """States after 0, 1, ... steps, and what each step measured."""
    return pooled_steps.run(bptt, config, targets(), steps, devices)


def layers_of(config, state, number):
    """(w1, b1), (w2, b2) of a network of one hidden layer, in float64."""
    params = bptt._pooling(config, SHAPE, CLASSES).network(state.pool, number).params
    layers = [params["layers"][i] for i in sorted(params["layers"])]
    return [
        tuple(np.asarray(layer[part][...], np.float64) for part in ("kernel", "bias"))
        for layer in layers
    ]


def outputs_of(network, x):
    (w1, b1), (w2, b2) = network
    return jnp.maximum(x.reshape(len(x), -1) @ w1 + b1, 0) @ w2 + b2


def after_training(network, images, labels, ages, config):
    """Adam and a cosine, written out; nothing of optax, of `lax.scan` or of checkpoints."""
    means = jax.tree.map(jnp.zeros_like, network)
    squares = jax.tree.map(jnp.zeros_like, network)
    for count, age in enumerate(ages, start=1):

        def loss(network):
            errors = outputs_of(network, images) - config.bptt.label_scale * labels
            return jnp.mean(errors**2) / 2

        grads = jax.grad(loss)(network)
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, grads)
        squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, squares, grads)
        rate = config.bptt.learning_rate * (1 + np.cos(np.pi * age / config.bptt.life)) / 2

        def moved(p, m, v, rate=rate, count=count):
            deviation = jnp.sqrt(v / (1 - 0.999**count) + 1e-10) + 1e-8
            return p - rate * m / (1 - 0.9**count) / deviation

        network = jax.tree.map(moved, network, means, squares)
    return network


@pytest.mark.parametrize("window", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_step_of_descent_is_the_gradient_of_the_whole_training(window):
    config, data = settings(bptt__window=window), targets()
    (before, after), (metrics,) = run(config, 1)
    network, scale = layers_of(config, before, 0), 1 / data.images.std(dtype=np.float64)
    x_t, classes = scale * data.images.astype(np.float64), np.eye(CLASSES)[data.labels]

    def loss(images, labels):
        trained = after_training(network, scale * images, labels, range(window), config)
        logits = outputs_of(trained, x_t)
        right = jnp.sum(logits * classes, axis=1)
        return jnp.mean(jax.scipy.special.logsumexp(logits, axis=1) - right)

    images, labels = (np.asarray(a, np.float64) for a in before.support)
    loss = jax.jit(loss)
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(images, labels)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    for old, new, gradient in zip(before.support, after.support, gradients, strict=True):
        np.testing.assert_allclose(old - new, gradient, atol=2e-3 * np.abs(gradient).max())
        assert np.abs(gradient).max() > 1e-3
    direction = np.random.default_rng(2).normal(size=images.shape)
    ends = [float(loss(images + e * direction, labels)) for e in (1e-6, -1e-6)]
    slope = (ends[0] - ends[1]) / 2e-6
    change = float(np.sum((before.support[0] - after.support[0]) * direction))
    assert change == pytest.approx(slope, rel=5e-3)
    trained = after_training(network, scale * images, labels, range(window), config)
    for ours, theirs in zip(layers_of(config, after, 0), trained, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_networks_of_the_pool_are_trained_as_those_that_judge_a_set():
    """As long as the support stays, a pool's network goes the way of `networks.train`."""
    config = settings(optimizer__learning_rate=1e-12, bptt__learning_rate=0.01)
    states, _ = run(config, 3)
    pooling, recipe = bptt._pooling(config, SHAPE, CLASSES), bptt._recipe(config)
    trainer = networks_train.make_trainer(pooling.net, recipe, sharding.make_mesh(1, 1))
    start = pooling.network(states[0].pool, 0)
    state = trainer.start(jax.random.split(jax.random.key(0), 1))
    state = state | {"params": jax.tree.map(lambda leaf: leaf[None], start.params)}
    scale = 1 / targets().images.std(dtype=np.float64)
    images, labels = (np.asarray(a) for a in states[0].support)
    trainings = networks_train.Trainings(
        jax.random.split(jax.random.key(1), 1),
        np.float32(scale * images)[None],
        networks_train.training_labels(labels, recipe)[None],
        np.float32([0.01]),
        np.float32([0.0]),
    )
    state = trainer.advance(state, trainings, recipe, 0, 12)
    found = pooling.network(states[-1].pool, 0).params
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(state["params"]), strict=True):
        np.testing.assert_allclose(ours, theirs[0], atol=1e-4)
    assert int(states[-1].pool.ages[0]) == 12


def test_networks_grow_older_by_a_window_and_are_drawn_anew():
    """Labels are fixed here: they stay."""
    fields = {"bptt__pool": 3, "bptt__networks": 2, "optimizer__learning_rate": 0.1}
    states, _ = run(settings(**fields, support__learn_labels=False), 9)
    np.testing.assert_array_equal(states[0].support[1], states[-1].support[1])
    assert np.abs(states[0].support[0] - states[-1].support[0]).max() > 1e-4
    ages, lives = np.zeros(3, int), np.zeros(3, int)
    for after in states[1:]:
        new, new_lives = np.asarray(after.pool.ages), np.asarray(after.pool.lives)
        moved = np.flatnonzero((new != ages) | (new_lives != lives))
        assert len(moved) == 2
        for number in moved:
            ended = ages[number] + 4 >= 20
            assert new[number] == (0 if ended else ages[number] + 4)
            assert new_lives[number] == lives[number] + ended
        ages, lives = new, new_lives
    assert lives.sum() >= 1


@pytest.mark.slow
@pytest.mark.parametrize("networks", [2, 3])
def test_devices_and_passes_change_nothing(networks, monkeypatch):
    """Two or three networks on four devices: some have none to train."""
    fields = {"bptt__pool": 4, "bptt__networks": networks, "optimizer__learning_rate": 0.1}
    config = settings(bptt__augment="flip,nudge", bptt__network="convnet_plain:1", **fields)
    states, metrics = run(config, 3)
    monkeypatch.setattr(batching, "PIXELS", 48)
    more, more_metrics = run(config, 3, devices=4)
    for one, four in zip(metrics, more_metrics, strict=True):
        assert float(four["loss"]) == pytest.approx(float(one["loss"]), rel=1e-4)
        assert float(four["accuracy"]) == pytest.approx(float(one["accuracy"]), abs=1e-6)
    for ours, theirs in zip(more[-1].support, states[-1].support, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_array_equal(more[-1].pool.ages, states[-1].pool.ages)


def test_a_network_that_diverges_moves_nothing():
    """Nor does what Adam remembers of earlier steps."""
    config = settings(bptt__learning_rate=1e30)
    (start,), _ = run(config, 0)
    first = start.replace(opt_state=jax.tree.map(lambda leaf: leaf + 1, start.opt_state))
    (before, after), (metrics,) = pooled_steps.run(bptt, config, targets(), 1, first=first)
    assert_same(after.opt_state, before.opt_state)
    for old, new in zip(before.support, after.support, strict=True):
        np.testing.assert_array_equal(old, new)
    assert float(metrics["grad_norm"]) == 0
    assert np.isnan(float(metrics["loss"]))


def test_loss_and_gradient_are_means_over_the_networks_that_learn():
    config = settings(bptt__pool=2, bptt__networks=2, optimizer__learning_rate=0.1)
    data, mesh = targets(), sharding.make_mesh(1, 1)
    made = pooled_steps.make_step(bptt, config, data, mesh)
    (before, after), (both,) = pooled_steps.run(bptt, config, data, 1, step=made)
    states, history = [], []
    for number in range(2):
        ill = tuple(
            leaf.at[number].set(jnp.nan) if leaf.dtype == jnp.float32 else leaf
            for leaf in before.pool.networks
        )
        first = before.replace(pool=before.pool.replace(networks=ill))
        (_, state), (metrics,) = pooled_steps.run(bptt, config, data, 1, first=first, step=made)
        assert int(state.pool.lives[number]) == 1
        states.append(state)
        history.append(metrics)
    for name in ("loss", "accuracy"):
        assert float(both[name]) == pytest.approx(np.mean([float(m[name]) for m in history]))
    for place in range(2):
        moved = [np.asarray(state.support[place]) for state in states]
        np.testing.assert_allclose(np.mean(moved, axis=0), after.support[place], atol=1e-6)
        assert np.abs(moved[0] - moved[1]).max() > 1e-4


@pytest.mark.slow
def test_a_run_goes_on_without_the_networks_that_diverge(quick_kernels, tmp_path):
    fields = {k.replace(".", "__"): v for k, v in TINY.items() if k.startswith("bptt.")}
    fields |= {"bptt__learning_rate": 1e30, "bptt__pool": 2, "bptt__networks": 2}
    config = small(algorithm="bptt", num_steps=3, eval__steps=(0,), batch_size=100, **fields)
    state = train.train_and_evaluate(config, str(tmp_path))
    np.testing.assert_array_equal(state.pool.lives, [3, 3])
    np.testing.assert_array_equal(state.pool.ages, [0, 0])
    assert all(np.isfinite(leaf).all() for leaf in state.pool.networks)


def test_digits_are_not_mirrored(digits):
    fields = TINY | {"bptt.augment": "scale,flip"}
    config = pooled_steps.changed(bptt_digits.get_config(), fields, {})
    with pytest.raises(UserError, match=r"^bptt.augment mirrors .* in digits .*augment_draw=one"):
        bptt.check_data(config, digits)
    bptt.check_data(config, dataclasses.replace(digits, mirrorable=True))


def test_what_would_do_nothing_is_refused(digits):
    """Digits of 8 pixels would be moved by less than one; a constant has no deviation."""
    config = pooled_steps.changed(bptt_digits.get_config(), TINY | {"bptt.augment": "nudge"}, {})
    with pytest.raises(UserError, match=r"^bptt\.augment is 'nudge', which moves images of 8 pix"):
        bptt.check_data(config, digits)
    with pytest.raises(UserError, match="training images are one constant, and BPTT divides"):
        bptt._deviation(np.full((3, 4, 4, 1), 0.5, np.float32))


def test_networks_with_averages_over_batches_are_refused(digits):
    config = settings(bptt__network="resnet18_bn")
    with pytest.raises(UserError, match=r"resnet18_bn' keeps averages over batches.*take one with"):
        bptt.check_data(config, digits)


@pytest.mark.slow
def test_normalised_networks_are_trained():
    config = settings(bptt__network="vgg11_bn", bptt__window=1)
    with pytest.raises(UserError, match="too small"):
        bptt._make(config, SHAPE, CLASSES)
    config = settings(bptt__network="convnet2_in", bptt__window=2, optimizer__learning_rate=0.1)
    (before, after), (metrics,) = run(config, 1)
    assert np.isfinite(float(metrics["loss"]))
    assert int(after.pool.ages[0]) == 2
    for old, new in zip(before.support, after.support, strict=True):
        assert np.abs(np.asarray(new) - np.asarray(old)).max() > 1e-3


@pytest.fixture(scope="module")
def whole(quick_kernels, tmp_path_factory):
    """A run on digits, and its configuration."""
    fields = {k.replace(".", "__"): v for k, v in TINY.items() if k.startswith("bptt.")}
    fields |= {"bptt__pool": 4, "bptt__networks": 2, "bptt__width": 32, "bptt__average": 0.5}
    fields |= {"bptt__life": 40, "bptt__learning_rate": 0.01, "bptt__label_scale": 8.0}
    config = small(algorithm="bptt", num_steps=20, eval__steps=(0,), batch_size=200, **fields)
    config.optimizer.learning_rate = 0.03
    workdir = tmp_path_factory.mktemp("whole")
    return config, train.train_and_evaluate(config, str(workdir))


def test_a_run_goes_on_to_the_same_bits(whole, tmp_path):
    config, state = whole
    parts = config.copy_and_resolve_references()
    for steps in (7, 20):
        parts.num_steps = steps
        found = train.train_and_evaluate(parts, str(tmp_path))
    assert_same(found, state)
    assert not RunFolder(tmp_path).unreadable_checkpoints.exists()


@pytest.mark.slow
def test_what_networks_get_wrong_falls(whole, digits):
    config, key = whole[0], jax.random.key(0)
    pixels = preprocess.apply(preprocess.fit("standard", digits.train_images), digits.train_images)
    drawn_from = Targets(pixels, digits.train_labels, 10)
    mesh = sharding.make_mesh(1, 1)
    step = bptt.make_step(Problem(config, drawn_from, None, mesh, key))
    begun = bptt.init(config, *base.draw_support(drawn_from, 10, "real", key))
    state, losses = sharding.replicate(mesh, jax.tree.map(np.array, begun)), []
    for number in range(1, 41):
        state, metrics = step(state, number)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bptt.networks": 11}, "bptt.networks is 11 of a pool of 10"),
        ({"bptt.window": 501}, "bptt.window is 501 and networks live for 500"),
        ({"bptt.average": 1.0}, "bptt.average is 1.0"),
        ({"bptt.augment": "fog"}, "unknown augmentation 'fog'"),
        ({"bptt.network": "net"}, "unknown network 'net'"),
        ({"bptt.label_scale": 0.0}, "bptt.label_scale is 0.0"),
    ],
)
def test_mistakes_are_one_line(fields, message):
    config = bptt_digits.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message) as caught:
        config_lib.validate(config)
    assert "\n" not in str(caught.value)
