"""Whole runs by Gauss-Newton steps."""

import jax
import numpy as np
import pytest
import quick
from whole_runs import artefacts, assert_same, exact_kernels, result, small, stop_at

from kip_flax import algorithms, data, export, kernels, krr, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms import base, kip_newton
from kip_flax.algorithms.interface import Problem
from kip_flax.data import Targets
from kip_flax.modes.train import mode as train
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError


def newton(**changes):
    return small(**({"algorithm": "kip_newton", "num_steps": 6, "eval__steps": (3,)} | changes))


@pytest.mark.slow
@pytest.mark.parametrize(("learned", "descent"), [(True, "kip_solve"), (False, "kip")])
def test_six_steps_are_worth_more_than_those_of_descent(tmp_path, learned, descent):
    config = newton(eval__num_test=0, batch_size=300, support__learn_labels=learned)
    train.train_and_evaluate(config, str(tmp_path / "newton"))
    config.algorithm = descent
    train.train_and_evaluate(config, str(tmp_path / "descent"))
    ends = [result(tmp_path / name)["evaluations"][-1] for name in ("newton", "descent")]
    assert ends[0]["accuracy"] > ends[1]["accuracy"] + 0.02
    assert ends[0]["mse"] < 0.9 * ends[1]["mse"]


@pytest.mark.parametrize(
    ("learned", "mirrored"),
    [
        (True, False),
        pytest.param(False, False, marks=pytest.mark.slow),
        (True, True),
        pytest.param(False, True, marks=pytest.mark.slow),
    ],
)
def test_a_step_has_the_loss_of_its_batch_and_lowers_that_of_others(learned, mirrored, digits):
    """Losses by neural_tangents in float64."""
    pixels = preprocess.apply(
        preprocess.fit("standard", digits.train_images), digits.train_images[:900]
    )
    targets = Targets(pixels[:400], digits.train_labels[:400], 10)
    config = newton(batch_size=400, support__learn_labels=learned, mesh__data=1)
    config.kernel.mirrored = mirrored
    kernel, mesh = kernels.make_kernel(base.kernel_options(config)), sharding.make_mesh(1)
    problem = Problem(config, targets, kernel, mesh, jax.random.key(2))
    support = base.draw_support(targets, 10, "real", jax.random.key(1))
    state = jax.tree.map(np.array, kip_newton.init(config, *support))
    before, labels = (np.array(part) for part in state.support)

    def loss(images, rows):
        y = np.eye(10)[digits.train_labels[rows]] - 0.1
        k_ts, k_ss = exact_kernels(images, pixels[rows])
        if mirrored:
            both = np.concatenate([images, images[:, :, ::-1]])
            k_ts, k_ss = ((k[:, :10] + k[:, 10:]) / 2 for k in exact_kernels(both, pixels[rows]))
            k_ss = k_ss[:10]
        alpha = np.linalg.lstsq(k_ts, y, rcond=None)[0]
        if not learned:
            k_reg = k_ss + config.reg * np.trace(k_ss) / 10 * np.eye(10)
            alpha = np.linalg.solve(k_reg, labels)
        return 0.5 * np.mean((k_ts @ alpha - y) ** 2)

    after, metrics = kip_newton.make_step(problem)(state, 1)
    batch, others = slice(0, 400), slice(400, 900)
    assert float(metrics["loss"]) == pytest.approx(loss(before, batch), rel=1e-3)
    moved = np.asarray(after.support[0])
    assert loss(moved, batch) < 0.8 * loss(before, batch)
    assert loss(moved, others) < 0.9 * loss(before, others)


def check_images(workdir, state):
    """The set holds the mean of the images of the steps."""
    found = export.load_distilled(next((workdir / "distilled").glob("*_ckpt6.npz"))).images
    np.testing.assert_array_equal(found, kip_newton.averaged(state).support[0])
    assert np.abs(found - state.support[0]).max() > 1e-3


