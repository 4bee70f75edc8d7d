"""Shared parts of the algorithms, and the facts that each may state about itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kip_flax import architectures, data, krr
from kip_flax.data import Dataset, Targets, coresets
from kip_flax.kernels import Kernel, KernelOptions
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

# Steps at which the published sets were written; then every 500.
PUBLISHED_STEPS = (*(0, 1, 2, 4, 6, 8, 12, 18, 26, 37, 54, 78, 112, 162, 233, 335, 483, 695, 1000),)

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


class KeptGradients(NamedTuple):
    """For how many support images a step keeps the gradients of pairs, and how many bytes these
    and what is computed from them take on each device."""

    images: int
    bytes: int


class KeptRows(NamedTuple):
    """For how many targets the kernel with the support is kept until labels are solved for, and
    whether it is a part of the state, which every device holds."""

    targets: int
    in_state: bool = False


State = Any  # An algorithm's own pytree, with `step` and, in most, `support`.
Step = Callable[[Any, int], tuple[Any, dict[str, jax.Array]]]
Support = tuple[jax.Array, jax.Array]

# The papers of the loss itself, kernel ridge regression from a learned support.
KIP_BIBTEX = """@inproceedings{nguyen2021dataset,
  title     = {Dataset Meta-Learning from Kernel Ridge-Regression},
  author    = {Nguyen, Timothy and Chen, Zhourong and Lee, Jaehoon},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  note      = {arXiv:2011.00050}
}
@inproceedings{nguyen2021infinitely,
  title     = {Dataset Distillation with Infinitely Wide Convolutional Networks},
  author    = {Nguyen, Timothy and Novak, Roman and Xiao, Lechao and Lee, Jaehoon},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021},
  note      = {arXiv:2107.13034}
}"""


def _unstated_recipe(images_per_class: int) -> str:
    del images_per_class
    return "larger batches and longer runs than the configurations here, partly augmented"


@dataclass(frozen=True)
class Facts:
    """Facts about an algorithm, which its module states as `FACTS`.

    The defaults apply to an algorithm that states none.

    Attributes:
        title: the method's name in tables, such as 'KIP'.
        variant: the variant of the method, if there are several, such as 'Gauss-Newton'.
        spelled_out: the full name; '' if `title` is the full name.
        unit: the name of a step, in the singular.
        learns_images: whether steps change the images.
        krr_loss: whether its metric `loss` is the squared error of KRR (`krr.loss`).
        uses_kernel: whether its steps compute kernel entries.
        differentiates: whether its steps take the kernel's gradient.
        for_networks: whether its sets are made for networks, whose accuracies then choose the best.
        freezes_pixels: whether its steps leave the pixels of `support.frozen` unchanged.
        tag: of the data-set card: 'kernel-ridge-regression', 'gradient-matching',
            'feature-regression', 'unrolled-training'.
        bibtex: entries of the papers to cite.
        sections: the optional sections of the configuration that it reads; the fields of the
            others have no effect.
        scales_labels: whether learned labels begin at another scale than one-hot minus 1/C.
        depends_on_rate: whether a step's cost depends on batch_size as a share of the training
            images, which a probe must then keep.
        if_not_finite: what a user may change if its numbers overflow, in words.
        label_fields: the fields of `eval` that decide the labels, if it solves for them.
        published_recipe: images per class -> the recipe of the published numbers, in words.
    """

    title: str
    variant: str = ""
    spelled_out: str = ""
    unit: str = "step"
    learns_images: bool = True
    krr_loss: bool = False
    uses_kernel: bool = False
    differentiates: bool = True
    for_networks: bool = False
    freezes_pixels: bool = False
    scales_labels: bool = False
    depends_on_rate: bool = False
    tag: str = "kernel-ridge-regression"
    bibtex: str = KIP_BIBTEX
    sections: tuple[str, ...] = ("optimizer",)
    label_fields: tuple[str, ...] = ()
    if_not_finite: str = "lower optimizer.learning_rate or raise reg"
    published_recipe: Callable[[int], str] = _unstated_recipe

    @property
    def full_title(self) -> str:
        """The full name and the variant: 'Kernel Inducing Points (KIP), Gauss-Newton'."""
        return ", ".join(filter(None, (self.spelled_out or self.title, self.variant)))


@dataclass(frozen=True, eq=False)
class Problem:
    """The inputs from which an algorithm makes its step.

    Attributes:
        config: a valid configuration.
        targets: the training set.
        kernel: kernel(x1, x2) -> (n1, n2), already sharded over the mesh.
        mesh: the devices.
        key: random key of the steps.
    """

    config: ConfigDict
    targets: Targets
    kernel: Kernel
    mesh: Mesh
    key: jax.Array


def default_eval_steps(config: ConfigDict, total: int) -> frozenset[int]:
    """The steps of `eval.steps`, or the published ones, up to `total`, always included."""
    published = {*PUBLISHED_STEPS, *range(1500, total + 1, 500)}
    return frozenset({step for step in (config.eval.steps or published) if step <= total} | {total})


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
