"""Private steps: what they add up, draw, and tell; and whole runs."""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import pld
from scipy.optimize import brentq
from scipy.stats import norm
from whole_runs import artefacts, assert_same, result, small, stop_at

from configs import default
from kip_flax import config as config_lib
from kip_flax import export, kernels, krr
from kip_flax.algorithms import _privacy, base, dp_kip
from kip_flax.data import Targets
from kip_flax.modes.train import mode as train
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

SIZE, CLASSES, SHAPE, COUNT = 4, 2, (5, 5, 1), 12


@pytest.fixture(autouse=True)
def coarse_accounting(monkeypatch):
    """A grid of losses that is 100 times coarser, and as much faster; privacy_test has the fine."""
    coarse = functools.partial(pld.PLDAccountant, value_discretization_interval=1e-2)
    monkeypatch.setattr(_privacy, "_accountant", coarse)
    for figure in (_privacy.epsilon, _privacy.noise_multiplier):
        monkeypatch.setattr(_privacy, figure.__name__, functools.cache(figure.__wrapped__))


def private(**changes):
    """Four steps on the digits whose noise can be repeated."""
    fields = {
        "algorithm": "dp_kip",
        "preprocess": "none",
        "support__init": "noise",
        "num_steps": 4,
        "eval__steps": (2,),
        "checkpoint__every_steps": 1,
        "privacy__noise_seed": 3,
        "privacy__delta": 1e-4,
        "privacy__start": "noise",
    }
    return small(**(fields | changes))


def tiny(**changes):
    config = default.get_config()
    config.algorithm, config.support.init = "dp_kip", "noise"
    config.kernel.architecture, config.kernel.depth, config.reg = "fc", 1, 1e-2
    config.kernel.implementation = "xla"
    config.support.size, config.batch_size, config.num_steps = SIZE, COUNT, 3
    config.optimizer.name, config.optimizer.momentum = "sgd", 0.0
    config.optimizer.learning_rate = 1.0
    config.privacy.start_std, config.privacy.average = 1.0, 0.0
    config.privacy.start = "noise"
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def make_problem(config, devices=1):
    rng = np.random.default_rng(0)
    targets = Targets(
        rng.standard_normal((COUNT, *SHAPE)).astype(np.float32), np.arange(COUNT) % CLASSES, CLASSES
    )
    mesh = sharding.make_mesh(devices)
    kernel = kernels.make_kernel(base.kernel_options(config))
    return base.Problem(config, targets, kernel, mesh, jax.random.key(0))


def start(config, problem):
    support = base.draw_support(problem.targets, SIZE, "noise", jax.random.key(1))
    state = jax.tree.map(np.array, dp_kip.init(config, *support))
    return sharding.replicate(problem.mesh, state)


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("learned", [pytest.param(True, marks=pytest.mark.slow), False])
def test_all_targets_without_noise_and_clipping_are_a_step_of_descent(devices, learned):
    """Against JAX's gradient of the KIP loss. All targets are drawn."""
    clip = 0.3  # No gradient of a target is as large.
    config = tiny(
        privacy__noise_multiplier=1e-12, privacy__clip=clip, support__learn_labels=learned
    )
    problem = make_problem(config, devices)
    state = start(config, problem)
    images, labels = (jnp.asarray(np.asarray(part)) for part in state.current)
    x, y = problem.targets.take(np.arange(COUNT))

    def loss(images, labels):
        alpha = krr.solve(problem.kernel(images, images), labels, config.reg)
        return krr.loss(krr.predict(problem.kernel(x, images), alpha), y)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(images, labels)
    after, _ = dp_kip.make_step(problem)(state, 1)
    moved = after.current
    for new, old, gradient in zip(moved, (images, labels), gradients, strict=True):
        expected = -gradient if learned or new is moved[0] else 0 * gradient
        largest = np.abs(gradient).max()
        steps = clip * (np.asarray(new, np.float64) - np.asarray(old, np.float64))
        # A step is a difference of images, in units of the clip: it has their rounding.
        tolerance = 2e-3 * largest + clip * 3e-7
        assert largest > 100 * tolerance
        np.testing.assert_allclose(steps, expected, atol=tolerance)


