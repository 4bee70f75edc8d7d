"""Can one tell from a distilled set which images it was made from?

    python -m benchmarks.membership [--sets=64] [--start=means] [--json=FILE]

The likelihood-ratio attack of Carlini et al. (IEEE S&P 2022, LiRA, online) on sets of the digits.
Each set is made from some of 200 images, each drawn with probability one half, without privacy and
with epsilon 10 and 1. The attacker knows everything but the draw, and has the other sets to learn
from. For an image the attacker fits one normal distribution to its losses under the sets that were
made with it, and one to its losses under the others. The score of a set is the ratio of the two
likelihoods. With --start=means private sets begin as noisy class means, as `dp_kip` does by
default; a set without privacy has no means to publish and is left out.

Prints the area under the ROC curve (0.5: guessing) with its standard error over the sets, and the
largest area that the epsilon allows.
"""

import argparse
import dataclasses
import functools
import operator
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from benchmarks import output
from configs import default
from kip_flax import data, kernels, krr, preprocess
from kip_flax.algorithms import base, dp_kip, interface
from kip_flax.algorithms.interface import Support
from kip_flax.data import Targets
from kip_flax.runtime import sharding

IMAGES, SUPPORT, STEPS, RATE = 200, 20, 100, 0.5
BUDGETS = (None, 10.0, 1.0)
_DELTA = 1e-3


class Attack(NamedTuple):
    """The success of the attack on sets of one epsilon.

    Attributes:
        epsilon: None without privacy.
        area: under the ROC curve, the mean over the sets.
        error: standard error of that mean.
        accuracy: mean accuracy of the sets on the test images (0 to 1).
    """

    epsilon: float | None
    area: float
    error: float
    accuracy: float


_FEWEST = 16  # Then nearly every image is in two other sets or more, and not in two or more.


def attack(epsilon: float | None, sets: int, seed: int = 0, start: str = "noise") -> Attack:
    """Makes `sets` sets and attacks each of them with the help of the others."""
    problem, test = _problem(epsilon, start)
    rng = np.random.default_rng(seed)
    members = rng.random((sets, IMAGES)) < 0.5  # Each by itself: neighbours differ by one image.
    supports = _distil(problem, members, epsilon, rng)
    losses = np.asarray(_losses(problem, supports, problem.targets))
    scores = likelihood_ratios(np.log(losses + 1e-9), members)
    areas = [area(score, member) for score, member in zip(scores, members, strict=True)]
    return Attack(
        epsilon,
        float(np.mean(areas)),
        float(np.std(areas, ddof=1) / np.sqrt(sets)),
        float(_accuracy(problem, supports, test)),
    )


def likelihood_ratios(statistics: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Log likelihood ratios (sets, images), each from the statistics of the other sets.

    Args:
        statistics: (sets, images), such as the logarithm of the loss of an image under a set.
        members: (sets, images), whether a set was made with an image.
    """
    ratios = np.empty_like(statistics)
    for number in range(len(statistics)):
        others = np.delete(statistics, number, axis=0)
        known = np.delete(members, number, axis=0)
        logs = []
        for side in (known, ~known):
            count = side.sum(0)
            mean = (others * side).sum(0) / count
            spread = np.sqrt(((others - mean) ** 2 * side).sum(0) / count) + 1e-6
            logs.append(norm.logpdf(statistics[number], mean, spread))
        ratios[number] = logs[0] - logs[1]
    return ratios


def area(scores: np.ndarray, members: np.ndarray) -> float:
    """Area under the ROC curve: how often a member scores above another image; ties count half."""
    inside, outside = scores[members], scores[~members]
    above = (inside[:, None] > outside).mean()
    return float(above + (inside[:, None] == outside).mean() / 2)


def largest_area(epsilon: float, delta: float) -> float:
    """The area under the highest ROC curve that (epsilon, delta) allows (Kairouz et al., 2015)."""

    def power(level: float) -> float:
        miss = max(0.0, 1 - delta - np.exp(epsilon) * level, np.exp(-epsilon) * (1 - delta - level))
        return 1 - miss

    knee = (1 - delta) / (1 + np.exp(epsilon))
    return float(quad(power, 0, 1, points=[knee])[0])


def main(argv: list[str] | None = None) -> int:
    """Prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=64, help="sets for each epsilon")
    parser.add_argument("--start", default="noise", choices=("noise", "means"))
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args(argv)
    if args.sets < _FEWEST:
        parser.error(f"--sets is at least {_FEWEST}: it needs others with and without an image.")
    rows = []
    print("| epsilon | area under the curve | largest allowed | test accuracy |\n|---|---|---|---|")
    budgets = BUDGETS if args.start == "noise" else tuple(filter(None, BUDGETS))
    for epsilon in budgets:
        found = attack(epsilon, args.sets, start=args.start)
        most = "1" if epsilon is None else f"{largest_area(epsilon, _DELTA):.4f}"
        name = "no privacy" if epsilon is None else f"{epsilon:g}"
        accuracy = f"{100 * found.accuracy:.1f} %"
        print(f"| {name} | {found.area:.4f} ± {found.error:.4f} | {most} | {accuracy} |")
        rows.append(found._asdict())
    output.write(args.json, rows)
    return 0


