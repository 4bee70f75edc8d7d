"""Parts that algorithms share: how a set begins, the kernel, the optimiser, programs on a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kip_flax import architectures, data, krr
from kip_flax.algorithms.interface import Support
from kip_flax.data import Dataset, Targets, coresets
from kip_flax.kernels import KernelOptions
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

SUPPORT_DRAWS = ("real", *coresets.CORESETS, "noise")

SCHEDULES = ("constant", "cosine", "cosine_tenth")  # Of `rate_schedule`.

SECTION = Section(
    {
        "optimizer.name": str,
        "optimizer.learning_rate": float,
        "optimizer.schedule": str,
        "optimizer.warmup_steps": int,
        "optimizer.momentum": float,
    },
    choices={
        "optimizer.name": ("adam", "lamb", "sgd"),
        "optimizer.schedule": SCHEDULES,
    },
    minima={"optimizer.warmup_steps": 0, "optimizer.momentum": 0},
    above_zero=("optimizer.learning_rate",),
)


def kind_of_start(init: str) -> str:
    """What images are before the first step, by `support.init`: 'real', 'noise' or 'set'."""
    if init == "noise":
        return init
    return "real" if init in SUPPORT_DRAWS else "set"


def draw_support(targets: Targets, size: int, draw: str, key: jax.Array) -> Support:
    """An initial support, ordered by class, with the same number of images per class.

    With 'real' a class may have too few images; other classes then give more.

    Args:
        targets: the training set.
        size: number of images, a multiple of the number of classes.
        draw: one of `SUPPORT_DRAWS`: 'real' draws training images, a name of `coresets.CORESETS`
            chooses them, 'noise' draws standard normal pixels.
        key: random key of the draw; a choice is the same for every key.

    Returns:
        Images (size, H, W, C) and labels (size, classes), one-hot minus 1/classes.

    Raises:
        UserError: a class has too few images to choose from.
    """
    classes = targets.num_classes
    if draw == "noise":
        images = jax.random.normal(key, (size, *targets.images.shape[1:]), jnp.float32)
        labels = np.repeat(np.arange(classes), size // classes)
        return images, krr.centered_one_hot(labels, classes)
    if draw == "real":
        rows = data.balanced_draw(targets.labels, size, classes, key)
        rows = rows[np.argsort(targets.labels[rows], kind="stable")]
    else:
        rows = coresets.CORESETS[draw](targets.images, targets.labels, size, classes)
    if len(rows) < size:
        raise UserError(
            f"support.init={draw!r} takes {size // classes} images of every class, and one has "
            f"fewer: take a smaller support.size, or support.init='real'."
        )
    return jnp.asarray(targets.images[rows]), krr.centered_one_hot(targets.labels[rows], classes)


def kernel_options(config: ConfigDict) -> KernelOptions:
    """The options of the kernel that `config` describes."""
    kernel = config.kernel
    return KernelOptions(
        architectures.build(kernel.architecture, kernel.depth),
        w_std=kernel.w_std,
        b_std=kernel.b_std,
        parameterization=kernel.parameterization,
        width=kernel.width,
        get=kernel.kind,
        mirrored=kernel.mirrored,
        implementation=kernel.implementation,
    )


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The optimiser of `config.optimizer`, for a run of `config.num_steps`."""
    return optimizer(**config.optimizer, num_steps=config.num_steps)


def optimizer(
    name: str,
    learning_rate: float,
    schedule: str,
    warmup_steps: int,
    momentum: float,
    num_steps: int,
) -> optax.GradientTransformation:
    """The optimiser 'adam', 'lamb', or 'sgd' with momentum, at the rate of `rate_schedule`."""
    rate = rate_schedule(learning_rate, schedule, num_steps, warmup_steps)
    if name == "sgd":
        return optax.sgd(rate, momentum)
    return {"adam": optax.adam, "lamb": optax.lamb}[name](rate)


def rate_schedule(
    learning_rate: float, schedule: str, num_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """The rate of a step (from 0), with a linear warm-up.

    After it the rate is constant ('constant'), or falls as a cosine, which would be at 0 ('cosine')
    or a tenth ('cosine_tenth') after the last step. A run of fewer steps than the warm-up,
    such as a trial, does not reach it.
    """
    rate: optax.Schedule = optax.constant_schedule(learning_rate)
    if schedule != "constant":
        end = 0.1 if schedule == "cosine_tenth" else 0.0
        rate = optax.cosine_decay_schedule(learning_rate, max(1, num_steps - warmup_steps), end)
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        rate = optax.join_schedules([warmup, rate], [warmup_steps])
    return rate


def check_mirrorable(dataset: Dataset, field: str, others: str) -> None:
    """Raises UserError if images may not be mirrored, as `field` asks; `others`: what to pass."""
    if not dataset.mirrorable:
        raise UserError(
            f"{field} mirrors images, and a mirror image in {dataset.name} may be of another "
            f"class: pass {others}."
        )


def over_targets(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """`step(state, x_t, y_t, weights)` on every device of a mesh; targets are sharded over 'data'.

    State and metrics are replicated, so `step` itself sums over the devices.
    """
    whole, spread = PartitionSpec(), PartitionSpec("data")
    specs = (whole, spread, spread, spread)
    return jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)


def pinned(step: Callable[..., Any], mesh: Mesh) -> jax.stages.Wrapped:
    """`step`, compiled, with its results replicated over `mesh`; it donates its first argument.

    Otherwise the compiler shards parts of the state. The second step, and the first after a resume,
    would then be a different program from the first.
    """
    return replicated(step, mesh, donate_argnums=0)


def replicated(
    function: Callable[..., Any], mesh: Mesh, donate_argnums: int | tuple[int, ...] = ()
) -> jax.stages.Wrapped:
    """`function`, compiled, with its results on every device of `mesh`."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(function, donate_argnums=donate_argnums, out_shardings=whole)