def test_a_batch_of_several_calls_is_that_of_one(monkeypatch):
    config = tiny(privacy__noise_multiplier=1e-12, privacy__clip=0.3)
    problem = make_problem(config)
    whole, _ = dp_kip.make_step(problem)(start(config, problem), 1)
    monkeypatch.setattr(dp_kip, "_MOST", 5 * 4 * SIZE * 25)
    assert dp_kip._piece(COUNT, 4 * SIZE * 25) == 5
    before = start(config, problem)
    unmoved = np.array(before.current[0])
    pieces, _ = dp_kip.make_step(problem)(before, 1)
    moved = np.asarray(whole.current[0]) - unmoved
    np.testing.assert_allclose(
        np.asarray(pieces.current[0]) - unmoved, moved, atol=1e-3 * np.abs(moved).max()
    )


def test_a_run_with_a_target_less_differs_by_the_clip_at_most():
    """The sensitivity of a whole step, by brute force over all neighbours."""
    config = tiny(privacy__noise_multiplier=1e-12, privacy__clip=0.01)
    problem = make_problem(config)
    state = start(config, problem)
    add = jax.jit(dp_kip.make_add(problem))
    images, labels = state.current
    x, y = problem.targets.take(np.arange(COUNT))

    def total(weights):
        sums = dp_kip.Sums(jnp.zeros((SIZE, 25)), jnp.zeros((SIZE, CLASSES)))
        found = add(sums, images, labels, x, y, jnp.asarray(weights, jnp.float32))
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in found])

    everyone = total(np.ones(COUNT))
    distances = [np.linalg.norm(everyone - total(1 - row)) for row in np.eye(COUNT)]
    assert max(distances) <= 0.01
    assert max(distances) > 0.009  # Here the gradients are larger than the clip.


def test_the_noise_is_normal_and_as_large_as_it_is_said_to_be():
    config = tiny(batch_size=6)
    state = dp_kip.init(config, jnp.zeros((40, 30, 30, 1)), jnp.zeros((40, 50)))
    sums = dp_kip.Sums(jnp.zeros((40, 900)), jnp.zeros((40, 50)))
    move = dp_kip.make_move(config, 3.0)
    found = []
    for number in range(2):
        after, metrics = move(state, sums, jax.random.key_data(jax.random.key(number)))
        noise = np.concatenate([np.asarray(part).ravel() for part in after.params.values()])
        assert metrics["grad_norm"] == pytest.approx(np.linalg.norm(noise), rel=1e-5)
        found.append(6 / 3 * noise)
    one, other = found
    count = one.size
    assert abs(one.mean()) < 4 / np.sqrt(count)
    assert one.std() == pytest.approx(1, abs=4 / np.sqrt(2 * count))
    assert np.mean(one**4) == pytest.approx(3, abs=4 * np.sqrt(96 / count))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(count)
    images, labels = after.params["images"].ravel(), after.params["labels"].ravel()
    assert abs(np.corrcoef(images[: labels.size], labels)[0, 1]) < 4 / np.sqrt(labels.size)


def test_low_frequencies_are_orthonormal_and_smooth():
    basis = dp_kip.low_frequencies((6, 8, 2), 3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(18), atol=1e-6)
    grey = np.ones((6, 8, 2))
    checkers = (-1.0) ** np.add.outer(np.arange(6), np.arange(8))[..., None] * [1, 1]
    lengths = [
        np.linalg.norm(basis @ image.ravel()) / np.linalg.norm(image) for image in (grey, checkers)
    ]
    assert lengths[0] == pytest.approx(1, abs=1e-6)
    assert lengths[1] < 0.1
    np.testing.assert_allclose(
        dp_kip.low_frequencies((6, 8, 2), 8) @ np.ravel(checkers),
        dp_kip.low_frequencies((6, 8, 2), 9) @ np.ravel(checkers),
        atol=1e-6,
    )


def test_images_stay_in_the_low_frequencies():
    """Start, gradients and noise: of 25 numbers an image has 4."""
    config = tiny(privacy__frequencies=2, privacy__noise_multiplier=1.0)
    problem = make_problem(config)
    state = start(config, problem)
    step = dp_kip.make_step(problem)
    basis = dp_kip.low_frequencies(SHAPE, 2)
    before = np.array(state.params["images"])
    state, _ = step(state, 1)
    moved = np.array(state.params["images"]) - before
    for images in (before, moved):
        rows = images.reshape(SIZE, -1)
        np.testing.assert_allclose(rows @ basis.T @ basis, rows, atol=1e-5)
        assert np.linalg.norm(rows) > 0.1


