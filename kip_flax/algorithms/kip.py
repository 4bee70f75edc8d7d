"""KIP: what `distill` needs from a configuration, and the targets of every step."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data
from kip_flax.algorithms import _distill as distill
from kip_flax.algorithms._state import KipState
from kip_flax.algorithms.base import Facts, Problem, Step, make_optimizer, pinned
from kip_flax.data import Dataset, augment
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

FACTS = Facts(
    title="KIP", spelled_out="Kernel Inducing Points (KIP)", krr_loss=True, uses_kernel=True
)

# Labels, size of a batch, classes, key and number of a step to the places of its targets.
Draw = Callable[[np.ndarray, int, int, jax.Array, int], np.ndarray]


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> KipState:
    """State before the first step: support images (S, H, W, C) and labels (S, classes)."""
    return distill.init(images, labels, make_optimizer(config), config.support.learn_labels)


def make_step(problem: Problem) -> Step:
    """One step of the optimiser on a batch that is drawn anew, evenly over the classes."""
    config = problem.config
    return on_batches(
        problem, distill.make_step(problem.kernel, make_optimizer(config), config.reg)
    )


def drawn_anew(
    labels: np.ndarray, size: int, num_classes: int, key: jax.Array, number: int
) -> np.ndarray:
    """`data.balanced_draw` of its own for every step `number`."""
    return data.balanced_draw(labels, size, num_classes, jax.random.fold_in(key, number))


def on_batches(problem: Problem, update: distill.Step, draw: Draw = drawn_anew) -> Step:
    """Gives `update` a batch of targets for every step, augmented where that is asked for."""
    config, targets, mesh = problem.config, problem.targets, problem.mesh
    key_draw, key_augment = jax.random.split(problem.key)
    names = augment.parse(config.augment)
    augmented = jax.jit(functools.partial(augment.augment, names))
    pinned_update = pinned(update, mesh)

    def step(state: KipState, number: int) -> tuple[KipState, dict[str, jax.Array]]:
        rows = draw(targets.labels, config.batch_size, targets.num_classes, key_draw, number)
        images, labels = targets.take(rows)
        if names:
            key = jax.random.fold_in(key_augment, number)
            images = np.asarray(augmented(images, key))
        return pinned_update(state, *sharding.put_targets(mesh, images, labels))

    return step


def pairs(config: ConfigDict, train_size: int) -> int:
    """Kernel entries of a step."""
    del train_size
    return config.support.size * (config.batch_size + config.support.size)


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError if a batch is larger than the training set."""
    train = len(dataset.train_labels)
    if config.batch_size > train:
        raise UserError(
            f"batch_size is {config.batch_size} and {dataset.name} has {train} training images: "
            f"take no more than that."
        )
