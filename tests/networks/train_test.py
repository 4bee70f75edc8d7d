"""Training of finite networks against a loop in NumPy, and what the seeds and the devices share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from kip_flax import architectures as arch
from kip_flax.architectures import Dense, Flatten
from kip_flax.networks import build, train, zoo
from kip_flax.networks.recipe import Recipe
from kip_flax.runtime import batching, sharding
from kip_flax.runtime.errors import UserError

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
    options = {"loss": "mse", "labels": "soft", "optimizer": "sgd", "rates": (1.0,), "width": 8}
    return Recipe(**(options | {"num_steps": 20, "batch_size": 100} | changes))


def trained(net, options, l2=0.0, rates=(0.1, 0.2, 0.3, 0.4), n=6, parts=None):
    """Four trainings on four devices: the states at the start and at the end, and what they see."""
    images, labels, keys = problem(n=n)
    if options.loss == "cross_entropy":
        labels = labels + np.float32(1 / CLASSES)
    trainer = train.make_trainer(net, options, sharding.make_mesh())
    states = start = trainer.start(keys)
    data = train.Trainings(
        keys, images, labels, np.array(rates, np.float32), np.full(4, l2, np.float32)
    )
    for first, last in parts or [(0, options.num_steps)]:
        states = trainer.advance(states, data, options, first, last)
    return start, states, data


def weights(states, seed, part="params"):
    tree = states[part][0] if part == "average" else states[part]
    return [np.asarray(tree["layers"][1][k][...][seed]) for k in ("kernel", "bias")]


class Numpy:
    """The optimisers written out, in float64, each of a list of arrays."""

    def sgd(self, grads, state, step, momentum=0.9):
        del step
        state["m"] = [momentum * m + g for m, g in zip(state["m"], grads, strict=True)]
        return state["m"]

    def adam(self, grads, state, step, b1=0.9, b2=0.999, eps=1e-8):
        state["m"] = [b1 * m + (1 - b1) * g for m, g in zip(state["m"], grads, strict=True)]
        state["v"] = [b2 * v + (1 - b2) * g * g for v, g in zip(state["v"], grads, strict=True)]
        scaled = [
            (m / (1 - b1 ** (step + 1)), v / (1 - b2 ** (step + 1)))
            for m, v in zip(state["m"], state["v"], strict=True)
        ]
        return [m / (np.sqrt(v) + eps) for m, v in scaled]


def numpy_training(first, x, y, rate, l2, options):
    """A training of a linear network: its last weights, and the mean over all steps but the start.

    The rate is 0 to its height in the warm-up, then a cosine to `end_rate`.
    """
    x = x.reshape(len(x), -1).astype(np.float64)
    p = [v.astype(np.float64) for v in first]
    start = [v.copy() for v in p]
    state = {"m": [np.zeros_like(v) for v in p], "v": [np.zeros_like(v) for v in p]}
    history = []
    for step in range(options.num_steps):
        outputs = x @ p[0] + p[1]
        if options.centred:
            outputs = outputs - (x @ start[0] + start[1])
        if options.loss == "mse":  # 0.5 * mean over images and classes
            error = (outputs - y) / y.size
        else:
            soft = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
            error = (soft - y) / len(y)
        pulled = [v - options.centred * v0 for v, v0 in zip(p, start, strict=True)]
        grads = [x.T @ error + l2 * pulled[0], error.sum(0) + l2 * pulled[1]]
        update = getattr(Numpy(), options.optimizer)(grads, state, step)
        height = rate * numpy_share(step, options)
        p = [v - height * u for v, u in zip(p, update, strict=True)]
        history.append(p)
    powers = options.average ** np.arange(len(history))[::-1]
    mean = [
        sum(w * step[i] for w, step in zip(powers, history, strict=True)) / powers.sum()
        for i in range(2)
    ]
    return p, mean


def numpy_share(step, options):
    if step < options.warmup_steps:
        return step / options.warmup_steps
    if options.schedule == "drop":
        return 1 if step < options.num_steps / 2 else options.end_rate
    done = (step - options.warmup_steps) / (options.num_steps - options.warmup_steps)
    return options.end_rate + (1 - options.end_rate) * 0.5 * (1 + np.cos(np.pi * done))


def test_a_network_with_running_averages_cannot_be_centred():
    """Those of the untrained network are nobody's, but it is subtracted at the test too."""
    init = network().init
    net = dataclasses.replace(network(), init=lambda key: (init(key)[0], {"mean": jnp.zeros(3)}))
    mesh = sharding.make_mesh(1)
    with pytest.raises(UserError, match=r"transfer\.centred subtracts the untrained network"):
        train.make_trainer(net, recipe(centred=True), mesh)
    train.make_trainer(net, recipe(), mesh)