def test_every_target_is_drawn_with_the_same_chance_and_on_its_own():
    keys = [jax.random.fold_in(jax.random.key(5), number) for number in range(400)]
    drawn = np.zeros((400, 30))
    for row, key in zip(drawn, keys, strict=True):
        row[dp_kip.poisson_draw(30, 0.2, key)] = 1
    np.testing.assert_allclose(drawn.mean(0), 0.2, atol=4.5 * np.sqrt(0.16 / 400))
    assert drawn.sum(1).var() == pytest.approx(30 * 0.16, rel=0.35)  # 0 for a fixed size.
    np.testing.assert_array_equal(dp_kip.poisson_draw(30, 1.0, keys[0]), np.arange(30))


def test_a_step_that_draws_no_target_moves_by_its_noise():
    config = tiny(batch_size=1, privacy__noise_multiplier=2.0)
    problem = make_problem(config)
    state = start(config, problem)
    nothing = next(number for number in range(1, 50) if not len(drawn_at(state, number, 1 / COUNT)))
    before = np.array(state.params["images"])
    after, _ = dp_kip.make_step(problem)(state, nothing)
    assert np.std(after.params["images"] - before) == pytest.approx(2.0, rel=0.25)


def drawn_at(state, number, rate):
    return dp_kip.poisson_draw(COUNT, rate, dp_kip.step_keys(state, number)[0])


def test_the_noise_of_the_first_means_keeps_their_share_of_the_budget():
    """Against the exact curve of the Gaussian mechanism (Balle and Wang, ICML 2018, theorem 8)."""
    share, epsilon, delta, clip, count = 0.3, 4.0, 1e-5, 0.5, 4000
    config = tiny(
        privacy__start="means",
        privacy__means_share=share,
        privacy__means_clip=clip,
        privacy__epsilon=epsilon,
        privacy__delta=delta,
        privacy__noise_multiplier=1.0,
        support__size=CLASSES,
    )
    images = np.full((count, *SHAPE), 0.25, np.float32)
    targets = Targets(images, np.arange(count) % CLASSES, CLASSES)
    problem = base.Problem(config, targets, None, sharding.make_mesh(1), jax.random.key(0))
    support = np.zeros((CLASSES, *SHAPE), np.float32), np.eye(CLASSES, dtype=np.float32)
    draws = []
    for seed in range(60):
        config.privacy.noise_seed = seed
        state = dp_kip.init(config, *support)
        keys = dp_kip.step_keys(state, 1)
        after, _ = dp_kip.start_at_means(problem, state, None, *keys)
        draws.append(np.asarray(after.current[0]) - 0.25)
    size = np.sqrt(2) * clip * np.sqrt(25) / (count / CLASSES)  # Of one noise multiplier.
    noise = np.std(draws) / size

    def spent(noise, epsilon):
        a, b = 1 / (2 * noise), epsilon * noise
        return norm.cdf(a - b) - np.exp(epsilon) * norm.cdf(-a - b)

    least = brentq(lambda noise: spent(noise, share * epsilon) - delta, 0.5, 50)
    assert noise == pytest.approx(least, rel=0.06)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_first_step_sets_the_images_to_means_of_their_classes(average, monkeypatch):
    monkeypatch.setattr(dp_kip, "_means_noise", lambda config: 0.0)
    config = tiny(
        privacy__start="means",
        privacy__means_clip=1e3,
        privacy__noise_multiplier=1.0,
        privacy__average=average,
        support__size=CLASSES,
    )
    problem = make_problem(config)
    support = base.draw_support(problem.targets, CLASSES, "noise", jax.random.key(1))
    state = jax.tree.map(np.array, dp_kip.init(config, *support))
    before = sharding.replicate(problem.mesh, state)
    after, _ = dp_kip.make_step(problem)(before, 1)
    data = problem.targets
    means = np.stack([data.images[data.labels == c].mean(axis=0) for c in range(CLASSES)])
    images, labels = (np.array(part) for part in after.current)
    assert int(after.step) == 1
    np.testing.assert_allclose(images, means, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after.support[0], images)
    np.testing.assert_array_equal(labels, support[1])
    moved, _ = dp_kip.make_step(problem)(after, 2)
    assert np.abs(moved.current[0] - images).max() > 0


