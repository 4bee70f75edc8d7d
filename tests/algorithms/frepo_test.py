"""FRePo's step against a reference in float64, its pool, resume and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pooled_steps
import pytest
from pooled_steps import CLASSES, SHAPE, S, T, targets
from whole_runs import artefacts, assert_same, small

from configs import frepo_digits
from kip_flax import config as config_lib
from kip_flax.algorithms import base, frepo
from kip_flax.data import Dataset
from kip_flax.modes.train import mode as train
from kip_flax.runtime import batching, sharding
from kip_flax.runtime.errors import UserError


def settings(**fields):
    small = {
        "frepo.network": "convnet_plain:2",
        "frepo.width": 20,  # More features than images, or the kernel is singular.
        "frepo.growth": 2,
        "frepo.pool": 2,
        "frepo.life": 4,
        "frepo.flip": True,
        "frepo.average": 0.0,
        "frepo.normalization": "none",
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.0,
        "optimizer.schedule": "constant",
        "optimizer.learning_rate": 1.0,
        "support.size": S,
        "batch_size": T,
    }
    return pooled_steps.changed(frepo_digits.get_config(), small, fields)


def run(config, steps, devices=1):
    """States after 0, 1, ... steps, and what each step measured."""
    return pooled_steps.run(frepo, config, targets(), steps, devices)


def network_of(config, state, number):
    """Weights and biases, in float64 and in the order of the layers, of one network of the pool."""
    pooling = frepo._pooling(config, SHAPE, CLASSES)
    params = pooling.network(state.pool, number).params
    layers = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        keys = [getattr(key, "key", getattr(key, "name", None)) for key in path]
        layer, part = [key for key in keys if key is not None][1:3]
        layers.setdefault(int(layer), {})[part] = np.asarray(leaf, np.float64)
    return [(layers[i]["kernel"], layers[i]["bias"]) for i in sorted(layers)]


def features_of(network, x):
    """Convolutions of XLA's own, pooling by slices."""
    for kernel, bias in network[:-1]:
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        x = jnp.maximum(x + bias, 0)
        x = sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    return x.reshape(len(x), -1)


def loss_of(network, images, labels, x_t, y_t, flip=True, margin=True):
    """The loss in the symbols of the paper (equations 4 and 5), nothing of `krr`."""
    largest = jnp.sort(labels, axis=1)
    gap = jnp.minimum(largest[:, -1] - largest[:, -2], 1 / CLASSES)
    if flip:
        images = jnp.concatenate([images, images[:, :, ::-1]])
        labels = jnp.concatenate([labels, labels])
    f_s, f_t = features_of(network, images), features_of(network, x_t)
    k = f_s @ f_s.T
    k = k + 1e-6 * jnp.trace(k) / len(k) * jnp.eye(len(k))
    errors = f_t @ f_s.T @ jnp.linalg.inv(k) @ labels - y_t
    return jnp.mean(jnp.sum(errors**2, axis=1)) / 2 - margin * jnp.mean(gap)


def drawn_network(before, after):
    """The one that the step trained."""
    changed = np.flatnonzero(np.asarray(before.pool.ages) != np.asarray(after.pool.ages))
    (number,) = changed
    return int(number)


@pytest.fixture(scope="module")
def twelve():
    """The configuration, states and metrics of twelve steps."""
    config = settings()
    return config, *run(config, 12)