@pytest.mark.parametrize("pixels", [2048, 16], ids=["one pass", "two passes"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "cross_entropy"},
        {"optimizer": "adam", "warmup_steps": 5, "end_rate": 0.01},
        {"schedule": "drop", "end_rate": 0.1},
        {"centred": True},
        {"optimizer": "adam", "average": 0.9, "centred": True},
    ],
    ids=lambda changes: ", ".join(changes) or "published",
)
def test_training_is_as_written_out_in_numpy(changes, pixels, monkeypatch):
    monkeypatch.setattr(batching, "PIXELS", pixels)
    options = recipe(**changes)
    # Seven images of three classes: no bias has a gradient of 0, which Adam would make a step of.
    start, after, data = trained(network(), options, l2=0.05, n=7)
    for seed in range(4):
        first = weights(start, seed)
        last, mean = numpy_training(
            *(first, data.images[seed], data.labels[seed], float(data.rates[seed]), 0.05, options)
        )
        pairs = list(zip(weights(after, seed), last, strict=True))
        if options.average:
            pairs += zip(weights(after, seed, "average"), mean, strict=True)
        for ours, theirs in pairs:
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_the_schedules_are_optax_ones():
    cosine = recipe(num_steps=1000, warmup_steps=500, end_rate=0.01)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 3e-4, 500, 1000, 3e-6)
    drop = recipe(num_steps=11, schedule="drop", end_rate=0.1)
    halved = optax.piecewise_constant_schedule(1.0, {6: 0.1})
    for step in (0, 1, 250, 499, 500, 501, 750, 999, 1000, 1300):
        ours = train.share_of_rate(cosine, step, 1000, 500)
        assert ours.dtype == np.float32
        assert float(ours) * 3e-4 == pytest.approx(float(theirs(step)), rel=1e-4, abs=1e-12)
    for step in range(11):
        assert float(train.share_of_rate(drop, step, 11, 0)) == pytest.approx(float(halved(step)))


@pytest.mark.parametrize("name", ["sgd", "adam", "adabelief", "lamb"])
def test_the_optimisers_are_optax_ones(name):
    """With the rate as theirs to set; the same gradients, those of x^4 / 4."""
    made = train._optimizer(recipe(optimizer=name))
    rate = optax.cosine_decay_schedule(0.1, 20)
    options = {"momentum": 0.9} if name == "sgd" else {}
    theirs = getattr(optax, name)(rate, **options)
    x = y = jnp.array([1.0, -2.0, 0.5], jnp.float32)
    a, b = made.init(x), theirs.init(y)
    for step in range(20):
        updates, a = made.update(x**3, a, x)
        x = x + 0.1 * train.share_of_rate(recipe(), step, 20, 0) * updates
        updates, b = theirs.update(y**3, b, y)
        y = y + updates
        np.testing.assert_allclose(x, y, rtol=1e-5)


def same(a, b, **tolerances):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerances)


def test_training_in_parts_is_training_to_the_bit():
    options = recipe(
        batch_size=4, augments=("flip", "shift"), optimizer="adam", average=0.9, centred=True
    )
    _, whole, _ = trained(network(), options, n=9)
    _, parts, _ = trained(network(), options, n=9, parts=[(0, 3), (3, 10), (10, 20)])
    same(whole, parts, rtol=0, atol=0)