def test_the_secret_comes_from_the_operating_system_unless_it_is_given():
    images, labels = jnp.zeros((SIZE, *SHAPE)), jnp.zeros((SIZE, CLASSES))

    def secret(**changes):
        return tuple(np.asarray(dp_kip.init(tiny(**changes), images, labels).secret))

    assert len({secret() for _ in range(5)}) == 5
    assert secret(privacy__noise_seed=4) == secret(privacy__noise_seed=4, seed=1)
    assert secret(privacy__noise_seed=4) != secret(privacy__noise_seed=5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"support__init": "real"}, "support.init must not use .*: take 'noise'."),
        ({"support__init": "set.npz"}, "support.init must not use .*: take 'noise'."),
        (
            {"preprocess": "standard"},
            "preprocess must not use .*: take 'none' or 'centred', or fit",
        ),
        (
            {"preprocess": "zca", "dataset__preprocess_from": "digits"},
            "preprocess must not use .*: take 'none' or 'centred', or fit",
        ),
        ({"report__num_train": 5}, "report.num_train must not use .*: take 0"),
        ({"eval__networks": ("fc:1",)}, r"eval.networks must not use .*: take \(\), and --mode="),
        ({"augment": "shift"}, "augment is 'shift' and dp_kip augments nothing: take ''."),
        (
            {"dataset__validation": 0.1, "privacy__noise_seed": -1},
            "dataset.validation must not use .*: take 0, or an experiment",
        ),
        ({"support__frozen": 0.5}, "freezes no pixels"),
        ({"privacy__means_share": 1.0}, "privacy.means_share is 1.0: it must be below 1"),
        ({"privacy__start": "zero"}, "privacy.start is 'zero': take one of means, noise"),
        ({"privacy__delta": 1.0}, "privacy.delta is 1.0: it must be below 1"),
        ({"privacy__noise_multiplier": 1e-3}, "privacy.noise_multiplier is 0.001: below 0.05 it"),
        ({"privacy__average": 1.0}, "privacy.average is 1.0: it must be at least 0 and below 1"),
        ({"privacy__epsilon": 0.0}, "privacy.epsilon is 0.0: it must be above 0"),
        ({"privacy__epsilon": 1e3}, "privacy.epsilon is 1000.0: above 100 it protects nothing"),
        ({"privacy__noise_seed": -2}, "privacy.noise_seed is -2: it must be at least -1"),
    ],
)
def test_what_would_see_training_images_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        config_lib.validate(private(**changes))


def test_a_delta_that_allows_to_publish_an_image_is_refused(digits):
    """With delta = 1/n a random image may be published: nothing is private then."""
    dp_kip.check_data(private(privacy__noise_seed=-1, privacy__delta=1e-4), digits)
    dp_kip.check_data(private(privacy__delta=0.5), digits)  # It promises nothing anyway.
    with pytest.raises(UserError, match=r"delta is 0.001 and digits .* less than 1 / 1438"):
        dp_kip.check_data(private(privacy__noise_seed=-1, privacy__delta=1e-3), digits)


def test_what_is_private_is_accepted():
    config_lib.validate(private(privacy__noise_seed=-1))
    config_lib.validate(private(dataset__validation=0.1))
    config_lib.validate(private(preprocess="zca", dataset__preprocess_from="mnist"))


@pytest.mark.slow
def test_a_noise_multiplier_ends_the_run_when_the_budget_is_spent():
    config = private(privacy__noise_multiplier=1.0, privacy__epsilon=3.0, num_steps=500)
    total = dp_kip.total_steps(config, 1000)
    assert 0 < total < 500
    spent = [
        _privacy.epsilon(_privacy.Release(0.03, 1.0, steps, 1e-4)) for steps in (total, total + 1)
    ]
    assert spent[0] <= 3 < spent[1]
    config.num_steps = total - 1
    assert dp_kip.total_steps(config, 1000) == total - 1
    config.privacy.epsilon = 1e-3
    with pytest.raises(UserError, match=r"first step spends more than privacy.epsilon=0.001"):
        dp_kip.total_steps(config, 1000)


def test_the_schedule_ends_where_the_budget_does():
    """A run of 500 steps whose budget ends it early moves as one that was to be as short."""
    fields = {"privacy__noise_multiplier": 3.0, "optimizer__schedule": "cosine"}
    fields["privacy__noise_seed"] = 3
    long = tiny(num_steps=500, **fields)
    total = dp_kip.total_steps(long, COUNT)
    assert 2 < total < 100
    after = []
    for config in (long, tiny(num_steps=total, **fields)):
        problem = make_problem(config)
        state, step = start(config, problem), dp_kip.make_step(problem)
        for number in (1, 2):
            state, _ = step(state, number)
        after.append(np.asarray(state.params["images"]))
    np.testing.assert_array_equal(*after)


