"""How networks are trained on a set, and how both are named in `transfer`'s fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kip_flax import architectures, kernels
from kip_flax.data import augment, coresets
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

# Real images to compare a set with: those that it began with, with their own labels or with solved
# ones; draws; coresets.
BASELINES = ("initial", "label_solve", "random", *coresets.CORESETS)
KRR = "krr"  # Stands among the networks for kernel ridge regression.


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        loss: 'mse', 0.5 * mean((f - y)^2), or 'cross_entropy'.
        num_steps: of the whole training; the rate is 0 after them.
        batch_size: images of a step, drawn without replacement; all images if there are no more.
        momentum: of the gradient descent.
        augments: names from `augment`, applied to every batch.
        augment_draw: 'all' of them, or 'one', drawn for every batch (see `augment.one_of`).
    """

    loss: str
    num_steps: int
    batch_size: int
    momentum: float
    augments: tuple[str, ...] = ()
    augment_draw: str = "all"


def is_kernel(name: str) -> bool:
    """Whether a name in `transfer.networks` is kernel ridge regression: 'krr', 'krr:fc:1' ..."""
    return name.partition(":")[0] == KRR


def spec_of(name: str, architecture: str, depth: int) -> architectures.Spec | None:
    """The description that a name in `transfer.networks` stands for; None for one without.

    'kernel' is the kernel's own (`architecture`, `depth`), 'convnet:3' any other. Those of the zoo
    have none, nor have 'krr' and 'krr:fc:1', which are no networks.

    Raises:
        UserError: there is no such network.
    """
    kind, _, number = name.partition(":")
    if is_kernel(name) and name != KRR:
        _, _, name = name.partition(":")
        kind, _, number = name.partition(":")
        if _is_architecture(kind) and number.isdigit():
            architectures.build(kind, int(number))
            return None
        raise UserError(
            f"unknown kernel {KRR}:{name}: write {KRR}, or for example {KRR}:convnet:3 with one of "
            f"{', '.join(architectures.ARCHITECTURES)} and its depth."
        )
    if name == "kernel":
        return architectures.build(architecture, depth)
    if _is_architecture(kind) and number.isdigit():
        return architectures.build(kind, int(number))
    if name == KRR:
        return None
    from kip_flax.networks import zoo  # Flax's modules take a second to load.

    if name not in zoo.ZOO:
        others = ", ".join(f"{kind}:DEPTH" for kind in architectures.ARCHITECTURES)
        raise UserError(
            f"unknown network {name!r}: transfer.networks takes {KRR}, kernel, {others}, "
            f"{', '.join(zoo.ZOO)}."
        )
    return None


def _check(fields: Mapping[str, Any]) -> None:
    for name in fields["transfer.networks"]:
        spec_of(str(name), fields["kernel.architecture"], fields["kernel.depth"])
    if not fields["transfer.networks"]:
        raise UserError("transfer.networks is empty: name one network, such as ('kernel',).")
    augment.parse(fields["transfer.augment"])
    for name, least in (("transfer.lr_factor", "above 0"), ("transfer.l2", "at least 0")):
        values = fields[name]
        fit = [_number(v) and (v > 0 or (v == 0 and least != "above 0")) for v in values]
        if not values or not all(fit):
            raise UserError(f"{name} is {values}: write numbers {least}, such as (0.1, 1.0).")
    if not 0 < fields["transfer.held_out"] < 1:
        raise UserError(
            f"transfer.held_out is {fields['transfer.held_out']}: it must lie between 0 and 1."
        )
    for name in fields["transfer.baselines"]:
        if name not in BASELINES:
            allowed = ", ".join(BASELINES)
            raise UserError(f"transfer.baselines names {name!r}: take some of {allowed}, or ().")
    if any(not isinstance(n, int) or n < 1 for n in fields["transfer.ladder"]):
        raise UserError(
            f"transfer.ladder is {fields['transfer.ladder']}: write sizes, such as (10, 100, 1000)."
        )


def _is_architecture(kind: str) -> bool:
    return kind in architectures.ARCHITECTURES or "." in kind


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


SECTION = Section(
    {
        "transfer.networks": tuple,
        "transfer.width": int,
        "transfer.parameterization": str,
        "transfer.loss": str,
        "transfer.labels": str,
        "transfer.augment": str,
        "transfer.augment_draw": str,
        "transfer.num_steps": int,
        "transfer.batch_size": int,
        "transfer.momentum": float,
        "transfer.lr_factor": tuple,
        "transfer.l2": tuple,
        "transfer.seeds": int,
        "transfer.held_out": float,
        "transfer.ntk_inputs": int,
        "transfer.eval_batch_size": int,
        "transfer.every_steps": int,
        "transfer.baselines": tuple,
        "transfer.ladder": tuple,
    },
    choices={
        "transfer.parameterization": kernels.PARAMETERIZATIONS,
        "transfer.loss": ("mse", "cross_entropy"),
        "transfer.labels": ("soft", "hard"),
        "transfer.augment_draw": ("all", "one"),
    },
    minima={
        "transfer.width": 1,
        "transfer.num_steps": 1,
        "transfer.batch_size": 1,
        "transfer.momentum": 0,
        "transfer.seeds": 1,
        "transfer.ntk_inputs": 1,
        "transfer.eval_batch_size": 1,
        "transfer.every_steps": 1,
    },
    check=_check,
)
