"""Label Solve: one pass over the training set, tile by tile, then the solution."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kip_flax.algorithms import _krr_papers
from kip_flax.algorithms.base import pinned, replicated
from kip_flax.algorithms.interface import Facts, Problem, Step, Support
from kip_flax.kernels import Kernel
from kip_flax.krr import label_solve
from kip_flax.krr.label_solve import Sums
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

FACTS = Facts(
    title="Label Solve",
    tag="kernel-ridge-regression",
    bibtex=_krr_papers.BIBTEX,
    published_recipe=_krr_papers.published_recipe,
    unit="tile of targets",
    learns_images=False,
    uses_kernel=True,
    differentiates=False,
    sections=(),
    if_not_finite="raise reg, and look for NaN in the images",
)


class LabelSolveState(flax.struct.PyTreeNode):
    """A pass over the targets, whatever it keeps of them.

    Attributes:
        step: () int32, tiles of targets seen.
        images: (S, H, W, C), the support; never changed.
        labels: (S, classes), the natural labels of the support.
    """

    step: jax.Array
    images: jax.Array
    labels: jax.Array

    @property
    def support(self) -> Support:
        """Support images (S, H, W, C) and their natural labels (S, classes)."""
        return self.images, self.labels


class LsState(LabelSolveState):
    """The sums over the targets seen so far.

    Attributes:
        gram: (S, S) sum over targets of K_st K_ts.
        cross: (S, classes) sum over targets of K_st y_t.
    """

    gram: jax.Array
    cross: jax.Array

    @property
    def sums(self) -> Sums:
        """The sums that the labels are solved from."""
        return Sums(self.gram, self.cross)


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> LsState:
    """State before the first tile: support images (S, H, W, C), natural labels (S, classes)."""
    del config
    return first_state(images, labels)


def first_state(images: jax.Array, labels: jax.Array) -> LsState:
    """Like `init`, without a configuration."""
    return LsState(
        step=jnp.zeros((), jnp.int32),
        images=jnp.asarray(images, jnp.float32),
        labels=jnp.asarray(labels, jnp.float32),
        **label_solve.zero_sums(*labels.shape)._asdict(),
    )


def make_step(problem: Problem) -> Step:
    """A step that adds one tile of `batch_size` targets to the sums, in fixed order."""
    batch, targets, mesh = problem.config.batch_size, problem.targets, problem.mesh
    update = pinned(make_update(problem.kernel), mesh)

    def step(state: LsState, number: int) -> tuple[LsState, dict[str, jax.Array]]:
        tile = slice((number - 1) * batch, number * batch)
        return update(state, *sharding.put_targets(mesh, *targets.take(tile))), {}

    return step


def make_update(kernel: Kernel) -> Callable[..., LsState]:
    """`update(state, x_t, y_t, weights) -> state`: adds one tile of targets to the sums.

    It takes targets x_t (T, H, W, C), labels y_t (T, classes) and weights (T,), 0 for padding.
    """
    add_targets = label_solve.make_add_targets(kernel)

    def update(state: LsState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array) -> LsState:
        gram, cross = add_targets(state.sums, state.images, x_t, y_t, weights)
        return state.replace(step=state.step + 1, gram=gram, cross=cross)

    return update


def make_support(problem: Problem) -> Callable[[LsState], Support]:
    """A function of the state: its images, with solved labels after the last tile, else natural."""
    solved = solver(problem)
    return labelled_at_the_end(problem, lambda state: solved(state.images, state.sums))


def labelled_at_the_end(
    problem: Problem, solved: Callable[[Any], jax.Array]
) -> Callable[[Any], Support]:
    """A function of a `LabelSolveState`: its images, with the labels `solved(state)` after the last
    tile, else natural ones."""
    total = total_steps(problem.config, len(problem.targets.labels))

    def support(state: Any) -> Support:
        return state.images, solved(state) if state.step == total else state.labels

    return support


def solver(
    problem: Problem, solve: Callable[..., jax.Array] = label_solve.solve_labels
) -> Callable[[jax.Array, Sums], jax.Array]:
    """A function of support images (S, H, W, C) and the sums of all targets: labels (S, classes).

    `solve` is `label_solve.solve_labels` or `label_solve.fitting_labels`.
    """

    def solved(images: jax.Array, sums: Sums) -> jax.Array:
        return solve(problem.kernel(images, images), sums, problem.config.reg)

    return replicated(solved, problem.mesh)


def total_steps(config: ConfigDict, train_size: int) -> int:
    """The number of tiles in the training set."""
    return -(-train_size // config.batch_size)


def eval_steps(config: ConfigDict, total: int) -> frozenset[int]:
    """Only the last tile: nothing is learned before it."""
    del config
    return frozenset({total})


def pairs(config: ConfigDict, train_size: int) -> int:
    """Kernel entries of a tile."""
    return config.support.size * min(config.batch_size, train_size)


def check(config: ConfigDict) -> None:
    """Raises UserError if the configuration augments, limits the time or fixes the labels."""
    if not config.support.learn_labels:
        raise UserError(
            f"support.learn_labels is False: {config.algorithm} solves for the labels: set it to "
            f"True."
        )
    if config.time_limit:
        raise UserError(
            f"time_limit is {config.time_limit:g} and {config.algorithm} makes one pass over the "
            f"training images, with the labels at its end: take 0; a stopped run goes on by the "
            f"same command."
        )
    if config.augment:
        raise UserError(
            f"augment is {config.augment!r}: Label Solve does not augment: leave it empty."
        )


def labels(learn_labels: bool) -> str:
    """'solved', whatever `learn_labels` is."""
    del learn_labels
    return "solved"


def labels_changed(learn_labels: bool, step: int) -> bool:
    """True after the first tile; before it the labels are natural."""
    del learn_labels
    return step > 0


def published_step(step: int) -> int:
    """0 or 1: Label Solve counts as one step of many tiles."""
    return min(step, 1)
