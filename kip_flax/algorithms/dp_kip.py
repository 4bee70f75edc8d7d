"""DP-KIP: differentially private descent on the KIP loss (Vinaroz and Park, arXiv 2301.13389).

A step draws every target with the same probability. It clips the gradient of each target's loss in
the images and labels, sums the gradients, adds normal noise, and hands the sum to the optimiser.
Anything computed from that sum costs no further privacy, so the average over the steps is exported.

The set starts as noise. The first step replaces it by noisy class means of all training images
(`privacy.start='means'`, of our own): from noise, most of the budget goes into coming as far.
Preprocessing, report and evaluation use no private training image. The random key of draws and
noise comes from the operating system, unless `privacy.noise_seed` is given, and is stored only in
the checkpoints.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from kip_flax.algorithms import _averaged, _private_budget, _private_means, _private_uses, kip
from kip_flax.algorithms._averaged import AveragedState
from kip_flax.algorithms._low_frequencies import low_frequencies, smooth
from kip_flax.algorithms.base import kernel_options, make_optimizer, pinned, replicated
from kip_flax.algorithms.interface import KeptGradients, Problem, Step
from kip_flax.data import Dataset
from kip_flax.kernels import jacobian
from kip_flax.kernels.sharded import shard_jacobian
from kip_flax.krr import per_target
from kip_flax.krr.per_target import GradientSums, SupportTerms
from kip_flax.krr.residuals import Batch
from kip_flax.runtime import multihost, sharding
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import LARGEST_SEED, Section
from kip_flax.runtime.precision import product

_BIBTEX = """@misc{vinaroz2023differentially,
  title  = {Differentially Private Kernel Inducing Points (DP-KIP) for Privacy-preserving Data
            Distillation},
  author = {Vinaroz, Margarita and Park, Mi Jung},
  year   = {2023},
  note   = {arXiv:2301.13389}
}"""


_MOST_EPSILON = 100  # The accountant's tables grow with it.
_LEAST_NOISE = 0.05  # They grow with less noise too. A step spends an epsilon of hundreds here.


def _published_recipe(images_per_class: int) -> str:
    return f"{images_per_class} per class: 10 epochs of batches of 50, gradients clipped to 1e-6"


def _check(fields: Any) -> None:
    if not fields["privacy.delta"] < 1:
        raise UserError(
            f"privacy.delta is {fields['privacy.delta']}: it must be below 1, and should be below "
            f"1 / training images."
        )
    if fields["privacy.epsilon"] > _MOST_EPSILON:
        raise UserError(
            f"privacy.epsilon is {fields['privacy.epsilon']}: above {_MOST_EPSILON} it protects "
            f"nothing; take a smaller one, or another algorithm."
        )
    if 0 < fields["privacy.noise_multiplier"] < _LEAST_NOISE:
        raise UserError(
            f"privacy.noise_multiplier is {fields['privacy.noise_multiplier']}: below "
            f"{_LEAST_NOISE} it protects nothing; take more, or 0, which finds it."
        )
    if not fields["privacy.means_share"] < 1:
        raise UserError(
            f"privacy.means_share is {fields['privacy.means_share']}: it must be below 1, because "
            f"the other steps spend the rest."
        )
    _averaged.check_average("privacy.average", fields["privacy.average"])


SECTION = Section(
    {
        "privacy.epsilon": float,
        "privacy.delta": float,
        "privacy.clip": float,
        "privacy.noise_multiplier": float,
        "privacy.start": str,
        "privacy.start_std": float,
        "privacy.means_share": float,
        "privacy.means_clip": float,
        "privacy.frequencies": int,
        "privacy.average": float,
        "privacy.noise_seed": int,
    },
    choices={"privacy.start": ("means", "noise")},
    minima={
        "privacy.clip": 1e-12,  # float32 loses squares of far smaller gradients, and their norm.
        "privacy.noise_multiplier": 0,
        "privacy.noise_seed": -1,
        "privacy.frequencies": 0,
    },
    maxima={"privacy.noise_seed": LARGEST_SEED},
    above_zero=(
        *("privacy.epsilon", "privacy.delta", "privacy.start_std"),
        *("privacy.means_share", "privacy.means_clip"),
    ),
    check=_check,
)
FACTS = dataclasses.replace(
    kip.FACTS,
    title="DP-KIP",
    spelled_out="Differentially Private Kernel Inducing Points (DP-KIP)",
    freezes_pixels=False,
    bibtex="\n".join([_BIBTEX, kip.FACTS.bibtex]),
    sections=("optimizer", "privacy"),
    depends_on_rate=True,
    published_recipe=_published_recipe,
)

pairs = kip.pairs

# Of the way in which targets are drawn. A run that is older repeats no noise with other draws.
_DRAW_VERSION = 2
_DEVIATIONS = 3  # One call takes batches up to so many standard deviations above the mean.
_GRADIENT_BYTES = 2**28  # Of the targets of a call; memory holds a few such arrays.

Metrics = dict[str, jax.Array]


def kept_gradients(
    config: ConfigDict, image_shape: tuple[int, ...], targets: int, devices: int
) -> KeptGradients:
    """The gradients of the targets of a call, and those of the support's own entries."""
    del targets  # Calls are padded to one size, which follows from the mean number.
    size, pixels, basis = config.support.size, math.prod(image_shape), _basis(config, image_shape)
    numbers = pixels if basis is None else len(basis)
    share = _rows_of_call(config, image_shape, devices) // devices
    each = max(3 * numbers, pixels + numbers)  # As XLA plans it: all pixels only before the basis.
    return KeptGradients(size, 4 * size * (share * each + size * numbers))