@pytest.mark.parametrize(
    "fields",
    [pytest.param({}, marks=pytest.mark.slow), {"newton__block": 2, "newton__growth": 2}],
)
def test_a_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, fields):
    quick.install(monkeypatch)
    config = newton(newton__iterations=20, **fields)
    whole = train.train_and_evaluate(config, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(config, str(tmp_path / "parts"))
    parts = train.train_and_evaluate(config, str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")
    check_images(tmp_path / "whole", whole)


def test_a_run_of_no_steps_has_batches_of_the_first_level():
    """`--mode=plan` times one step all the same."""
    config = newton(newton__growth=4, batch_size=100, num_steps=0)
    assert kip_newton.batch_size(config, 1) == 100
    config.num_steps = 7
    assert [kip_newton.batch_size(config, number) for number in (1, 5, 7)] == [100, 200, 400]


def test_fixed_labels_stay_and_the_set_says_so(tmp_path, monkeypatch):
    quick.install(monkeypatch)
    config = newton(support__learn_labels=False, newton__iterations=20)
    state = train.train_and_evaluate(config, str(tmp_path))
    check_images(tmp_path, state)
    rows = np.asarray(state.support[1])
    np.testing.assert_allclose(rows, krr.centered_one_hot(np.argmax(rows, axis=1), 10), atol=1e-6)
    assert not list((tmp_path / "distilled").glob("*_l_*"))
    assert [algorithms.known("kip_newton").labels(learned) for learned in (False, True)] == [
        "fixed",
        "solved",
    ]


def test_batches_double_and_each_size_sees_about_as_many_targets():
    assert kip_newton.levels(30, 8) == ((1, 0, 16), (2, 16, 24), (4, 24, 28), (8, 28, 30))
    assert kip_newton.levels(6, 2) == ((1, 0, 4), (2, 4, 6))
    assert kip_newton.levels(7, 1) == ((1, 0, 7),)
    config = newton(newton__growth=4, num_steps=7)
    sizes = [kip_newton.batch_size(config, number) for number in range(1, 8)]
    assert sizes == [30] * 4 + [60] * 2 + [120]
    of_kip = algorithms.find("kip").batch_size(small(), 5)
    assert kip_newton.batch_size(newton(), 5) == of_kip == 30
    assert kip_newton.pairs(config, 1000) == round(10 * sum(sizes) / 7)


def test_the_targets_of_a_growing_run_are_drawn_in_passes_of_their_size(monkeypatch):
    """No target comes twice within a size's pass, and the batches are balanced."""
    drawn = []

    def on_batches(problem, update, draw):
        labels = np.repeat(np.arange(10), 40)
        for number in range(1, 8):
            drawn.append(draw(labels, 30, 10, jax.random.key(0), number))
        return labels

    monkeypatch.setattr(kip_newton.kip, "on_batches", on_batches)
    config = newton(newton__growth=4, num_steps=7)
    kernel, mesh = quick.quick_kernel(None), sharding.make_mesh()
    kip_newton.make_step(Problem(config, None, kernel, mesh, jax.random.key(1)))
    assert [len(rows) for rows in drawn] == [30] * 4 + [60] * 2 + [120]
    assert len({*np.concatenate(drawn[:4])}) == 120
    assert len({*np.concatenate(drawn[4:6])}) == 120
    assert all(len(set(np.bincount(rows // 40))) == 1 for rows in drawn)


def test_growth_is_checked():
    with pytest.raises(UserError, match=r"batches double: take a power of 2, as 4\."):
        config_lib.validate(newton(newton__growth=6))
    config = newton(newton__growth=64, num_steps=200)
    with pytest.raises(UserError, match="makes 1920 targets, and digits has 1438 training"):
        config_lib.check_data(config, data.load_dataset("digits"))
    assert "num_steps" in config_lib.identity(newton(newton__growth=2))
    assert "newton.growth" not in config_lib.identity(newton())


def test_blocks_that_do_not_divide_the_images_are_refused():
    with pytest.raises(UserError, match="take 5, or 0 for all"):
        config_lib.validate(newton(newton__block=4))
    config_lib.validate(newton(newton__block=5))


def test_its_fields_decide_nothing_elsewhere_and_the_optimiser_nothing_here():
    assert not any(name.startswith("newton.") for name in config_lib.identity(small()))
    names = config_lib.identity(newton())
    assert "newton.damping" in names
    assert not any(name.startswith("optimizer.") for name in names)
    assert "num_steps" not in config_lib.identity(newton(optimizer__schedule="cosine"))
