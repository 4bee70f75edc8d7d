"""Label Solve: one pass over the training set, tile by tile, then the solution."""

import functools
from collections.abc import Callable

import jax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kip_flax.algorithms._state import LsState
from kip_flax.algorithms.base import Facts, Problem, Step, Support, pinned
from kip_flax.krr import label_solve
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

FACTS = Facts(
    title="Label Solve",
    unit="tile of targets",
    learns_images=False,
    uses_kernel=True,
    differentiates=False,
)


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> LsState:
    """State before the first tile: support images (S, H, W, C), natural labels (S, classes)."""
    del config
    return label_solve.init(images, labels)


def make_step(problem: Problem) -> Step:
    """One tile of `batch_size` targets, in fixed order, added to the sums."""
    batch, targets, mesh = problem.config.batch_size, problem.targets, problem.mesh
    update = pinned(label_solve.make_step(problem.kernel), mesh)

    def step(state: LsState, number: int) -> tuple[LsState, dict[str, jax.Array]]:
        tile = slice((number - 1) * batch, number * batch)
        return update(state, *sharding.put_targets(mesh, *targets.take(tile))), {}

    return step


def make_support(problem: Problem) -> Callable[[LsState], Support]:
    """Natural labels before the pass over the targets, solved ones after it."""
    total = total_steps(problem.config, len(problem.targets.labels))
    solved = solver(problem)

    def support(state: LsState) -> Support:
        return state.images, solved(state) if state.step == total else state.labels

    return support


def solver(
    problem: Problem, solve: Callable[..., jax.Array] = label_solve.solve_labels
) -> Callable[[LsState], jax.Array]:
    """The labels (S, classes) of a state's sums; `solve` is one of `label_solve`."""

    @functools.partial(jax.jit, out_shardings=NamedSharding(problem.mesh, PartitionSpec()))
    def solved(state: LsState) -> jax.Array:
        k_ss = problem.kernel(state.images, state.images)
        return solve(k_ss, state.gram, state.cross, problem.config.reg)

    return solved


def total_steps(config: ConfigDict, train_size: int) -> int:
    """The tiles that the training set makes."""
    return -(-train_size // config.batch_size)


def marks(config: ConfigDict, total: int) -> frozenset[int]:
    """Nothing is learned before the last tile."""
    del config
    return frozenset({total})


def pairs(config: ConfigDict, train_size: int) -> int:
    """Kernel entries of a tile."""
    return config.support.size * min(config.batch_size, train_size)


def check(config: ConfigDict) -> None:
    """Raises UserError if the configuration augments."""
    if config.augment:
        raise UserError(
            f"augment is {config.augment!r}: Label Solve does not augment: leave it empty."
        )


def labels(learn_labels: bool) -> str:
    """Solved, whatever the configuration says."""
    del learn_labels
    return "solved"


def labels_changed(learn_labels: bool, step: int) -> bool:
    """Natural labels before the first tile."""
    del learn_labels
    return step > 0


def published_step(step: int) -> int:
    """Label Solve counts as one step, of many tiles."""
    return min(step, 1)
