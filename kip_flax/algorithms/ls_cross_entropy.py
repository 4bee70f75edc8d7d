"""Label Solve by cross-entropy: one pass that keeps the kernel's rows, then the labels.

The squared error of Label Solve needs two sums over the targets. The cross-entropy needs every row
of K_ts, so the state holds them: T x S float32, 24 MB for 60,000 targets and 100 images.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from kip_flax.algorithms import ls
from kip_flax.algorithms.base import pinned, replicated
from kip_flax.algorithms.interface import KeptRows, Problem, Step, Support
from kip_flax.kernels import Kernel
from kip_flax.krr import cross_entropy, label_solve
from kip_flax.runtime import multihost, sharding

FACTS = dataclasses.replace(ls.FACTS, variant="cross-entropy")

check = ls.check
eval_steps = ls.eval_steps
labels = ls.labels
labels_changed = ls.labels_changed
pairs = ls.pairs
published_step = ls.published_step
total_steps = ls.total_steps


class LsCrossEntropyState(ls.LabelSolveState):
    """The kernel of the targets seen so far.

    Attributes:
        k_ts: (T, S), the kernel of all targets and the support; zeros where not seen.
    """

    k_ts: jax.Array


def init(
    config: ConfigDict, images: jax.Array, labels: jax.Array, train_size: int
) -> LsCrossEntropyState:
    """State before the first tile: support images (S, H, W, C), natural labels (S, classes)."""
    del config
    return LsCrossEntropyState(
        step=jnp.zeros((), jnp.int32),
        images=jnp.asarray(images, jnp.float32),
        labels=jnp.asarray(labels, jnp.float32),
        k_ts=jnp.zeros((train_size, len(images)), jnp.float32),
    )


def kept_rows(config: ConfigDict, train_size: int) -> KeptRows:
    """All training images: the state holds their rows of K_ts."""
    del config
    return KeptRows(train_size, in_state=True)


def make_step(problem: Problem) -> Step:
    """A step that computes the rows of one tile of `batch_size` targets, in fixed order."""
    batch, targets, mesh = problem.config.batch_size, problem.targets, problem.mesh

    @functools.cache
    def update(count: int) -> Callable[..., LsCrossEntropyState]:
        return pinned(make_update(problem.kernel, batch, count), mesh)

    def step(
        state: LsCrossEntropyState, number: int
    ) -> tuple[LsCrossEntropyState, dict[str, jax.Array]]:
        tile = targets.take(slice((number - 1) * batch, number * batch))
        x_t, _, _ = sharding.put_targets(mesh, *tile)
        return update(len(tile[0]))(state, x_t), {}

    return step


def make_update(kernel: Kernel, batch: int, count: int) -> Callable[..., LsCrossEntropyState]:
    """`update(state, x_t) -> state`: keeps the rows of the next tile.

    It takes targets x_t (T, H, W, C), of which the first `count` are no padding. Tiles before it
    have `batch` targets.
    """

    def update(state: LsCrossEntropyState, x_t: jax.Array) -> LsCrossEntropyState:
        rows = kernel(x_t, state.images)[:count].astype(state.k_ts.dtype)
        k_ts = jax.lax.dynamic_update_slice_in_dim(state.k_ts, rows, state.step * batch, axis=0)
        return state.replace(step=state.step + 1, k_ts=k_ts)

    return update


def make_support(problem: Problem) -> Callable[[LsCrossEntropyState], Support]:
    """A function of the state: its images, with solved labels after the last tile, else natural."""
    solved, classes = solver(problem), problem.targets.labels
    return ls.labelled_at_the_end(problem, lambda state: solved(state.images, state.k_ts, classes))


def solver(problem: Problem) -> Callable[[jax.Array, ArrayLike, np.ndarray], jax.Array]:
    """A function of support images (S, H, W, C), their kernel with targets k_ts (T, S) and the
    targets' classes (T,): labels (S, classes) for which `krr.solve` predicts with the least
    cross-entropy.
    """
    classes, mesh = problem.targets.num_classes, problem.mesh

    def labels_of(images: jax.Array, alpha: jax.Array) -> jax.Array:
        return label_solve.labels_of(problem.kernel(images, images), alpha, problem.config.reg)

    fitting = replicated(labels_of, mesh)

    def solved(images: jax.Array, k_ts: ArrayLike, labels: np.ndarray) -> jax.Array:
        alpha = cross_entropy.solution(np.asarray(k_ts), labels, classes)
        return fitting(images, sharding.replicate(mesh, multihost.of_first(alpha)))

    return solved
