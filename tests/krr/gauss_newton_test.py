"""Gauss-Newton steps against NumPy's dense algebra and losses in float64, and whole runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import JACOBIAN, KERNEL, KINDS, losses, problem, residuals_of
from whole_runs import artefacts, assert_same, result, small, stop_at

from kip_flax import config as config_lib
from kip_flax import export, krr
from kip_flax.kernels.sharded import shard_jacobian, shard_kernel
from kip_flax.krr import damping as ridge_path
from kip_flax.krr import gauss_newton
from kip_flax.modes.train import mode as train
from kip_flax.runtime import sharding


def stepper(kind, kernel=KERNEL, jacobian=JACOBIAN):
    residuals = residuals_of(kind, kernel, jacobian)
    return gauss_newton.make_step(residuals, iterations=50, key=jax.random.key(0))


def first(images, labels):
    return gauss_newton.init(images, labels, damping=0.1)


def learnable():
    """Eight batches of 150 targets whose class their pixels tell, and 1,000 other targets."""
    _, _, batch = problem(targets=2200)
    weights = np.random.default_rng(9).normal(size=(9, 3))
    numbers = np.argmax(batch.x.reshape(-1, 9) @ weights, axis=1)
    whole = batch._replace(y=np.asarray(krr.centered_one_hot(numbers, 3)))
    part = [type(batch)(*(a[i : i + 150] for a in whole)) for i in range(0, 1200, 150)]
    return part, type(batch)(*(a[1200:] for a in whole))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_lower_the_loss_elsewhere_and_tell_of_it(kind):
    batches, others = learnable()
    images, labels = batches[0].x[:4], batches[0].y[:4]
    state, step, ratios = first(images, labels), stepper(kind), []
    begin = losses[kind](images, labels, others)
    for batch in batches:
        before = np.array(state.params["images"])
        state, metrics = step(state, *batch)
        assert float(metrics["loss"]) == pytest.approx(
            losses[kind](before, labels, batch), rel=1e-4
        )
        assert metrics["grad_norm"] > 0
        ratios.append(float(metrics["gain_ratio"]))
    assert losses[kind](np.array(state.params["images"]), labels, others) < 0.8 * begin
    assert max(ratios) > 0.75
    assert int(state.step) == 8
    np.testing.assert_array_equal(state.support[1], labels)


def test_the_images_to_use_are_a_mean_of_those_of_the_steps():
    """Of the n-th step's with weight n (n + 1) (n + 2); the first images are in it no more."""
    batches, _ = learnable()
    state, step, seen = first(batches[0].x[:4], batches[0].y[:4]), stepper("solved"), []
    for batch in batches[:5]:
        state, _ = step(state, *batch)
        seen.append(np.array(state.params["images"]))
    assert np.abs(np.diff(seen, axis=0)).max() > 0.01
    mean = np.average(seen, axis=0, weights=[n * (n + 1) * (n + 2) for n in range(1, 6)])
    images, labels = gauss_newton.averaged(state).support
    np.testing.assert_allclose(images, mean, atol=1e-5)
    np.testing.assert_array_equal(labels, state.support[1])


def test_a_batch_of_noise_is_left_out_and_changes_nothing():
    images, labels, batch = problem(targets=300)
    step, state = stepper("solved"), first(images, labels)
    for _ in range(6):  # The same batch again: soon it has nothing more to tell.
        state, metrics = step(state, *batch)
    assert float(metrics["gain_ratio"]) == 0
    assert float(state.opt_state["damping"]) <= ridge_path.DAMPINGS[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    images, labels, batch = problem()
    expected, metrics = stepper(kind)(first(images, labels), *batch)
    padded = (np.pad(array, [(0, 2)] + [(0, 0)] * (array.ndim - 1)) for array in batch)
    found, same = stepper(kind)(first(images, labels), *padded)
    np.testing.assert_allclose(found.params["images"], expected.params["images"], atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow), 0.0])