def test_one_program_serves_all_numbers_of_steps():
    """So that a short training, by which is chosen, needs no compiling of its own."""
    images, labels, keys = problem()
    trainer = train.make_trainer(network(), recipe(), sharding.make_mesh())
    data = train.Trainings(keys, images, labels, np.ones(4, np.float32), np.ones(4, np.float32))
    short = recipe(num_steps=10, warmup_steps=2)
    for options in (recipe(), short):
        states = trainer.start(keys)
        found = trainer.advance(states, data, options, 0, options.num_steps)
        own = train.make_trainer(network(), options, sharding.make_mesh())
        same(found, own.advance(states, data, options, 0, options.num_steps), rtol=0, atol=0)


def test_a_seed_does_not_depend_on_the_others_or_the_devices():
    images, labels, keys = problem(n=9)
    net, options = network(arch.fc(1)), recipe(batch_size=4)
    found = []
    for devices, part in ((4, slice(None)), (2, slice(1, 3))):
        trainer = train.make_trainer(net, options, sharding.make_mesh(devices))
        start = trainer.start(keys[part])
        rates = np.asarray(trainer.largest_rate(start, images[0]))
        numbers = (0.1 * rates, np.full(len(rates), 1e-3, np.float32))
        data = train.Trainings(keys[part], images[part], labels[part], *numbers)
        found.append((trainer.advance(start, data, options, 0, 20)["params"], rates))
    first = jax.tree.map(np.asarray, found[0])
    expected = jax.tree.map(lambda leaf: leaf[1:3], first)
    same(expected, found[1], rtol=1e-5, atol=1e-6)
    kernels = np.asarray(found[0][0]["layers"][1]["kernel"][...])
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_one_augmentation_is_drawn_for_a_batch():
    images, labels, _ = problem(n=6, shape=(8, 8, 1))
    one = recipe(augments=("cutout", "flip"), augment_draw="one")
    kinds = []
    for number in range(12):
        x = np.asarray(train.batch(one, images[0], labels[0], jax.random.key(number))[0])
        cut = (x == 0).any(axis=(1, 2, 3))
        assert cut.all() or not cut.any()
        kinds.append(bool(cut.all()))
    assert set(kinds) == {True, False}


def test_batches_and_augmentations_are_drawn_anew_for_every_step():
    images, labels, keys = problem(n=50, seeds=4)
    one = recipe(batch_size=7, augments=("flip",))
    drawn = [train.batch(one, images[0], labels[0], key)[0] for key in keys]
    flat = [np.abs(np.asarray(x)).sum((2, 3)).round(4).tolist() for x in drawn]
    assert len({str(rows) for rows in flat}) == 4
    for rows in flat:
        assert len({str(row) for row in rows}) == 7  # Without replacement.


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_running_averages_are_carried_along_and_used(average, monkeypatch):
    """And normalisation is over the whole batch, even where a pass would hold one image."""
    monkeypatch.setattr(batching, "PIXELS", 4)

    def make(rngs):
        readout = build.make_network(LINEAR, (2, 2, 1), CLASSES, rngs)
        return nnx.Sequential(zoo.batch_norm(1, rngs), readout)

    images, labels, keys = problem(n=4, seeds=1)
    images = images + 3
    options = recipe(num_steps=200, average=average)
    trainer = train.make_trainer(build.functions(make), options, sharding.make_mesh(1))
    numbers = (np.array([0.1], np.float32), np.zeros(1, np.float32))
    data = train.Trainings(keys, images, labels, *numbers)
    after = trainer.advance(trainer.start(keys), data, options, 0, 200)
    for kept in [after["other"]] + ([after["average"][1]] if average else []):
        mean, var = (kept["layers"][0][name][...][0, 0] for name in ("mean", "var"))
        assert float(mean) == pytest.approx(images.mean(), rel=1e-4)
        assert float(var) == pytest.approx(images.var(), rel=1e-3)
    batches = train.batches(images[0], labels[0].argmax(1), 100)
    assert float(trainer.count_right(after, *batches, 0, len(batches[1]))[0]) == 4
    lost = jax.tree.map(lambda leaf: leaf * np.nan, after["other"])
    after = after | ({"average": (after["average"][0], lost)} if average else {"other": lost})
    assert np.isnan(trainer.count_right(after, *batches, 0, len(batches[1]))[0])


