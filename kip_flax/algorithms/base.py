"""Algorithms as the training loop sees them: first state, step, support to export."""

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

from kip_flax import algorithms, architectures, data, export, krr
from kip_flax import config as config_lib
from kip_flax.data import Targets
from kip_flax.kernels import Kernel, KernelOptions
from kip_flax.runtime import sharding

# Steps at which the published sets were written; then every 500.
PUBLISHED_STEPS = (*(0, 1, 2, 4, 6, 8, 12, 18, 26, 37, 54, 78, 112, 162, 233, 335, 483, 695, 1000),)

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


def _unstated_recipe(per_class: int) -> str:
    del per_class
    return "larger batches and longer runs than the configurations here, partly augmented"


@dataclass(frozen=True)
class Facts:
    """What others may ask about an algorithm: its module states it as `FACTS`.

    The defaults are those of an algorithm that states nothing.

    Attributes:
        title: the method's name in tables: 'KIP'.
        variant: how the method is carried out, where there are several ways: 'Gauss-Newton'.
        spelled_out: the name for readers who do not know it yet; '' where `title` is the whole
            name.
        unit: what a step is, in the singular.
        learns_images: whether steps change the images.
        krr_loss: whether its `loss` is the mean squared error of kernel ridge regression.
        uses_kernel: whether its steps consist of kernel entries.
        differentiates: whether its steps take the kernel's gradient.
        tag: of the data-set card: 'kernel-ridge-regression' or 'gradient-matching'.
        bibtex: entries of the papers to cite.
        sections: the optional sections of the configuration that it reads; the fields of the
            others decide nothing.
        published_recipe: images per class -> the recipe of the published figures, in words.
    """

    title: str
    variant: str = ""
    spelled_out: str = ""
    unit: str = "step"
    learns_images: bool = True
    krr_loss: bool = False
    uses_kernel: bool = False
    differentiates: bool = True
    tag: str = "kernel-ridge-regression"
    bibtex: str = KIP_BIBTEX
    sections: tuple[str, ...] = ("optimizer",)
    published_recipe: Callable[[int], str] = _unstated_recipe

    @property
    def full_title(self) -> str:
        """'Kernel Inducing Points (KIP), Gauss-Newton'."""
        return ", ".join(filter(None, (self.spelled_out or self.title, self.variant)))


@dataclass(frozen=True)
class Task:
    """One algorithm on one data set.

    Attributes:
        total: steps of the whole run.
        marks: steps after which the support is evaluated and exported; 0 is implied.
        pairs: kernel entries that a step computes; 0 where it computes none.
        start: () -> the state before the first step.
        step: (state, number) -> the state after step `number` (from 1), and what it measured on its
            targets. The same number always sees the same targets.
        support: state -> images (S, H, W, C) and labels (S, classes) to evaluate and to export.
    """

    total: int
    marks: frozenset[int]
    pairs: int
    start: Callable[[], Any]
    step: Step
    support: Callable[[Any], Support]


@dataclass(frozen=True, eq=False)
class Problem:
    """What an algorithm makes its step from.

    Attributes:
        config: a valid configuration.
        targets: the training set.
        kernel: kernel(x1, x2) -> (n1, n2), over the mesh already.
        mesh: the devices.
        key: of all that is random in the steps.
    """

    config: ConfigDict
    targets: Targets
    kernel: Kernel
    mesh: Mesh
    key: jax.Array


def total_steps(config: ConfigDict, train_size: int) -> int:
    """`num_steps`, unless the algorithm says otherwise."""
    return _of(config, "total_steps", lambda config, train_size: config.num_steps)(
        config, train_size
    )


def marks(config: ConfigDict, total: int) -> frozenset[int]:
    """Steps asked for, or the published ones, as far as the run goes; always the last.

    An algorithm may say otherwise.
    """
    return _of(config, "marks", _marks)(config, total)


def _marks(config: ConfigDict, total: int) -> frozenset[int]:
    published = {*PUBLISHED_STEPS, *range(1500, total + 1, 500)}
    return frozenset({step for step in (config.eval.steps or published) if step <= total} | {total})


def label_targets(config: ConfigDict, train_size: int) -> int:
    """Training images that an evaluation solves for the labels with; 0 unless it does."""
    return _of(config, "label_targets", lambda config, train_size: 0)(config, train_size)


def _of(config: ConfigDict, name: str, otherwise: Any) -> Any:
    """`name` of the configuration's algorithm, which need not have it."""
    return getattr(algorithms.find(config.algorithm), name, otherwise)


def template(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int) -> State:
    """A state with shapes and dtypes in the place of arrays."""
    size = config.support.size
    shapes = (size, *image_shape), (size, num_classes)
    images, labels = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return jax.eval_shape(functools.partial(_first_state, config), images, labels)


def keys(config: ConfigDict) -> tuple[jax.Array, jax.Array]:
    """Keys of a run: of the draw that its support begins with, and of all its steps."""
    key_support, key_steps = jax.random.split(jax.random.key(config.seed))
    return key_support, key_steps


def init_support(config: ConfigDict, targets: Targets, key: jax.Array) -> Support:
    """The support that a run starts from, in the order of the classes.

    'real' draws training images, the same number for every class; 'noise' draws standard normal
    pixels. Labels are one-hot minus 1/classes. A file gives both, in its own order.
    """
    if config_lib.from_a_file(config):
        start = export.load_distilled(config.support.init)
        return jnp.asarray(start.images), jnp.asarray(start.labels)
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

    train_size = len(targets.labels)
    problem = Problem(config, targets, kernel, mesh, key)
    total = total_steps(config, train_size)
    return Task(
        total=total,
        marks=marks(config, total),
        pairs=_of(config, "pairs", lambda config, train_size: 0)(config, train_size),
        start=start,
        step=algorithms.find(config.algorithm).make_step(problem),
        support=_of(config, "make_support", lambda _: lambda state: state.support)(problem),
    )


def prepare(config: ConfigDict, say: Callable[[str], None]) -> None:
    """Compiles ahead what an algorithm needs besides the kernel."""
    _of(config, "prepare", lambda config, say: None)(config, say)


def kernel_options(config: ConfigDict) -> KernelOptions:
    """The kernel that `config` names."""
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
    """What `config.optimizer` says, for a run of `config.num_steps`."""
    return optimizer(**config.optimizer, num_steps=config.num_steps)


def optimizer(
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
    return algorithms.find(config.algorithm).init(config, images, labels)