def test_a_step_that_does_not_help_is_refused(wrong):
    """The trial's kernel says so; the damping has grown with every trial."""
    images, labels, batch = problem()
    step = stepper("solved", kernel=lambda a, b: KERNEL(a, b) * 0 + wrong)
    state, metrics = step(first(images, labels), *batch)
    np.testing.assert_array_equal(state.params["images"], images)
    assert float(state.opt_state["damping"]) == pytest.approx(10)
    assert float(metrics["gain_ratio"]) == 0
    assert int(state.step) == 1


def test_a_batch_that_promises_little_leaves_no_damping_behind(monkeypatch):
    """The next batch is free to dare what this one's model would have allowed."""
    choose = ridge_path.choose

    def damped(path, noise, mean, least):
        return choose(path, noise, mean, jnp.float32(8))

    monkeypatch.setattr(ridge_path, "choose", damped)
    images, labels, batch = problem()
    state, metrics = stepper("solved")(first(images, labels), *batch)
    assert float(metrics["damping"]) >= 8
    assert float(metrics["gain_ratio"]) > 0.75
    assert float(state.opt_state["damping"]) == pytest.approx(0.1 / 3)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("solved", (2, 2)), pytest.param("fixed", (2, 2), marks=pytest.mark.slow), ("fixed", (3, 1))],
)
def test_a_mesh_takes_the_same_step(kind, shape):
    images, labels, batch = problem(targets=30)
    expected, metrics = stepper(kind)(first(images, labels), *batch)
    mesh = sharding.make_mesh(*shape)
    step = stepper(kind, shard_kernel(KERNEL, mesh), shard_jacobian(JACOBIAN, mesh))
    targets = sharding.put_targets(mesh, batch.x, batch.y)
    found, same = step(sharding.replicate(mesh, first(images, labels)), *targets)
    np.testing.assert_allclose(found.params["images"], expected.params["images"], atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


def newton(**changes):
    return small(algorithm="kip_newton", num_steps=6, eval__steps=(3,), **changes)


@pytest.mark.slow
@pytest.mark.parametrize(("learned", "descent"), [(True, "kip_solve"), (False, "kip")])
def test_six_steps_are_worth_more_than_those_of_descent(quick_kernels, tmp_path, learned, descent):
    config = newton(eval__num_test=0, batch_size=300, support__learn_labels=learned)
    train.train_and_evaluate(config, str(tmp_path / "newton"))
    config.algorithm = descent
    train.train_and_evaluate(config, str(tmp_path / "descent"))
    ends = [result(tmp_path / name)["evaluations"][-1] for name in ("newton", "descent")]
    assert ends[0]["accuracy"] > ends[1]["accuracy"] + 0.02
    assert ends[0]["mse"] < 0.9 * ends[1]["mse"]


def check_images(workdir, state):
    """The set holds the mean of the images of the steps."""
    found = export.load_distilled(next((workdir / "distilled").glob("*_ckpt6.npz"))).images
    np.testing.assert_array_equal(found, gauss_newton.averaged(state).support[0])
    assert np.abs(found - state.support[0]).max() > 1e-3


def test_a_run_goes_on_to_the_same_bits(quick_kernels, tmp_path, monkeypatch):
    whole = train.train_and_evaluate(newton(), str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(newton(), str(tmp_path / "parts"))
    parts = train.train_and_evaluate(newton(), str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")
    check_images(tmp_path / "whole", whole)


def test_fixed_labels_stay_and_the_set_says_so(quick_kernels, tmp_path):
    config = newton(support__learn_labels=False)
    state = train.train_and_evaluate(config, str(tmp_path))
    check_images(tmp_path, state)
    rows = np.asarray(state.support[1])
    np.testing.assert_allclose(rows, krr.centered_one_hot(np.argmax(rows, axis=1), 10), atol=1e-6)
    assert not list((tmp_path / "distilled").glob("*_l_*"))
    assert config_lib.labels_are(config_lib.flatten(config)) == "fixed"
    assert config_lib.labels_are(config_lib.flatten(newton())) == "solved"


def test_its_fields_decide_nothing_elsewhere_and_the_optimiser_nothing_here():
    assert not any(name.startswith("newton.") for name in config_lib.identity(small()))
    names = config_lib.identity(newton())
    assert "newton.damping" in names
    assert not any(name.startswith("optimizer.") for name in names)
    assert "num_steps" not in config_lib.identity(newton(optimizer__schedule="cosine"))
