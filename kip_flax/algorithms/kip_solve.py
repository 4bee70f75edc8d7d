"""KIP with labels that are solved for at every step instead of found by gradient descent.

Variable projection (Golub and Pereyra, SIAM J. Numer. Anal. 1973): at the best labels the loss does
not change with them to first order, so its gradient in the images treats them as fixed. The labels
are the best up to their ridge `reg`, as small as that of the predictions.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data, krr
from kip_flax.algorithms import kip, ls, ls_cross_entropy
from kip_flax.algorithms.base import pinned, replicated
from kip_flax.algorithms.interface import KeptRows, Problem, Step, Support
from kip_flax.algorithms.kip import KipState
from kip_flax.kernels import Kernel
from kip_flax.krr import label_solve
from kip_flax.krr.residuals import Batch
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

FACTS = dataclasses.replace(
    kip.FACTS,
    variant="labels solved at each step",
    label_fields=("eval.label_targets", "eval.label_loss"),
)

check_data = kip.check_data
labels = ls.labels
pairs = ls.pairs

Labeller = Callable[[jax.Array], jax.Array]  # Images (S, H, W, C) to labels (S, classes).
Placed = tuple[jax.Array, jax.Array, jax.Array]  # Targets, their labels and weights.


def solved_loss(
    support: Support, batch: Batch, kernel: Kernel, reg: float
) -> tuple[jax.Array, jax.Array]:
    """The KIP loss with the labels that fit the batch best, and the predictions (T, classes).

    The best predictions that a support can give are K_ts alpha*, whatever its labels: K_ss is not
    needed. `reg` is absolute, as in `label_solve`.
    """
    x_s, _ = support
    k_ts = kernel(batch.x, x_s)
    sums = label_solve.sum_targets(jax.lax.stop_gradient(k_ts), batch.y, batch.weights)
    alpha = label_solve.solution(sums, reg)
    predictions = krr.predict(k_ts, alpha)
    return krr.loss(predictions, batch.y, batch.weights), predictions


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> KipState:
    """State before the first step: images (S, H, W, C); the labels (S, classes) are not used."""
    return kip.first_state(images, labels, kip.optimizer(config), learn_labels=False)


def make_step(problem: Problem) -> Step:
    """One step of the optimiser on a freshly drawn batch, balanced over the classes."""
    config = problem.config
    loss = functools.partial(solved_loss, kernel=problem.kernel, reg=config.reg)
    return kip.on_batches(problem, kip.make_update(loss, kip.optimizer(config)))


def make_support(problem: Problem) -> Callable[[KipState], Support]:
    """A function of the state: its images, with the labels that fit `eval.label_targets` targets
    best, by `eval.label_loss`, when `krr.solve` predicts with them."""
    targets = problem.targets
    count = label_targets(problem.config, len(targets.labels))
    key = jax.random.fold_in(problem.key, 1)
    rows = data.balanced_draw(targets.labels, count, targets.num_classes, key)
    labelled = LABELLERS[problem.config.eval.label_loss](problem, rows)

    def support(state: KipState) -> Support:
        images = state.params["images"]
        return images, labelled(images)

    return support


def _by_squared_error(problem: Problem, rows: np.ndarray) -> Labeller:
    targets, mesh = problem.targets, problem.mesh
    add_targets = pinned(label_solve.make_add_targets(problem.kernel), mesh)
    solved = ls.solver(problem, label_solve.fitting_labels)

    def labelled(images: jax.Array) -> jax.Array:
        zeros = label_solve.zero_sums(len(images), targets.num_classes)
        sums = sharding.replicate(mesh, zeros)
        for _, tile in _tiles(problem, rows):
            sums = add_targets(sums, images, *tile)
        return solved(images, sums)

    return labelled


def _by_cross_entropy(problem: Problem, rows: np.ndarray) -> Labeller:
    kernel = replicated(problem.kernel, problem.mesh)
    solved = ls_cross_entropy.solver(problem)

    def labelled(images: jax.Array) -> jax.Array:
        tiles = _tiles(problem, rows)
        k_ts = [np.asarray(kernel(x_t, images))[:count] for count, (x_t, _, _) in tiles]
        return solved(images, np.concatenate(k_ts), problem.targets.labels[rows])

    return labelled


def _tiles(problem: Problem, rows: np.ndarray) -> Iterator[tuple[int, Placed]]:
    """The targets of `rows` in batches: their number, and what `put_targets` makes of them."""
    batch = problem.config.batch_size
    for first in range(0, len(rows), batch):
        images, labels = problem.targets.take(rows[first : first + batch])
        yield len(images), sharding.put_targets(problem.mesh, images, labels)


LABELLERS = {"squared_error": _by_squared_error, "cross_entropy": _by_cross_entropy}


def label_targets(config: ConfigDict, train_size: int) -> int:
    """Training images used to solve for the labels at evaluation."""
    return min(config.eval.label_targets or train_size, train_size)


def kept_rows(config: ConfigDict, train_size: int) -> KeptRows:
    """The targets of an evaluation by cross-entropy; none by squared error, which keeps sums."""
    by_rows = config.eval.label_loss == "cross_entropy"
    return KeptRows(label_targets(config, train_size) if by_rows else 0)


def check_targets(config: ConfigDict) -> None:
    """Raises UserError if labels could fit a batch, or `eval.label_targets` targets, exactly.

    The images would then have nothing left to learn.
    """
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
    """Raises UserError if `support.learn_labels` is False, or where `check_targets` does."""
    check_targets(config)
    if not config.support.learn_labels:
        raise UserError(
            f"support.learn_labels is False: {config.algorithm} solves for the labels: set it to "
            f"True, or take algorithm='kip'."
        )