@pytest.mark.parametrize(
    ("flip", "margin"),
    [
        (True, True),
        (False, False),
        pytest.param(True, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
    ],
)
def test_a_step_of_descent_is_the_papers_gradient(flip, margin, twelve):
    config = settings(frepo__flip=flip, frepo__margin=margin)
    states, history = twelve[1:] if flip and margin else run(config, 1)
    (before, after), metrics = states[:2], history[0]
    network = network_of(config, before, drawn_network(before, after))
    images, labels = (np.asarray(a, np.float64) for a in before.support)
    data = targets()
    x_t, y_t = data.images.astype(np.float64), np.eye(CLASSES)[data.labels] - 1 / CLASSES

    def loss(images, labels):
        return loss_of(network, images, labels, x_t, y_t, flip, margin)

    loss = jax.jit(loss)
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(images, labels)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    for old, new, gradient in zip(before.support, after.support, gradients, strict=True):
        np.testing.assert_allclose(old - new, gradient, atol=2e-4 * np.abs(gradient).max())
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    direction = np.random.default_rng(2).normal(size=images.shape)
    ends = [float(loss(images + e * direction, labels)) for e in (1e-5, -1e-5)]
    slope = (ends[0] - ends[1]) / 2e-5
    change = float(np.sum((before.support[0] - after.support[0]) * direction))
    assert change == pytest.approx(slope, rel=1e-3)


def test_the_drawn_network_takes_one_step_of_adam_on_the_new_support(twelve):
    config, (before, after, *_), _ = twelve
    number = drawn_network(before, after)
    old, new = (network_of(config, state, number) for state in (before, after))
    x, y = (np.asarray(a, np.float64) for a in after.support)

    def loss(network):
        *_, (kernel, bias) = network
        outputs = features_of(network, x) @ kernel + bias
        return jnp.mean(jnp.sum((outputs - y) ** 2, axis=1)) / 2

    tx = optax.adam(config.frepo.learning_rate)
    updates, _ = tx.update(jax.jit(jax.grad(loss))(old), tx.init(old))
    for ours, theirs in zip(
        jax.tree.leaves(new), jax.tree.leaves(optax.apply_updates(old, updates)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)  # A step is 3e-4.
    other = network_of(config, after, 1 - number)
    untouched = network_of(config, before, 1 - number)
    jax.tree.map(np.testing.assert_array_equal, other, untouched)


def test_networks_are_drawn_anew_after_their_lives(twelve):
    config, states, _ = twelve
    assert np.asarray(states[0].pool.ages).tolist() == [0, 2]  # Staggered.
    trained, lives = [0, 2], [0, 0]
    for after in states[1:]:
        ages, number = np.asarray(after.pool.ages).tolist(), None
        for i in range(2):
            if ages[i] != trained[i]:
                number = i
        assert number is not None
        trained[number] += 1
        if trained[number] == config.frepo.life:
            trained[number], lives[number] = 0, lives[number] + 1
            pooling = frepo._pooling(config, SHAPE, CLASSES)
            key = jax.random.fold_in(jax.random.fold_in(pooling.key, number), lives[number])
            drawn = jax.tree.leaves(jax.jit(pooling.net.init)(key)[0])
            found = jax.tree.leaves(pooling.network(after.pool, number).params)
            for ours, theirs in zip(found, drawn, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert ages == trained
        assert np.asarray(after.pool.lives).tolist() == lives
    assert sum(lives) >= 2


def test_batch_normalisation_keeps_averages_that_features_use():
    """Labels are fixed here: they stay."""
    config = settings(frepo__normalization="batch", support__learn_labels=False)
    (before, after), _ = run(config, 1)
    check_fixed_labels((before, after))
    number = drawn_network(before, after)
    pooling = frepo._pooling(config, SHAPE, CLASSES)
    old, new = (pooling.network(state.pool, number) for state in (before, after))
    x = jnp.asarray(after.support[0])
    averages = jax.jit(pooling.net.apply_train)(old.params, old.other, x)[1]
    for ours, theirs in zip(jax.tree.leaves(new.other), jax.tree.leaves(averages), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    averages = zip(*map(jax.tree.leaves, (old.other, new.other)), strict=True)
    moved = [np.abs(a - b).max() for a, b in averages]
    assert max(moved) > 0.01


@pytest.mark.parametrize("normalization", [pytest.param("none", marks=pytest.mark.slow), "batch"])
def test_devices_and_passes_change_nothing(normalization, monkeypatch):
    """Six mirrored images, ten targets and two pixels' worth of passes do not divide by four."""
    config = settings(frepo__normalization=normalization, optimizer__learning_rate=0.1)
    states, metrics = run(config, 3)
    monkeypatch.setattr(batching, "PIXELS", 32)
    more, more_metrics = run(config, 3, devices=4)
    for one, four in zip(metrics, more_metrics, strict=True):
        assert float(four["loss"]) == pytest.approx(float(one["loss"]), rel=1e-4)
    for ours, theirs in zip(more[-1].support, states[-1].support, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_without_float64_images_are_few_for_the_features(monkeypatch):
    """Forty features: 12 images with their mirror images are fine, 18 are not."""
    data = Dataset("x", *2 * (targets().images, targets().labels), ("a", "b", "c"), mirrorable=True)
    for size, flip, refused in ((6, True, False), (9, True, True), (9, False, False)):
        config = settings(support__size=size, frepo__flip=flip)
        frepo.check_data(config, data)
        monkeypatch.setattr(sharding, "takes_float64", lambda: False)
        if refused:
            with pytest.raises(
                UserError, match="40 features, too few for 9 images and their mirror images"
            ):
                frepo.check_data(config, data)
        else:
            frepo.check_data(config, data)
        monkeypatch.undo()


def test_the_mean_of_the_sets_is_exported():
    fields = {"frepo__network": "fc:1", "frepo__flip": False, "optimizer__learning_rate": 0.1}
    states, _ = run(settings(frepo__average=0.5, **fields), 3)
    mean = np.asarray(states[0].params["images"], np.float64)
    for step, state in enumerate(states[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * np.asarray(state.params["images"])
    np.testing.assert_allclose(states[-1].support[0], mean, atol=1e-5)
    assert np.abs(states[-1].support[0] - states[-1].params["images"]).max() > 1e-3


def check_fixed_labels(states):
    """They begin at the scale of the targets, and stay."""
    one_hot = np.eye(CLASSES)[np.arange(S) % CLASSES] - 1 / CLASSES
    for state in states:
        np.testing.assert_allclose(state.support[1], one_hot, rtol=1e-6)


def test_labels_that_learn_begin_at_the_paper_s_scale():
    images, one_hot = np.zeros((CLASSES, 8, 8, 1)), np.eye(CLASSES) - 1 / CLASSES
    for learned, scale in ((True, (CLASSES / 10) ** 0.5), (False, 1.0)):
        config = settings(frepo__network="fc:1", support__learn_labels=learned)
        labels = frepo.init(config, jnp.asarray(images), jnp.asarray(one_hot)).support[1]
        np.testing.assert_allclose(labels, one_hot / scale, rtol=1e-6)


def test_margin_by_hand():
    labels = jnp.array([[0.5, 0.4, -0.9], [0.9, -0.4, -0.5], [0.1, 0.1, 0.0]])
    assert float(frepo.margin_loss(labels)) == pytest.approx(-(0.1 + 1 / 3 + 0) / 3)


def test_lamb_and_a_cosine_to_a_tenth():
    """LAMB (You et al., ICLR 2020): Adam's direction, as long as the layer's weights."""
    tx = base.optimizer("lamb", 0.1, "cosine_tenth", 0, 0.9, 10)
    x = {"images": jnp.array([3.0, 4.0])}
    state = tx.init(x)
    lengths = []
    for _ in range(10):
        updates, state = tx.update({"images": jnp.array([1.0, -1.0])}, state, x)
        lengths.append(float(jnp.linalg.norm(updates["images"])))
    rates = [0.1 * (0.9 * (1 + np.cos(np.pi * t / 10)) / 2 + 0.1) for t in range(10)]
    np.testing.assert_allclose(lengths, [5 * rate for rate in rates], rtol=1e-4)


def test_digits_are_not_mirrored(digits):
    config = settings(frepo__flip=True)
    with pytest.raises(UserError, match=r"^frepo.flip mirrors .* in digits .*frepo.flip=False"):
        frepo.check_data(config, digits)
    frepo.check_data(settings(frepo__flip=False), digits)


def test_a_run_goes_on_to_the_same_bits(quick_kernels, tmp_path):
    fields = {"network": "fc:1", "width": 32, "pool": 2, "life": 3, "flip": False, "average": 0.5}
    config = small(algorithm="frepo", num_steps=6, eval__steps=(0,), batch_size=100)
    config.frepo.update(fields)
    config_lib.validate(config)
    whole = train.train_and_evaluate(config, str(tmp_path / "whole"))
    for steps in (4, 6):
        config.num_steps = steps
        parts = train.train_and_evaluate(config, str(tmp_path / "parts"))
    assert_same(parts, whole)
    (last,) = (name for name in artefacts(tmp_path / "whole") if name.endswith("ckpt6.npz"))
    assert artefacts(tmp_path / "parts")[last] == artefacts(tmp_path / "whole")[last]