class DpState(AveragedState):
    """The learned support, its optimiser, and the random key.

    Attributes:
        secret: (2,) uint32, the key of all draws and of all noise.
    """

    secret: jax.Array


total_steps = _private_budget.total_steps
declared = _private_budget.declared
check = _private_uses.check
check_beginning = _private_uses.check_beginning


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError on a batch larger than the training set, or a delta that protects none."""
    kip.check_data(config, dataset)
    train, delta = len(dataset.train_labels), config.privacy.delta
    if config.privacy.noise_seed < 0 and delta * train >= 1:
        raise UserError(
            f"privacy.delta is {delta:g} and {dataset.name} has {train} training images: take less "
            f"than 1 / {train}, as a delta of one in so many allows to publish one of them."
        )


def length_decides(fields: Mapping[str, Any]) -> bool:
    """True: the noise of every step depends on the number of steps."""
    del fields
    return True


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> DpState:
    """State before the first step, from normal images (S, H, W, C) and labels (S, classes)."""
    noise = jnp.asarray(images, jnp.float32)
    start = config.privacy.start_std * smooth(noise, _basis(config, images.shape[1:]))
    secret = _secret(config.privacy.noise_seed, shape_only=isinstance(images, jax.core.Tracer))
    fields = _averaged.first_fields(config, start, labels, config.privacy.average)
    return DpState(**fields, secret=secret)


def prepare(config: ConfigDict, say: Callable[[str], None]) -> None:
    """Compiles the functions that steps need besides the kernel."""
    jacobian.warm_up(kernel_options(config), say)


def make_step(problem: Problem) -> Step:
    """One step of the optimiser on the noisy sum of the clipped gradients of drawn targets."""
    targets, mesh = problem.targets, problem.mesh
    count = len(targets.labels)
    config = problem.config
    if config.optimizer.schedule != "constant":  # The schedule ends where the budget does.
        config = config.copy_and_resolve_references()
        config.num_steps = _private_budget.total_steps(config, count)
    rate = _private_budget.rate(config, count)
    of_support, add_targets = make_add(problem)
    of_support, add = replicated(of_support, mesh), pinned(add_targets, mesh)
    image_shape = targets.images.shape[1:]
    basis = _basis(config, image_shape)
    dimensions = math.prod(image_shape) if basis is None else len(basis)
    move = pinned(make_move(config, _private_budget.noise(config, count), basis), mesh)
    piece = _rows_of_call(config, image_shape, mesh.shape["data"])

    def step(state: DpState, number: int) -> tuple[DpState, Metrics]:
        key_rows, key_noise = step_keys(state, number)
        if number == 1 and config.privacy.start == "means":
            return start_at_means(problem, state, basis, key_rows, key_noise)
        rows = poisson_draw(count, rate, key_rows)
        images, labels = state.current
        shapes = (len(images), dimensions), labels.shape
        sums = sharding.replicate(mesh, GradientSums(*(jnp.zeros(s, jnp.float32) for s in shapes)))
        support = of_support(images, labels)
        for start in range(0, len(rows), piece):
            x, y = targets.take(rows[start : start + piece])
            batch = sharding.put_targets(mesh, x, y, piece)
            sums = add(sums, support, *batch)
        noise_key = sharding.replicate(mesh, jax.random.key_data(key_noise))
        return move(state, sums, noise_key)

    return step


def start_at_means(
    problem: Problem,
    state: DpState,
    basis: jax.Array | None,
    key_groups: jax.Array,
    key_noise: jax.Array,
) -> tuple[DpState, Metrics]:
    """The state with noisy class means as its images. Labels and optimiser stay as they are."""
    config, targets = problem.config, problem.targets
    clip = config.privacy.means_clip
    labels = np.asarray(state.labels)
    groups = _private_means.draw_groups(targets.labels, np.argmax(labels, axis=1), key_groups)
    sums = _private_means.group_sums(targets.images, groups, len(labels), clip)
    images = _private_means.noisy_means(sums, clip, _private_budget.means_noise(config), key_noise)
    placed = {"images": smooth(jnp.asarray(images), basis)}
    params = state.params | sharding.replicate(problem.mesh, placed)
    average = jax.tree.map(jnp.copy, params) if state.average else ()  # Steps give both away.
    moved = state.replace(step=state.step + 1, params=params, average=average)
    return moved, {"grad_norm": jnp.zeros(())}


def step_keys(state: DpState, number: int) -> tuple[jax.Array, jax.Array]:
    """The keys of the draw and of the noise of step `number`, for this process alone."""
    secret = jnp.asarray(np.asarray(state.secret))
    key = jax.random.fold_in(jax.random.wrap_key_data(secret), number)
    key = jax.random.fold_in(key, _DRAW_VERSION)
    key_rows, key_noise = jax.random.split(key)
    return key_rows, key_noise


def poisson_draw(count: int, rate: float, key: jax.Array) -> np.ndarray:
    """Indices below `count`, each drawn with probability `rate`, independently of the others.

    The probability is rounded down, to a multiple of 2^-32. The draw is the same with and without
    float64. Otherwise a run that resumes on a TPU would add the same noise to another draw.
    """
    drawn = np.asarray(jax.random.bits(key, (count,), jnp.uint32)).astype(np.uint64)
    return np.flatnonzero(drawn < math.floor(rate * 2**32))


def make_add(problem: Problem) -> tuple[per_target.OfSupport, Callable[..., GradientSums]]:
    """`support = of_support(images, labels)`, once a step, and `add(sums, support, x, y, weights)`.

    The latter adds the clipped gradients of targets to `sums`. The weight of padding is 0.
    """
    config = problem.config
    of_pairs = shard_jacobian(jacobian.make_jacobian(kernel_options(config)), problem.mesh)
    basis = _basis(config, problem.targets.images.shape[1:])
    of_support, gradients = per_target.make_gradients(of_pairs, config.reg, basis)
    clip, learned = config.privacy.clip, config.support.learn_labels

    def add(sums: GradientSums, support: SupportTerms, *batch: jax.Array) -> GradientSums:
        found = gradients(support, Batch(*batch))
        if not learned:
            found = found._replace(labels=jnp.zeros_like(found.labels))
        more = per_target.clipped_sum(found, batch[-1], clip)
        return GradientSums(sums.images + more.images, sums.labels + more.labels)

    return of_support, add


def make_move(
    config: ConfigDict, noise_multiplier: float, basis: jax.Array | None = None
) -> Callable[[DpState, GradientSums, jax.Array], tuple[DpState, Metrics]]:
    """`move(state, sums, key)`: one step of the optimiser, and the norm of its noisy gradient.

    That gradient is the noisy sum in units of the clip, divided by the expected number of targets.
    """
    tx = make_optimizer(config)
    clip, expected, decay = config.privacy.clip, config.batch_size, config.privacy.average

    def noisy(total: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, total.shape, jnp.float32)
        return (total / clip + noise_multiplier * noise) / expected

    def move(state: DpState, sums: GradientSums, key: jax.Array) -> tuple[DpState, Metrics]:
        keys = jax.random.split(jax.random.wrap_key_data(key))
        rows = noisy(sums.images, keys[0])
        rows = rows if basis is None else product(rows, basis)
        grads = {"images": rows.reshape(state.params["images"].shape)}
        if "labels" in state.params:
            grads["labels"] = noisy(sums.labels, keys[1])
        return state.moved(tx, grads, decay), {"grad_norm": optax.tree.norm(grads)}

    return move


def _basis(config: ConfigDict, image_shape: tuple[int, ...]) -> jax.Array | None:
    """The basis (K, H W C) that images are learned in; None: all pixels."""
    if not config.privacy.frequencies:
        return None
    height, width, channels = image_shape
    return jnp.asarray(low_frequencies((height, width, channels), config.privacy.frequencies))


def _secret(seed: int, shape_only: bool) -> jax.Array:
    """The key (2,) uint32, equal on all processes: from the operating system or from a seed."""
    if seed >= 0 or shape_only:
        return jax.random.key_data(jax.random.key(max(0, seed)))
    return jnp.asarray(multihost.of_first(np.frombuffer(os.urandom(8), np.uint32)))


def _rows_of_call(config: ConfigDict, image_shape: tuple[int, ...], devices: int) -> int:
    """Targets of a call with its padding, a multiple of the devices that share them."""
    piece = _piece(config.batch_size, 4 * config.support.size * math.prod(image_shape))
    return piece + -piece % devices


def _piece(batch_size: int, target_bytes: int) -> int:
    """Targets of a padded call: as few calls as memory allows, of one size, for most batches."""
    likely = math.ceil(batch_size + _DEVIATIONS * math.sqrt(batch_size))
    calls = math.ceil(likely / max(1, _GRADIENT_BYTES // target_bytes))
    return math.ceil(likely / calls)
