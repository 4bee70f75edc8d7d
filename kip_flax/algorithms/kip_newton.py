"""KIP by Gauss-Newton steps: few steps, each worth many of gradient descent."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data
from kip_flax.algorithms import kip, kip_solve
from kip_flax.algorithms.base import kernel_options
from kip_flax.algorithms.interface import KeptGradients, KeptRows, Problem, Step, Support
from kip_flax.algorithms.kip import KipState, Metrics
from kip_flax.data import Dataset
from kip_flax.kernels import jacobian
from kip_flax.kernels.sharded import shard_jacobian
from kip_flax.krr import gauss_newton, residuals
from kip_flax.krr.gauss_newton import Iterate
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

SECTION = Section(
    {
        "newton.damping": float,
        "newton.iterations": int,
        "newton.block": int,
        "newton.growth": int,
    },
    minima={"newton.iterations": 1, "newton.block": 0, "newton.growth": 1},
    above_zero=("newton.damping",),
)
FACTS = dataclasses.replace(
    kip_solve.FACTS,
    variant="Gauss-Newton",
    sections=("newton",),
    freezes_pixels=False,
    if_not_finite="raise reg or newton.damping",
)


class Level(NamedTuple):
    """Consecutive steps with the same batch size.

    Attributes:
        times: their batch size, in multiples of `batch_size`.
        begin: steps taken before the first of them.
        end: steps taken after the last of them.
    """

    times: int
    begin: int
    end: int


def levels(num_steps: int, growth: int) -> tuple[Level, ...]:
    """Levels of 1, 2, 4, ..., `growth` times the batch size, each with about as many targets.

    Early on, small batches gain as much per target; later, their gains drown in their noise.
    """
    found, begin = [], 0
    for doublings in range(growth.bit_length()):
        times = 2**doublings
        # The levels' numbers of steps are as 1, 1/2, 1/4, ...
        end = round(num_steps * (2 - 1 / times) / (2 - 1 / growth))
        found.append(Level(times, begin, end))
        begin = end
    return tuple(found)


def batches(num_steps: int, growth: int, steps: int) -> int:
    """The targets that the first `steps` steps draw, in multiples of `batch_size`."""
    every = levels(num_steps, growth)
    return sum(max(0, min(steps, level.end) - level.begin) * level.times for level in every)


def _level(config: ConfigDict, number: int) -> Level:
    """The level of step `number` (from 1)."""
    every = levels(config.num_steps, config.newton.growth)
    if not config.num_steps:  # A run of no steps; `--mode=plan` times one.
        return every[0]
    return next((level for level in every if number <= level.end), every[-1])


def batch_size(config: ConfigDict, number: int) -> int:
    """The number of targets in step `number` (from 1)."""
    return config.batch_size * _level(config, number).times


def length_decides(fields: Mapping[str, Any]) -> bool:
    """True if batches grow: `num_steps` then decides when."""
    return fields.get("newton.growth", 1) > 1


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError if a batch is larger than the training set."""
    kip.check_data(config, dataset)
    train, most = len(dataset.train_labels), batch_size(config, config.num_steps)
    if most > train:
        raise UserError(
            f"newton.growth is {config.newton.growth} and batch_size {config.batch_size}, which "
            f"makes {most} targets, and {dataset.name} has {train} training images: lower one."
        )


def check(config: ConfigDict) -> None:
    """Raises UserError if solved labels could fit a batch exactly, or growth or block is wrong."""
    if config.support.learn_labels:
        kip_solve.check_targets(config)
    growth = config.newton.growth
    if growth.bit_count() != 1:
        near = 2 ** (growth.bit_length() - 1)
        raise UserError(f"newton.growth is {growth}: batches double: take a power of 2, as {near}.")
    size, block = config.support.size, config.newton.block
    if block and size % block:
        divisors = (n for n in range(1, size + 1) if size % n == 0)
        near = min(divisors, key=lambda n: abs(n - block))
        raise UserError(
            f"newton.block is {block} and support.size {size}: blocks must divide the images: "
            f"take {near}, or 0 for all."
        )


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> KipState:
    """State before the first step: images (S, H, W, C), labels (S, classes)."""
    return _state(gauss_newton.init(images, labels, config.newton.damping))


