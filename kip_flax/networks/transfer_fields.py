"""The fields of `transfer`: their types, and what they may be."""

from collections.abc import Mapping
from typing import Any

from kip_flax import kernels
from kip_flax.data import coresets
from kip_flax.networks import named, recipe
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

# Baselines of the same size: the images from which a set started, with their own or with solved
# labels; random draws; coresets.
BASELINES = ("initial", "label_solve", "random", *coresets.CORESETS)


def _check(fields: Mapping[str, Any]) -> None:
    for name in fields["transfer.networks"]:
        named.spec_of(str(name), fields["kernel.architecture"], fields["kernel.depth"])
    if not fields["transfer.networks"]:
        raise UserError("transfer.networks is empty: name one network, such as ('kernel',).")
    _check_candidates(fields)
    _check_shares(fields)
    _check_baselines(fields)
    changes = {name.removeprefix("transfer."): value for name, value in fields.items()}
    # The size is not known yet. What fails for a large set is reported; a smaller set fails later.
    recipe.make(fields["transfer.recipe"], recipe.LARGE, changes=changes)


def _check_candidates(fields: Mapping[str, Any]) -> None:
    """Lists of rates and of L2: numbers, at least one."""
    for name, least in (
        ("transfer.learning_rate", "above 0"),
        ("transfer.lr_factor", "above 0"),
        ("transfer.l2", "at least 0"),
    ):
        values = fields[name]
        if values is None:
            continue
        fit = [_number(v) and (v > 0 or (v == 0 and least != "above 0")) for v in values]
        if not values or not all(fit):
            raise UserError(f"{name} is {values}: write numbers {least}, such as (0.1, 1.0).")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_shares(fields: Mapping[str, Any]) -> None:
    for name in ("transfer.average", "transfer.end_rate"):
        if fields[name] is not None and not fields[name] <= 1:
            raise UserError(f"{name} is {fields[name]}: it must lie between 0 and 1.")
    if fields["transfer.average"] == 1:
        raise UserError("transfer.average is 1: the first weights would stay; take 0.99.")
    if not 0 < fields["transfer.held_out"] < 1:
        raise UserError(
            f"transfer.held_out is {fields['transfer.held_out']}: it must lie between 0 and 1."
        )


def _check_baselines(fields: Mapping[str, Any]) -> None:
    for name in fields["transfer.baselines"]:
        if name not in BASELINES:
            allowed = ", ".join(BASELINES)
            raise UserError(f"transfer.baselines names {name!r}: take some of {allowed}, or ().")
    if any(not isinstance(n, int) or n < 1 for n in fields["transfer.ladder"]):
        raise UserError(
            f"transfer.ladder is {fields['transfer.ladder']}: write sizes, such as (10, 100, 1000)."
        )


# Fields of `transfer` that replace those of the recipe unless they are None.
OF_RECIPES: dict[str, type] = {
    "width": int,
    "loss": str,
    "labels": str,
    "augment": str,
    "augment_draw": str,
    "optimizer": str,
    "learning_rate": tuple,
    "lr_factor": tuple,
    "l2": tuple,
    "num_steps": int,
    "batch_size": int,
    "momentum": float,
    "schedule": str,
    "warmup_steps": int,
    "end_rate": float,
    "average": float,
    "label_scale": float,
    "centred": bool,
    "scale_inputs": bool,
    "choice_steps": int,
}

SECTION = Section(
    {
        "transfer.networks": tuple,
        "transfer.recipe": str,
        "transfer.parameterization": str,
        **{f"transfer.{name}": kind for name, kind in OF_RECIPES.items()},
        "transfer.seeds": int,
        "transfer.held_out": float,
        "transfer.ntk_inputs": int,
        "transfer.eval_batch_size": int,
        "transfer.every_steps": int,
        "transfer.baselines": tuple,
        "transfer.ladder": tuple,
    },
    choices={
        "transfer.recipe": recipe.RECIPES,
        "transfer.parameterization": kernels.PARAMETERIZATIONS,
        "transfer.loss": ("mse", "cross_entropy"),
        "transfer.labels": ("soft", "hard"),
        "transfer.augment_draw": ("all", "one"),
        "transfer.optimizer": recipe.OPTIMIZERS,
        "transfer.schedule": ("cosine", "drop"),
    },
    minima={
        "transfer.width": 1,
        "transfer.num_steps": 1,
        "transfer.batch_size": 1,
        "transfer.momentum": 0,
        "transfer.warmup_steps": 0,
        "transfer.end_rate": 0,
        "transfer.average": 0,
        "transfer.choice_steps": 1,
        "transfer.seeds": 1,
        "transfer.ntk_inputs": 1,
        "transfer.eval_batch_size": 1,
        "transfer.every_steps": 1,
    },
    above_zero=("transfer.label_scale",),
    optional=(*(f"transfer.{name}" for name in OF_RECIPES), "transfer.every_steps"),
    check=_check,
)