def test_targets_are_padded_no_more_than_devices_ask_for(monkeypatch):
    """One call of 13 targets or a few more; 13 is no multiple of the devices."""
    config = tiny(privacy__noise_multiplier=1e-12)
    problem = make_problem(config, devices=2)
    monkeypatch.setattr(dp_kip, "_piece", lambda *_: 13)
    padded, put = [], sharding.put_targets

    def watched(*args):
        found = put(*args)
        padded.append(len(found[2]))
        return found

    monkeypatch.setattr(sharding, "put_targets", watched)
    dp_kip.make_step(problem)(start(config, problem), 1)
    assert padded == [14]


@pytest.mark.usefixtures("quick_kernels")
def test_a_resumed_run_has_the_secret_that_it_began_with(tmp_path, monkeypatch):
    fields = {"privacy__noise_seed": -1, "privacy__noise_multiplier": 2.0, "eval__steps": (4,)}
    random = [b"secretly", b"another!"]
    monkeypatch.setattr(dp_kip.os, "urandom", lambda count: random[0][:count])
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(private(**fields), str(tmp_path))
    monkeypatch.setattr(dp_kip.os, "urandom", lambda count: random[1][:count])
    state = train.train_and_evaluate(private(**fields), str(tmp_path))
    assert state.step == 4
    assert np.asarray(state.secret).tobytes() == b"secretly"


@pytest.mark.slow
@pytest.mark.usefixtures("quick_kernels")
@pytest.mark.parametrize("start", ["noise", "means"])
def test_a_resumed_run_is_the_same_and_spends_the_same(tmp_path, monkeypatch, start):
    config = private(privacy__start=start)
    whole = train.train_and_evaluate(config, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(config, str(tmp_path / "parts"))
    stopped = result(tmp_path / "parts")
    assert stopped["status"] == "stopped"
    parts = train.train_and_evaluate(config, str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")
    accounts = [result(tmp_path / name)["privacy"] for name in ("parts", "whole")]
    assert accounts[0] == accounts[1]
    assert (stopped["privacy"]["steps"], accounts[0]["steps"]) == (2, 4)
    assert accounts[0]["epsilon"] is None  # The noise can be repeated.
    with pytest.raises(UserError, match="num_steps was 4 and is now 8"):
        train.train_and_evaluate(
            private(num_steps=8, privacy__start=start), str(tmp_path / "whole")
        )


@pytest.mark.usefixtures("quick_kernels")
def test_a_private_set_says_so_and_its_files_say_nothing_else(tmp_path, capsys):
    config = private(privacy__noise_seed=-1, privacy__epsilon=2.0, privacy__start="means")
    train.train_and_evaluate(config, str(tmp_path))
    output = capsys.readouterr().out
    sets = {one.provenance["step"]: one for one in map(export.load_distilled, sets_of(tmp_path))}
    stated = [sets[step].provenance["privacy"] for step in (0, 2, 4)]
    noise, of_means = (f"{stated[2][f'{name}noise_multiplier']:.4g}" for name in ("", "means_"))
    line = (
        f"epsilon 2, delta 0.0001; noise multiplier {noise}, of the first step's means {of_means}"
    )
    assert line in output
    assert [one["steps"] for one in stated] == [0, 2, 4]
    epsilons = [one["epsilon"] for one in stated]
    assert epsilons[0] == 0 < epsilons[1] < epsilons[2] <= 2
    assert epsilons[2] > 1.99
    assert stated[2] == result(tmp_path)["privacy"]
    assert stated[2]["sampling_rate"] == pytest.approx(30 / 1438)
    assert stated[2]["accountant"].startswith("dp-accounting 0.")
    assert stated[2]["means_noise_multiplier"] > stated[2]["noise_multiplier"] > 0
    # Loss and accuracy of a batch would be figures of private images.
    with open(tmp_path / "history.csv", newline="") as file:
        columns = csv.DictReader(file).fieldnames
    assert not {"loss", "accuracy"} & set(columns)
    # So would a sum over them: it tells whether an image is in a training set known otherwise.
    assert "checksum" not in result(tmp_path)["data"]


def sets_of(workdir):
    return sorted((workdir / "distilled").glob("*.npz"))
