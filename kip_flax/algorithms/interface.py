"""What an algorithm's module has, what it may have, and what applies where it has less."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import Any, NamedTuple, Self

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax.data import Dataset, Targets
from kip_flax.kernels import Kernel
from kip_flax.runtime.fields import Section

State = Any  # An algorithm's own pytree, with `step` and, in most, `support`.
Step = Callable[[Any, int], tuple[Any, dict[str, jax.Array]]]
Support = tuple[jax.Array, jax.Array]

# Steps at which the published sets were written; then every 500.
PUBLISHED_STEPS = (*(0, 1, 2, 4, 6, 8, 12, 18, 26, 37, 54, 78, 112, 162, 233, 335, 483, 695, 1000),)


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


def _unstated_recipe(images_per_class: int) -> str:
    del images_per_class
    return "by a recipe of their own"


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
            'feature-regression', 'unrolled-training'; '' leaves it out.
        bibtex: entries of the papers to cite; '' if it states none.
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
    tag: str = ""
    bibtex: str = ""
    sections: tuple[str, ...] = ("optimizer",)
    label_fields: tuple[str, ...] = ()
    if_not_finite: str = "lower optimizer.learning_rate or raise reg"
    published_recipe: Callable[[int], str] = _unstated_recipe

    @property
    def unit_alone(self) -> str:
        """The unit without what it is of: 'step', 'tile'."""
        return self.unit.partition(" of ")[0]

    @property
    def name(self) -> str:
        """The title and the variant: 'KIP, Gauss-Newton'."""
        return ", ".join(filter(None, (self.title, self.variant)))

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


def _not_imported(*_: Any) -> Any:
    raise NotImplementedError("the module of this algorithm is not imported.")


def _learned_or_fixed(learn_labels: bool) -> str:
    return "learned" if learn_labels else "fixed"


@dataclass(frozen=True, eq=False)
class Algorithm:
    """The members of an algorithm's module, by their names; the defaults apply where it has none.

    Arguments called `config` are valid configurations, `train_size` is the number of training
    images, `step` and `number` count steps from 1, 0 being the start.

    Attributes:
        init: (config, images (S, H, W, C), labels (S, C)) -> the state before the first step; with
            a fourth parameter `train_size` it gets that too.
        make_step: problem -> step, where step(state, number) -> (state, metrics).
        FACTS: what tables, reports and cards say of it; None: defaults, with the name as title.
        FIELDS: fields that a user's own algorithm adds to the configuration, with their types.
        SECTION: fields as `FIELDS`, with their ranges.
        check: config -> None; raises UserError.
        check_data: (config, dataset) -> None; raises UserError.
        check_beginning: (config, earlier) -> None; raises UserError if a run may not begin, or go
            on, before the steps `earlier`, of which its folder has results.
        total_steps: (config, train_size) -> the steps of a run.
        eval_steps: (config, total) -> the steps after which to evaluate and export.
        pairs: (config, train_size) -> kernel entries of a step; 0 where it computes none.
        label_targets: (config, train_size) -> training images that an evaluation solves for the
            labels with; 0 if they are not solved.
        make_support: problem -> (state -> support).
        prepare: (config, say) -> None; compiles what steps need besides the kernel.
        labels: learn_labels -> how it obtains the labels: 'learned', 'fixed' or 'solved'.
        labels_changed: (learn_labels, step) -> whether published names count the labels of the set
            after a step as changed ones.
        published_step: step -> the number in the published name of the set.
        declared: (config, train_size, step) -> the statement of a set about the privacy of its
            training images: {}, or 'epsilon' (None: unbounded), 'delta', 'steps', 'sampling_rate',
            'noise_multiplier', 'clip', 'neighbours', 'accountant' and 'not_covered'.
        length_decides: fields -> whether steps depend on `num_steps` for another reason than the
            optimiser's schedule; `fields` may lack those newer than the run.
        batch_size: (config, number) -> the targets of a step.
        kept_rows: (config, train_size) -> the targets whose kernel with the support is kept.
        kept_gradients: (config, image_shape (H, W, C), most targets of a step, devices that share
            them) -> the pairwise gradients that a step keeps; zeros if it keeps only their sum.
    """

    init: Callable[..., State] = _not_imported
    make_step: Callable[[Problem], Step] = _not_imported
    FACTS: Facts | None = None
    FIELDS: Mapping[str, Any] = field(default_factory=dict)
    SECTION: Section | None = None
    check: Callable[[ConfigDict], None] = lambda config: None
    check_data: Callable[[ConfigDict, Dataset], None] = lambda config, dataset: None
    check_beginning: Callable[[ConfigDict, Collection[int]], None] = lambda config, earlier: None
    total_steps: Callable[[ConfigDict, int], int] = lambda config, train_size: config.num_steps
    eval_steps: Callable[[ConfigDict, int], frozenset[int]] = default_eval_steps
    pairs: Callable[[ConfigDict, int], int] = lambda config, train_size: 0
    label_targets: Callable[[ConfigDict, int], int] = lambda config, train_size: 0
    make_support: Callable[[Problem], Callable[[State], Support]] = lambda problem: (
        lambda state: state.support
    )
    prepare: Callable[[ConfigDict, Callable[[str], None]], None] = lambda config, say: None
    labels: Callable[[bool], str] = _learned_or_fixed
    labels_changed: Callable[[bool, int], bool] = lambda learn_labels, step: learn_labels
    published_step: Callable[[int], int] = lambda step: step
    declared: Callable[[ConfigDict, int, int], dict[str, Any]] = lambda config, train_size, step: {}
    length_decides: Callable[[Mapping[str, Any]], bool] = lambda fields: False
    batch_size: Callable[[ConfigDict, int], int] = lambda config, number: config.batch_size
    kept_rows: Callable[[ConfigDict, int], KeptRows] = lambda config, train_size: KeptRows(0)
    kept_gradients: Callable[[ConfigDict, tuple[int, ...], int, int], KeptGradients] = (
        lambda config, image_shape, targets, devices: KeptGradients(0, 0)
    )

    @classmethod
    def of(cls, module: ModuleType) -> Self:
        """The members that `module` has, and the defaults of the others."""
        names = [member.name for member in fields(cls) if hasattr(module, member.name)]
        return cls(**{name: getattr(module, name) for name in names})
