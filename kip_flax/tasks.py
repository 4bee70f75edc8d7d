"""KIP and Label Solve as the training loop sees them: first state, step, support to export."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kip_flax import augment, data, distill, krr, label_solve, sharding
from kip_flax.state import KipState, LsState

# Steps at which the published sets were written; then every 500.
PUBLISHED_STEPS = (*(0, 1, 2, 4, 6, 8, 12, 18, 26, 37, 54, 78, 112, 162, 233, 335, 483, 695, 1000),)

Kernel = Callable[[jax.Array, jax.Array], jax.Array]
State = KipState | LsState
Support = tuple[jax.Array, jax.Array]


@dataclass(frozen=True)
class Task:
    """One algorithm on one data set.

    Attributes:
        total: steps of the whole run.
        marks: steps after which the support is evaluated and exported; 0 is implied.
        pairs: kernel entries that a step computes.
        start: () -> the state before the first step.
        step: (state, number) -> the state after step `number` (from 1), and what it measured on its
            targets. The same number always sees the same targets.
        support: state -> images (S, H, W, C) and labels (S, classes) to evaluate and to export.
    """

    total: int
    marks: frozenset[int]
    pairs: int
    start: Callable[[], Any]
    step: Callable[[Any, int], tuple[Any, dict[str, jax.Array]]]
    support: Callable[[Any], Support]


@dataclass(frozen=True, eq=False)
class Targets:
    """Training targets in memory: images (n, H, W, C) preprocessed, class numbers (n,)."""

    images: np.ndarray
    labels: np.ndarray
    num_classes: int

    def take(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels, one-hot minus 1/classes, of some of them."""
        return self.images[rows], self._one_hot[self.labels[rows]]

    @functools.cached_property
    def _one_hot(self) -> np.ndarray:
        return np.asarray(krr.centered_one_hot(np.arange(self.num_classes), self.num_classes))


def total_steps(config: ConfigDict, train_size: int) -> int:
    """KIP: `num_steps`; Label Solve: the tiles that the training set makes."""
    return config.num_steps if config.algorithm == "kip" else -(-train_size // config.batch_size)


def template(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int) -> State:
    """A state with shapes and dtypes in the place of arrays."""
    size = config.support.size
    images, labels = jnp.zeros((size, *image_shape)), jnp.zeros((size, num_classes))
    return jax.eval_shape(lambda: _first_state(config, images, labels))


def init_support(config: ConfigDict, targets: Targets, key: jax.Array) -> Support:
    """The support that a run starts from, in the order of the classes.

    'real' draws training images, the same number for every class; 'noise' draws standard normal
    pixels. Labels are one-hot minus 1/classes.
    """
    size, classes = config.support.size, targets.num_classes
    if config.support.init == "real":
        rows = data.balanced_draw(targets.labels, size, classes, key)
        rows = rows[np.argsort(targets.labels[rows], kind="stable")]
        images, labels = jnp.asarray(targets.images[rows]), targets.labels[rows]
    else:
        images = jax.random.normal(key, (size, *targets.images.shape[1:]), jnp.float32)
        labels = np.repeat(np.arange(classes), size // classes)
    return images, krr.centered_one_hot(labels, classes)


def make_task(
    config: ConfigDict,
    targets: Targets,
    support: Support,
    kernel: Kernel,
    mesh: Mesh,
    key: jax.Array,
) -> Task:
    """The task that `config.algorithm` names, with its targets spread over `mesh`."""

    def start() -> State:
        # Steps take over the memory of their state: no two arrays of it may share theirs.
        return sharding.replicate(mesh, jax.tree.map(np.array, _first_state(config, *support)))

    total = total_steps(config, len(targets.labels))
    make = _kip if config.algorithm == "kip" else _label_solve
    return make(config, targets, kernel, mesh, key, total, start)


def make_optimizer(
    name: str,
    learning_rate: float,
    schedule: str,
    warmup_steps: int,
    momentum: float,
    num_steps: int,
) -> optax.GradientTransformation:
    """'adam', or 'sgd' with momentum; the rate constant or cosine to 0 after a linear warm-up."""
    rate: optax.Schedule = optax.constant_schedule(learning_rate)
    if schedule == "cosine":
        rate = optax.cosine_decay_schedule(learning_rate, max(1, num_steps - warmup_steps))
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        rate = optax.join_schedules([warmup, rate], [warmup_steps])
    return optax.adam(rate) if name == "adam" else optax.sgd(rate, momentum)


def pinned(step: Callable[..., Any], mesh: Mesh) -> jax.stages.Wrapped:
    """`step` with all it returns on every device of `mesh`, as it got its state.

    Left to choose, the compiler spreads parts of the state over the devices; the second step is
    then another program than the first, and the first one after a resume too.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=whole)


def _first_state(config: ConfigDict, images: jax.Array, labels: jax.Array) -> State:
    if config.algorithm == "kip":
        return distill.init(images, labels, _optimizer(config), config.support.learn_labels)
    return label_solve.init(images, labels)


def _optimizer(config: ConfigDict) -> optax.GradientTransformation:
    return make_optimizer(**config.optimizer, num_steps=config.num_steps)


def marks(config: ConfigDict, total: int) -> frozenset[int]:
    """KIP: the steps asked for, or the published ones, as far as the run goes; always the last."""
    if config.algorithm == "ls":
        return frozenset({total})
    published = {*PUBLISHED_STEPS, *range(1500, total + 1, 500)}
    return frozenset({step for step in (config.eval.steps or published) if step <= total} | {total})


def _kip(
    config: ConfigDict,
    targets: Targets,
    kernel: Kernel,
    mesh: Mesh,
    key: jax.Array,
    total: int,
    start: Callable[[], Any],
) -> Task:
    batch, classes = config.batch_size, targets.num_classes
    key_draw, key_augment = jax.random.split(key)
    names = augment.parse(config.augment)
    augmented = jax.jit(functools.partial(augment.augment, names))
    update = pinned(distill.make_step(kernel, _optimizer(config), config.reg), mesh)

    def step(state: KipState, number: int) -> tuple[KipState, dict[str, jax.Array]]:
        key = jax.random.fold_in(key_draw, number)
        rows = data.balanced_draw(targets.labels, batch, classes, key)
        images, labels = targets.take(rows)
        if names:
            key = jax.random.fold_in(key_augment, number)
            images = np.asarray(augmented(images, key))
        return update(state, *sharding.put_targets(mesh, images, labels))

    pairs = config.support.size * (batch + config.support.size)
    return Task(total, marks(config, total), pairs, start, step, lambda state: state.support)


def _label_solve(
    config: ConfigDict,
    targets: Targets,
    kernel: Kernel,
    mesh: Mesh,
    key: jax.Array,
    total: int,
    start: Callable[[], Any],
) -> Task:
    del key  # The targets come in fixed order.
    batch = config.batch_size
    update = pinned(label_solve.make_step(kernel), mesh)

    def step(state: LsState, number: int) -> tuple[LsState, dict[str, jax.Array]]:
        tile = slice((number - 1) * batch, number * batch)
        return update(state, *sharding.put_targets(mesh, *targets.take(tile))), {}

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
    def solved(state: LsState) -> jax.Array:
        k_ss = kernel(state.images, state.images)
        return label_solve.solve_labels(k_ss, state.gram, state.cross, config.reg)

    def support(state: LsState) -> Support:
        """Natural labels before the pass over the targets, solved ones after it."""
        return state.images, solved(state) if state.step == total else state.labels

    pairs = config.support.size * min(batch, len(targets.labels))
    return Task(total, marks(config, total), pairs, start, step, support)