def _problem(epsilon: float | None, start: str) -> tuple[interface.Problem, Targets]:
    """The problem on `IMAGES` training digits, drawn evenly over the classes; the test images."""
    config = default.get_config()
    config.algorithm, config.support.size, config.support.init = "dp_kip", SUPPORT, "noise"
    config.kernel.architecture, config.kernel.depth = "fc", 1
    config.kernel.implementation = "xla"
    config.reg = 1e-3
    config.num_steps, config.batch_size = STEPS, int(RATE * IMAGES)
    config.optimizer.learning_rate = 0.1
    config.privacy.delta, config.privacy.start_std = _DELTA, 1.0
    config.privacy.start = start
    config.privacy.clip = 1e3 if epsilon is None else 0.05  # The former clips nothing.
    config.privacy.epsilon = epsilon or 1.0
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("centred", digits.train_images)
    centred = functools.partial(preprocess.apply, fitted)
    rows = data.balanced_draw(digits.train_labels, IMAGES, 10, jax.random.key(0))
    targets = Targets(centred(digits.train_images[rows]), digits.train_labels[rows], 10)
    test = Targets(centred(digits.test_images), digits.test_labels, 10)
    kernel = kernels.make_kernel(base.kernel_options(config))
    mesh = sharding.make_mesh(1)
    return interface.Problem(config, targets, kernel, mesh, jax.random.key(0)), test


def _distil(
    problem: interface.Problem, members: np.ndarray, epsilon: float | None, rng: np.random.Generator
) -> Support:
    """The supports (sets, S, ...) of one run for each set; all runs step together."""
    config, targets = problem.config, problem.targets
    noise = 0.0
    if epsilon is not None:
        noise = dp_kip.declared(config, IMAGES, STEPS)["noise_multiplier"]
    of_support, add_targets = dp_kip.make_add(problem)
    of_support = jax.jit(jax.vmap(of_support))
    add = jax.jit(jax.vmap(add_targets, in_axes=(0, 0, None, None, 0)))
    move = jax.jit(jax.vmap(dp_kip.make_move(config, noise)))
    keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), len(members))
    states, first = _first_states(problem, keys), 0
    if config.privacy.start == "means":
        states, first = _at_means(problem, states, members), 1
    x, y = targets.take(slice(None))
    zeros = dp_kip.GradientSums(
        jnp.zeros((len(members), SUPPORT, x[0].size), jnp.float32),
        jnp.zeros((len(members), SUPPORT, 10), jnp.float32),
    )
    for number in range(first, STEPS):
        drawn = members & (rng.random(members.shape) < RATE)
        sums = add(zeros, of_support(*states.current), x, y, drawn.astype(np.float32))
        step_keys = jax.vmap(functools.partial(jax.random.fold_in, data=number))(keys)
        states, _ = move(states, sums, jax.random.key_data(step_keys))
    return states.support


def _first_states(problem: interface.Problem, keys: jax.Array) -> dp_kip.DpState:
    """States before the first step, all random numbers from `keys`, one for each set."""
    states = []
    for key in keys:
        support = base.draw_support(problem.targets, SUPPORT, "noise", key)
        secret = jax.random.key_data(jax.random.fold_in(key, STEPS))  # Steps fold in numbers below.
        states.append(dp_kip.init(problem.config, *support).replace(secret=secret))
    return _stacked(states)


def _at_means(
    problem: interface.Problem, states: dp_kip.DpState, members: np.ndarray
) -> dp_kip.DpState:
    """The states of all runs after a first step that publishes the means of their members."""
    moved = []
    for number, own in enumerate(members):
        state = jax.tree.map(operator.itemgetter(number), states)
        rows = problem.targets.images[own], problem.targets.labels[own]
        of_members = dataclasses.replace(problem, targets=Targets(*rows, 10))
        keys = dp_kip.step_keys(state, 1)
        moved.append(dp_kip.start_at_means(of_members, state, None, *keys)[0])
    return _stacked(moved)


def _stacked(states: list[dp_kip.DpState]) -> dp_kip.DpState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@functools.partial(jax.jit, static_argnums=0)
def _predictions(kernel: kernels.Kernel, reg: float, support: Support, x: jax.Array) -> jax.Array:
    images, labels = support
    alpha = krr.solve(kernel(images, images), labels, reg)
    return krr.predict(kernel(x, images), alpha)


def _of_sets(problem: interface.Problem, supports: Support, targets: Targets) -> np.ndarray:
    """Predictions (sets, n, classes)."""
    reg = problem.config.reg
    return np.stack(
        [
            np.asarray(_predictions(problem.kernel, reg, support, targets.images))
            for support in zip(*supports, strict=True)
        ]
    )


def _losses(problem: interface.Problem, supports: Support, targets: Targets) -> np.ndarray:
    _, y = targets.take(slice(None))
    return ((_of_sets(problem, supports, targets) - y) ** 2).mean(2)


def _accuracy(problem: interface.Problem, supports: Support, targets: Targets) -> float:
    found = _of_sets(problem, supports, targets).argmax(2)
    return float((found == targets.labels).mean())


if __name__ == "__main__":
    sys.exit(main())
