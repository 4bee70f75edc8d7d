"""KIP with labels that are solved for at every step instead of found by gradient descent.

Variable projection (Golub and Pereyra, SIAM J. Numer. Anal. 1973): at the best labels the loss does
not change with them to first order, so its gradient in the images treats them as fixed.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from kip_flax import data, krr
from kip_flax.algorithms import kip, ls
from kip_flax.algorithms.base import Problem, Step, Support, pinned
from kip_flax.algorithms.kip import KipState
from kip_flax.kernels import Kernel
from kip_flax.krr import label_solve
from kip_flax.krr.residuals import Batch
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

FACTS = dataclasses.replace(kip.FACTS, variant="labels solved at each step")

check_data = kip.check_data
labels = ls.labels
pairs = ls.pairs


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
    best when `krr.solve` predicts with them."""
    config, targets, mesh = problem.config, problem.targets, problem.mesh
    count = label_targets(config, len(targets.labels))
    key = jax.random.fold_in(problem.key, 1)
    rows = data.balanced_draw(targets.labels, count, targets.num_classes, key)
    add_targets = pinned(label_solve.make_add_targets(problem.kernel), mesh)
    solved = ls.solver(problem, label_solve.fitting_labels)

    def support(state: KipState) -> Support:
        images = state.params["images"]
        sums = sharding.replicate(mesh, label_solve.zero_sums(*state.labels.shape))
        for first in range(0, count, config.batch_size):
            tile = targets.take(rows[first : first + config.batch_size])
            sums = add_targets(sums, images, *sharding.put_targets(mesh, *tile))
        return images, solved(images, sums)

    return support


def label_targets(config: ConfigDict, train_size: int) -> int:
    """Training images used to solve for the labels at evaluation."""
    return min(config.eval.label_targets or train_size, train_size)


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
