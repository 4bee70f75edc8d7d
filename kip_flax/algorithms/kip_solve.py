"""KIP whose labels are solved for at every step: no gradient descent has to find them."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data
from kip_flax.algorithms import _distill as distill
from kip_flax.algorithms import kip, ls
from kip_flax.algorithms._state import KipState
from kip_flax.algorithms.base import Problem, Step, Support, make_optimizer, pinned
from kip_flax.algorithms.kip import check_data
from kip_flax.algorithms.ls import labels, pairs
from kip_flax.krr import label_solve
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

__all__ = [
    "check",
    "check_data",
    "init",
    "label_targets",
    "labels",
    "make_step",
    "make_support",
    "pairs",
]

FACTS = dataclasses.replace(kip.FACTS, variant="labels solved at each step")


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> KipState:
    """State before the first step: images (S, H, W, C); the labels (S, classes) are not used."""
    return distill.init(images, labels, make_optimizer(config), learn_labels=False)


def make_step(problem: Problem) -> Step:
    """One step of the optimiser on a batch that is drawn anew, evenly over the classes."""
    config = problem.config
    update = distill.make_solved_step(problem.kernel, make_optimizer(config), config.reg)
    return kip.on_batches(problem, update)


def make_support(problem: Problem) -> Callable[[KipState], Support]:
    """The images with the labels of their best predictions for `eval.label_targets` targets,
    whatever the ridge of prediction is."""
    config, targets, mesh = problem.config, problem.targets, problem.mesh
    count = label_targets(config, len(targets.labels))
    key = jax.random.fold_in(problem.key, 1)
    rows = data.balanced_draw(targets.labels, count, targets.num_classes, key)
    update = pinned(label_solve.make_step(problem.kernel), mesh)
    solved = ls.solver(problem, label_solve.fitting_labels)

    def support(state: KipState) -> Support:
        start = label_solve.init(state.params["images"], state.labels)
        sums = sharding.replicate(mesh, jax.tree.map(np.array, start))
        for first in range(0, count, config.batch_size):
            tile = targets.take(rows[first : first + config.batch_size])
            sums = update(sums, *sharding.put_targets(mesh, *tile))
        return sums.images, solved(sums)

    return support


def label_targets(config: ConfigDict, train_size: int) -> int:
    """Training images that an evaluation solves for the labels with."""
    return min(config.eval.label_targets or train_size, train_size)


def check_targets(config: ConfigDict) -> None:
    """Raises UserError if labels fit all of a batch, which leaves the images nothing to learn, or
    all targets that a set's labels are solved for."""
    size, few = config.support.size, config.eval.label_targets
    if config.batch_size <= size:
        raise UserError(
            f"batch_size is {config.batch_size} and support.size {size}: the labels of so many "
            f"images fit such a batch without error: take a larger one."
        )
    if 0 < few <= size:
        raise UserError(
            f"eval.label_targets is {few} and support.size {size}: the labels of so many images "
            f"fit such targets without error: take more, or 0 for all."
        )


def check(config: ConfigDict) -> None:
    """Raises UserError if the labels are said to be fixed, or fit all of a batch."""
    check_targets(config)
    if not config.support.learn_labels:
        raise UserError(
            f"support.learn_labels is False: {config.algorithm} solves for the labels: set it to "
            f"True, or take algorithm='kip'."
        )