def _state(iterate: Iterate) -> KipState:
    optimiser = {"damping": iterate.damping, "average": iterate.average}
    return KipState(iterate.number, {"images": iterate.images}, iterate.labels, optimiser)


def _iterate(state: KipState) -> Iterate:
    return Iterate(state.step, state.params["images"], state.labels, **state.opt_state)


def averaged(state: KipState) -> KipState:
    """The state with its images replaced by their average, which is exported."""
    return state.replace(params={"images": state.opt_state["average"]})


def prepare(config: ConfigDict, say: Callable[[str], None]) -> None:
    """Compiles the functions that steps need besides the kernel, before the clock runs."""
    jacobian.warm_up(kernel_options(config), say)


def make_step(problem: Problem) -> Step:
    """One step on a batch balanced over the classes; learned labels are solved as in `kip_solve`.

    A pass over the targets draws none twice: a step predicts the loss on other targets from its
    batch, which fails on targets whose noise earlier steps have fitted.
    """
    config = problem.config
    of_pairs = jacobian.make_jacobian(kernel_options(config))
    of_pairs = shard_jacobian(of_pairs, problem.mesh)
    learned = config.support.learn_labels
    make = residuals.with_solved_labels if learned else residuals.with_fixed_labels
    of_batch = make(problem.kernel, of_pairs, config.reg)
    key = jax.random.fold_in(problem.key, 1)
    step = gauss_newton.make_step(of_batch, config.newton.iterations, key, config.newton.block)

    def update(
        state: KipState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[KipState, Metrics]:
        iterate, metrics = step(_iterate(state), x_t, y_t, weights)
        return _state(iterate), metrics

    def draw(
        labels: np.ndarray, size: int, num_classes: int, key: jax.Array, number: int
    ) -> np.ndarray:
        level = _level(config, number)
        key = key if level.times == 1 else jax.random.fold_in(key, level.times)
        own = number - level.begin
        return data.balanced_batch(labels, size * level.times, num_classes, key, own)

    return kip.on_batches(problem, update, draw)


def make_support(problem: Problem) -> Callable[[KipState], Support]:
    """A function of the state: its averaged images, with solved labels if labels are learned."""
    learned = problem.config.support.learn_labels
    of_state = kip_solve.make_support(problem) if learned else lambda state: state.support
    return lambda state: of_state(averaged(state))


def label_targets(config: ConfigDict, train_size: int) -> int:
    """Training images used to solve for the labels at evaluation; 0 if labels are fixed."""
    return kip_solve.label_targets(config, train_size) if config.support.learn_labels else 0


def pairs(config: ConfigDict, train_size: int) -> int:
    """Kernel entries of a step, on average."""
    del train_size
    size, steps = config.support.size, config.num_steps
    targets = batches(steps, config.newton.growth, steps) / max(1, steps)
    own = 0 if config.support.learn_labels else size
    return round(size * (config.batch_size * targets + own))


def labels(learn_labels: bool) -> str:
    """'solved' where labels are learned, as every step solves for them; else 'fixed'."""
    return "solved" if learn_labels else "fixed"


def kept_rows(config: ConfigDict, train_size: int) -> KeptRows:
    """The targets of an evaluation by cross-entropy; none if labels are fixed."""
    return kip_solve.kept_rows(config, train_size) if config.support.learn_labels else KeptRows(0)


def kept_gradients(
    config: ConfigDict, image_shape: tuple[int, ...], targets: int, devices: int
) -> KeptGradients:
    """The gradients of the images that move at once, and two bases of the linear solver's
    directions, each with its rotation."""
    images, share = config.newton.block or config.support.size, -(-targets // devices)
    each = 4 * images * math.prod(image_shape)
    return KeptGradients(images, (share + 4 * config.newton.iterations) * each)
