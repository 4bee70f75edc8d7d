"""A step of RFAD against NumPy in float64 and finite differences; whole runs, resume, devices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from whole_runs import artefacts, assert_same, result, small, stop_at

from configs import rfad_digits
from kip_flax import architectures as arch
from kip_flax import config as config_lib
from kip_flax import export, kernels, krr
from kip_flax.algorithms import base, rfad
from kip_flax.modes.train import mode as train
from kip_flax.networks import build
from kip_flax.runtime import batching, sharding
from kip_flax.runtime.errors import UserError

W_STD, B_STD, REG, NETWORKS = 2**0.5, 0.1, 5e-3, 3
SHAPE, S, T, CLASSES = (4, 4, 1), 3, 8, 3
SPEC = (arch.Conv(), arch.Relu(), arch.AvgPool(), arch.Conv(), arch.Relu(), arch.Flatten())
KEY = jax.random.key(11)


def network(spec=SPEC, width=6):
    make = functools.partial(build.make_network, (*spec, arch.Dense()), SHAPE, 1, width=width)
    return build.functions(functools.partial(make, weights=build.Weights(W_STD, B_STD)))


def numpy_features(params, x):
    """SPEC in NumPy."""

    def conv(layer, x):
        kernel, bias = (np.asarray(layer[part][...], np.float64) for part in ("kernel", "bias"))
        n, h, w, _ = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        places = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        columns = np.concatenate(places, axis=-1).reshape(n * h * w, -1)
        return (columns @ kernel.reshape(-1, kernel.shape[-1])).reshape(n, h, w, -1) + bias

    x = np.maximum(conv(params["layers"][0], x), 0)
    x = x.reshape(len(x), 2, 2, 2, 2, -1).mean(axis=(2, 4))
    return np.maximum(conv(params["layers"][3], x), 0).reshape(len(x), -1)


def numpy_loss(networks, x_t, y_t, platt, params):
    """The paper's symbols: features of all networks side by side, K = 2 F F' + 0.01."""
    images = params["images"].reshape(S, -1) @ params["transform"]

    def features(x):
        rows = np.hstack([numpy_features(own, x) for own in networks])
        return rows / rows.shape[1] ** 0.5

    f_s, f_t = features(images.reshape(S, *SHAPE)), features(x_t)
    k_ss = W_STD**2 * f_s @ f_s.T + B_STD**2
    alpha = np.linalg.solve(k_ss + REG * np.trace(k_ss) / S * np.eye(S), params["labels"])
    predictions = (W_STD**2 * f_t @ f_s.T + B_STD**2) @ alpha
    if not platt:
        return 0.5 * np.mean((predictions - y_t) ** 2)
    logits = np.exp(params["log_scale"]) * predictions
    log_sums = np.log(np.exp(logits).sum(axis=1))
    return np.mean(log_sums - logits[np.arange(T), y_t.argmax(axis=1)])


def differences(loss, params, step=1e-5):
    """Central differences of a loss in every number of its parameters."""
    found = {name: np.zeros(np.shape(value)) for name, value in params.items()}
    for name, gradient in found.items():
        for place in np.ndindex(gradient.shape):
            ahead, behind = ({k: np.array(v) for k, v in params.items()} for _ in range(2))
            ahead[name][place] += step
            behind[name][place] -= step
            gradient[place] = (loss(ahead) - loss(behind)) / (2 * step)
    return found


def problem():
    rng = np.random.default_rng(0)
    x_s, x_t = (rng.normal(size=(n, *SHAPE)).astype(np.float32) for n in (S, T))
    y_t = np.eye(CLASSES)[np.arange(T) % CLASSES] - 1 / CLASSES
    params = {
        "images": x_s,
        "labels": rng.normal(size=(S, CLASSES)),
        "transform": np.eye(16) + 0.1 * rng.normal(size=(16, 16)),
        "log_scale": np.array(0.3),
    }
    return {k: np.asarray(v, np.float32) for k, v in params.items()}, x_t, y_t.astype(np.float32)


def first(params):
    state = rfad.RfadState(np.zeros((), np.int32), params, params["labels"], None, ())
    return state.replace(opt_state=rfad._optimizer().init(params))


def debiased(networks, *rest):
    """Twice the loss of all networks, less the mean of the losses of their halves."""
    half = len(networks) // 2
    first, second = (numpy_loss(part, *rest) for part in (networks[:half], networks[half:]))
    return 2 * numpy_loss(networks, *rest) - (first + second) / 2


ONE = optax.constant_schedule(1.0)


def descent():
    return optax.sgd(1.0)


@functools.cache
def compiled(platt, devices, rates, average, number, debias, *patched):
    """A mesh and an update; `patched`: what tests replace in the modules."""
    del patched
    estimate = rfad.Estimate(number, W_STD, B_STD, REG, platt, debias)
    mesh = sharding.make_mesh(devices)
    return mesh, jax.jit(rfad.make_update(network(), estimate, dict(rates), mesh, KEY, average))


def step(state, x_t, y_t, platt, devices=1, rates=None, average=0.0, number=NETWORKS, debias=False):
    rates = dict.fromkeys(state.params, ONE) | (rates or {})
    patched = rfad._optimizer, rfad._CHUNK, batching.PIXELS
    options = tuple(rates.items()), average, number, debias
    mesh, update = compiled(platt, devices, *options, *patched)
    return update(state, *sharding.put_targets(mesh, x_t, y_t))


@pytest.fixture
def plain_descent(monkeypatch):
    """What a step moves is the gradient."""
    monkeypatch.setattr(rfad, "_optimizer", descent)


def ways():
    """Loss, passes, number. Four cases have every pair of them; the other four are slow."""
    for platt, passes, number in itertools.product((False, True), (False, True), (3, 4)):
        ids = ("platt" if platt else "mse", "in passes" if passes else "at once")
        ids += ("plain" if number == 3 else "debiased",)
        marks = [pytest.mark.slow] if platt ^ passes ^ (number == 4) else []
        yield pytest.param(platt, passes, number, marks=marks, id="-".join(ids))


@pytest.mark.parametrize(("platt", "passes", "number"), list(ways()))
def test_a_step_is_the_papers_written_out_in_numpy(
    platt, passes, number, plain_descent, monkeypatch
):
    if passes:
        monkeypatch.setattr(rfad, "_CHUNK", 3)
        monkeypatch.setattr(batching, "PIXELS", 32)
    params, x_t, y_t = problem()
    if not platt:
        del params["log_scale"]
    debias = number == 4
    after, metrics = step(first(params), x_t, y_t, platt, number=number, debias=debias)
    keys = jax.random.split(jax.random.fold_in(KEY, 0), number)
    networks = [network().init(key)[0] for key in keys]
    exact = {name: value.astype(np.float64) for name, value in params.items()}
    of_networks = debiased if debias else numpy_loss
    loss = functools.partial(of_networks, networks, x_t.astype(np.float64), y_t, platt)
    assert float(metrics["loss"]) == pytest.approx(loss(exact), rel=1e-5)
    gradients = differences(loss, exact)
    for name, gradient in gradients.items():
        moved = params[name] - after.params[name]
        atol = 1e-3 * np.abs(gradient).max()
        np.testing.assert_allclose(moved, gradient, rtol=2e-3, atol=atol, err_msg=name)
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-3)
    assert int(after.step) == 1


@pytest.mark.slow
def test_the_debiased_loss_is_near_that_of_the_exact_kernel():
    """The mean over draws of 8 networks, within its error: a fifth of the plain bias is left.

    With one hidden layer the estimated kernel itself has no bias.
    """
    params, x_t, y_t = problem()
    x_s, y_s, draws, number = params["images"], params["labels"], 2000, 8
    spec = (arch.Conv(), arch.Relu(), arch.AvgPool(), arch.Flatten())
    net = network(spec, width=16)
    keys = jax.random.split(KEY, (draws, number))
    networks = jax.vmap(jax.vmap(net.init))(keys)

    def mean_and_error(debias):
        estimate = rfad.Estimate(number, W_STD, B_STD, REG, platt=False, debias=debias)

        def loss(own):
            f_s, f_t = (jax.vmap(net.features, (0, 0, None))(*own, x) for x in (x_s, x_t))
            predictions = estimate.predict(f_t, f_s, estimate.solve(f_s, y_s))
            return jnp.mean(estimate.losses(predictions, y_t, 0.0))

        found = np.asarray(jax.lax.map(loss, networks))
        return found.mean(), found.std() / draws**0.5

    kernel = kernels.make_kernel((*spec, arch.Dense()), get="nngp", w_std=W_STD, b_std=B_STD)
    alpha = krr.solve(kernel(x_s, x_s), y_s, REG)
    exact = float(krr.loss(krr.predict(kernel(x_t, x_s), alpha), y_t))
    plain, _ = mean_and_error(debias=False)
    extrapolated, error = mean_and_error(debias=True)
    assert plain - exact > 5 * error
    assert abs(extrapolated - exact) < 2 * error + (plain - exact) / 5


def test_halves_need_an_even_number_of_networks():
    config = rfad_digits.get_config()
    config.rfad.networks, config.rfad.debias = 3, True
    with pytest.raises(UserError, match=r"rfad.networks is 3 and rfad.debias halves them: take 4"):
        config_lib.validate(config)


def test_halves_need_features_for_their_images(tmp_path):
    """2 networks of width 8, fully connected: a half has 8 features, for 10 images."""
    with pytest.raises(
        UserError, match=r"have 8 features, too few .* 10 images: take at least 100"
    ):
        train.train_and_evaluate(quick(rfad__debias=True), str(tmp_path))


def test_every_step_draws_networks_of_its_own(plain_descent):
    params, x_t, y_t = problem()
    losses = [
        float(step(first(params).replace(step=jnp.int32(n)), x_t, y_t, False)[1]["loss"])
        for n in (0, 1, 0)
    ]
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("devices", "debias"),
    [
        pytest.param(2, False, marks=pytest.mark.slow),
        (4, False),
        pytest.param(2, True, marks=pytest.mark.slow),
    ],
)
def test_more_devices_take_the_same_step(devices, debias, plain_descent):
    """Of four devices one has none of the three images, and of two one has one."""
    params, x_t, y_t = problem()
    options = {"number": 4, "debias": debias}
    found = [step(first(params), x_t[:7], y_t[:7], True, n, **options) for n in (1, devices)]
    (one, one_metrics), (more, more_metrics) = found
    for name, value in one.params.items():
        np.testing.assert_allclose(more.params[name], value, rtol=1e-4, atol=1e-5)
    for name, value in one_metrics.items():
        assert float(more_metrics[name]) == pytest.approx(float(value), rel=1e-4)


def test_adabelief_by_hand():
    """Two steps of Algorithm 2 of Zhuang et al. (NeurIPS 2020), rates falling as a cosine."""
    params, x_t, y_t = problem()
    heights = {"images": 1e-3, "labels": 2e-3, "transform": 5e-5, "log_scale": 1e-2}
    rates = {name: base.rate_schedule(height, "cosine", 4) for name, height in heights.items()}
    state = first(params)
    values = {name: value.astype(np.float64) for name, value in params.items()}
    mean = {name: np.zeros(value.shape) for name, value in params.items()}
    belief = {name: np.zeros(value.shape) for name, value in params.items()}
    for count in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rfad, "_optimizer", descent)
            plain = first({k: np.asarray(v, np.float32) for k, v in values.items()})
            moved, _ = step(plain.replace(step=jnp.int32(count - 1)), x_t, y_t, True)
        state, _ = step(state, x_t, y_t, True, rates=rates)
        for name, height in heights.items():
            rate = height * (1 + np.cos(np.pi * (count - 1) / 4)) / 2
            gradient = np.asarray(plain.params[name] - moved.params[name], np.float64)
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            away = (gradient - mean[name]) ** 2
            belief[name] = 0.999 * belief[name] + 0.001 * away + 1e-16
            upper, lower = mean[name] / (1 - 0.9**count), belief[name] / (1 - 0.999**count)
            values[name] = values[name] - rate * upper / (np.sqrt(lower) + 1e-16)
            apart = np.abs(state.params[name] - values[name])
            assert np.quantile(apart, 0.9) < 1e-3 * rate  # Gradients near 0 are rounding.


def quick(**fields):
    """RFAD on the digits: two narrow networks."""
    fields = {
        "algorithm": "rfad",
        "rfad__networks": 2,
        "rfad__width": 8,
        "num_steps": 6,
        "eval__steps": (3,),
        "checkpoint__every_steps": 2,
    } | fields
    config = small(**fields)
    config_lib.validate(config)
    return config


def test_a_run_goes_on_to_the_same_bits_and_exports_what_it_transformed(quick_kernels, tmp_path):
    config = quick(
        rfad__loss="platt",
        rfad__transform_rate=1e-2,
        rfad__schedule="cosine",
        rfad__average=0.5,
        augment="shift",
    )
    expected = train.train_and_evaluate(config, str(tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        state = train.train_and_evaluate(config, str(tmp_path / "cut"))
    assert int(state.step) == 3
    assert_same(train.train_and_evaluate(config, str(tmp_path / "cut")), expected)
    assert artefacts(tmp_path / "cut") == artefacts(tmp_path / "whole")
    (last,) = (tmp_path / "whole" / "distilled").glob("*_ckpt6.npz")
    saved, params = export.load_distilled(last), expected.average
    rows = np.asarray(params["images"]).reshape(10, -1) @ np.asarray(params["transform"])
    np.testing.assert_allclose(saved.images.reshape(10, -1), rows, rtol=1e-5, atol=1e-5)
    assert np.abs(saved.images - params["images"]).max() > 1e-3
    np.testing.assert_array_equal(saved.labels, params["labels"])
    assert float(params["log_scale"]) != 0
    assert np.abs(saved.labels - expected.params["labels"]).max() > 1e-5


def test_fixed_labels_stay_and_no_transform_is_none(quick_kernels, tmp_path):
    config = quick(support__learn_labels=False, rfad__transform_rate=0.0, num_steps=2)
    state = train.train_and_evaluate(config, str(tmp_path))
    assert set(state.params) == {"images"}
    images, labels = state.support
    np.testing.assert_array_equal(labels, state.labels)
    assert images is state.params["images"]


def test_the_mean_of_the_last_sets_is_exported():
    params, x_t, y_t = problem()
    alone, state = first(params), first(params).replace(average=params)
    mean = {name: np.asarray(value, np.float64) for name, value in params.items()}
    for number in range(3):
        alone, _ = step(alone, x_t, y_t, True)
        state, _ = step(state, x_t, y_t, True, average=0.15)
        decay = min(0.15, (1 + number) / (10 + number))
        mean = {name: decay * mean[name] + (1 - decay) * alone.params[name] for name in mean}
    for name, value in mean.items():  # And the mean moves no step.
        np.testing.assert_allclose(state.params[name], alone.params[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.average[name], value, rtol=1e-4, atol=1e-4)
    images, labels = state.support
    rows = images.reshape(S, -1)
    np.testing.assert_allclose(rows, mean["images"].reshape(S, -1) @ mean["transform"], rtol=1e-3)
    np.testing.assert_allclose(labels, mean["labels"], rtol=1e-3)
    assert np.abs(labels - alone.support[1]).max() > 0.01


@pytest.mark.slow
def test_the_exact_loss_falls_though_it_is_estimated(quick_kernels, tmp_path):
    """On the features of an infinitely wide network, which no step sees."""
    config = quick(num_steps=40, rfad__width=64, rfad__learning_rate=0.02, batch_size=200)
    config.mesh.data, config.eval.num_test = 1, 0
    train.train_and_evaluate(config, str(tmp_path))
    first, *_, last = result(tmp_path)["evaluations"]
    assert last["mse"] < 0.8 * first["mse"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rfad__loss": "hinge"}, "rfad.loss is 'hinge': take one of mse, platt"),
        ({"rfad__schedule": "linear"}, "rfad.schedule is 'linear': take one of constant, cosine"),
        ({"rfad__networks": 0}, "rfad.networks is 0: it must be at least 1"),
        ({"rfad__width": 0}, "rfad.width is 0: it must be at least 1"),
        ({"rfad__transform_rate": -1.0}, "rfad.transform_rate is -1.0: it must be at least 0"),
        ({"rfad__learning_rate": 0.0}, "rfad.learning_rate is 0.0: it must be above 0"),
        ({"rfad__platt_rate": 0.0}, "rfad.platt_rate is 0.0: it must be above 0"),
        ({"rfad__average": 1.0}, "rfad.average is 1.0: it must be at least 0 and below 1"),
    ],
)
def test_mistakes_are_reported_in_one_line(fields, message):
    with pytest.raises(UserError, match=message) as caught:
        quick(**fields)
    assert "\n" not in str(caught.value)


def test_its_fields_decide_nothing_elsewhere():
    assert not any(name.startswith("rfad.") for name in config_lib.identity(small()))
    assert "rfad.width" in config_lib.identity(quick())
    assert "optimizer.learning_rate" not in config_lib.identity(quick())


def test_a_run_whose_rate_falls_cannot_be_made_longer():
    assert "num_steps" not in config_lib.identity(quick())
    assert "num_steps" in config_lib.identity(quick(rfad__schedule="cosine"))