@pytest.mark.parametrize("size", [4, 10, 100])
@pytest.mark.parametrize("centred", [False, True])
def test_accuracy_counts_all_test_images_once(size, centred):
    net = network()
    options = recipe(centred=centred, average=0.5)
    start, states, _ = trained(net, options)
    rng = np.random.default_rng(1)
    test = rng.standard_normal((10, 2, 2, 1)).astype(np.float32)
    truth = rng.integers(0, CLASSES, 10)
    images, labels = train.batches(test, truth, size)
    trainer = train.make_trainer(net, options, sharding.make_mesh())
    found = trainer.count_right(states, images, labels, 0, len(images))
    parts = [trainer.count_right(states, images, labels, i, i + 1) for i in range(len(images))]
    np.testing.assert_array_equal(found, sum(parts))
    for seed in range(4):
        params, first = (
            jax.tree.map(lambda leaf, seed=seed: leaf[seed], tree)
            for tree in (states["average"][0], start["params"])
        )
        outputs = np.asarray(net.apply(params, {}, test))
        if centred:
            outputs = outputs - np.asarray(net.apply(first, {}, test))
        assert float(found[seed]) == np.sum(outputs.argmax(1) == truth)


def test_a_training_that_diverges_has_no_accuracy():
    options = recipe(num_steps=300)
    _, states, data = trained(network(), options, rates=(0.1, 1e4, 0.1, 1e4))
    trainer = train.make_trainer(network(), options, sharding.make_mesh())
    batches = train.batches(data.images[0], data.labels[0].argmax(1), 100)
    found = np.asarray(trainer.count_right(states, *batches, 0, len(batches[0])))
    assert np.isfinite(found).tolist() == [True, False, True, False]


@pytest.mark.parametrize("decay", [0.9, 0.999999, 1 - 1e-8])
def test_the_mean_of_the_first_step_is_that_step(decay):
    """In float32 the last decay is 1."""
    mean = train._averaged(decay, {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.int32(0))
    assert float(mean["w"][0]) == pytest.approx(1, rel=1e-6)


def test_labels_for_every_loss():
    learned = np.array([[0.9, -0.5, -0.2], [-0.4, 0.3, 0.2], [-2, -2, -2.0]], np.float32)
    soft = train.training_labels(learned, recipe(loss="cross_entropy", labels="soft"))
    third = 1 / 3
    expected = [[1, 0, 0], [0, 0.3 + third, 0.2 + third], [third] * 3]
    expected[0] = [(0.9 + third), 0, (-0.2 + third)]
    expected = np.array(expected)
    expected[:2] /= expected[:2].sum(1, keepdims=True)
    np.testing.assert_allclose(soft, expected, rtol=1e-6)
    np.testing.assert_array_equal(
        train.training_labels(learned, recipe(loss="mse", labels="soft")), learned
    )
    hard = train.training_labels(learned[:2], recipe(loss="cross_entropy", labels="hard"))
    np.testing.assert_array_equal(hard, [[1, 0, 0], [0, 1, 0]])
    centred = train.training_labels(learned[:2], recipe(loss="mse", labels="hard"))
    np.testing.assert_allclose(centred, hard - third, rtol=1e-6)
    natural = np.eye(3, dtype=np.float32)[[0, 2]] - np.float32(third)
    one_hot = train.training_labels(natural, recipe(loss="cross_entropy", labels="soft"))
    np.testing.assert_allclose(one_hot, np.eye(3)[[0, 2]], atol=1e-6)
    for kind in ("soft", "hard"):
        scaled = train.training_labels(learned, recipe(labels=kind, label_scale=16))
        plain = train.training_labels(learned, recipe(labels=kind))
        np.testing.assert_array_equal(scaled, 16 * plain)
        assert scaled.dtype == np.float32
