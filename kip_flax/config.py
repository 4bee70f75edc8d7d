"""What a configuration may say: one clear error per mistake, before any device is touched.

The defaults live in `configs/default.py`, the names of the fields and their ranges in `fields`.
"""

from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from kip_flax import algorithms, architectures, data, fields
from kip_flax.algorithms import _matching_fields as matching_fields
from kip_flax.data import augment, datasets
from kip_flax.networks import fields as transfer_fields
from kip_flax.runtime.errors import UserError

# What may differ between a run and its continuation: it decides how far, where and how often, not
# what is computed. A name that ends in a dot stands for all fields below it.
_FREE = (
    "num_steps",
    "mesh.",
    "checkpoint.",
    "eval.",
    "log.",
    "report.",
    "transfer.",
    "kernel.implementation",
    "dataset.data_dir",
)


def flatten(config: ConfigDict | dict[str, Any]) -> dict[str, Any]:
    """{'kernel.depth': 3, ...}: a nested configuration with dotted names; tuples for sequences."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= {f"{name}.{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[name] = tuple(value) if isinstance(value, list) else value
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """What `flatten` was given, as nested dicts."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split(".")
        inner = nested
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[leaf] = value
    return nested


def identity(config: ConfigDict | dict[str, Any]) -> dict[str, Any]:
    """The fields, with dotted names, that decide what is computed: all but the free ones.

    A cosine schedule ends at `num_steps`, which belongs to them then. The fields of gradient
    matching and of Gauss-Newton steps decide nothing elsewhere.
    """
    flat = flatten(config)
    newton = flat["algorithm"] == "kip_newton"
    cosine = flat["optimizer.schedule"] == "cosine" and not newton
    idle = ["optimizer." if newton else "newton."]
    if flat["algorithm"] not in matching_fields.ALGORITHMS:
        idle.append("matching.")
    return {
        name: value
        for name, value in flat.items()
        if not name.startswith((*_FREE, *idle)) or (cosine and name == "num_steps")
    }


def labels_are(flat: dict[str, Any]) -> str:
    """How a run of the flat configuration comes to its labels: 'solved', 'learned' or 'fixed'."""
    if flat["algorithm"] in ("ls", "kip_solve"):
        return "solved"
    if not flat["support.learn_labels"]:
        return "fixed"
    return "solved" if flat["algorithm"] == "kip_newton" else "learned"


def from_a_file(config: ConfigDict) -> bool:
    """Whether the support begins as a distilled set, in the place of a draw."""
    return config.support.init.endswith(".npz")


def hyper_parameters(config: ConfigDict | dict[str, Any]) -> dict[str, int | float | str]:
    """The fields that decide what is computed, as values that TensorBoard can compare.

    What names no value (an empty text) and sequences become words.
    """
    return {
        name: value if isinstance(value, int | float) else str(value) or "none"
        for name, value in identity(config).items()
    }


def validate(config: ConfigDict) -> None:
    """Checks all that can be checked without data or devices.

    Raises:
        UserError: a field is unknown, missing, of a wrong type or out of its range.
    """
    flat = flatten(config)
    known = fields.FIELDS
    if isinstance(flat.get("algorithm"), str):  # Fields of its own must be known as well.
        known = known | getattr(algorithms.find(flat["algorithm"]), "FIELDS", {})
    _check_fields(flat, known)
    for name, allowed in fields.CHOICES.items():
        if flat[name] not in allowed:
            raise UserError(f"{name} is {flat[name]!r}: take one of {', '.join(allowed)}.")
    if flat["support.init"] not in fields.SUPPORT_DRAWS and not from_a_file(config):
        raise UserError(
            f"support.init is {config.support.init!r}: take one of "
            f"{', '.join(fields.SUPPORT_DRAWS)}, or the file of a distilled set (.npz)."
        )
    for name, minimum in fields.MINIMA.items():
        if flat[name] < minimum:
            raise UserError(f"{name} is {flat[name]}: it must be at least {minimum}.")
    for name in fields.ABOVE_ZERO:
        if not flat[name] > 0:
            raise UserError(f"{name} is {flat[name]}: it must be above 0.")
    if datasets.SECTION.check is not None:
        datasets.SECTION.check(flat)
    if any(not _is(step, int) or step < 0 for step in config.eval.steps):
        raise UserError(
            f"eval.steps is {tuple(config.eval.steps)}: write steps, such as (0, 10, 100)."
        )
    architectures.build(config.kernel.architecture, config.kernel.depth)
    augment.parse(config.augment)
    matching_fields.check(flat)
    transfer_fields.check(flat)
    own_check = getattr(algorithms.find(config.algorithm), "check", None)
    if own_check is not None:
        own_check(config)


def check_data(config: ConfigDict, dataset: data.Dataset) -> None:
    """Checks the sizes in a valid `config` against the data.

    Raises:
        UserError: the support does not fit the classes or the training set, the algorithm has
            not enough of it, or the images are too small for the architecture's pools.
    """
    size, classes, train = config.support.size, dataset.num_classes, len(dataset.train_labels)
    if size % classes:
        raise UserError(
            f"support.size is {size}, which is no multiple of the {classes} classes of "
            f"{dataset.name}: take for example {max(1, round(size / classes)) * classes}."
        )
    if size > train:
        raise UserError(
            f"support.size is {size} and {dataset.name} has {train} training images: take fewer."
        )
    own_check = getattr(algorithms.find(config.algorithm), "check_data", None)
    if own_check is not None:
        own_check(config, dataset)
    check_pools(config, dataset)


def check_pools(config: ConfigDict, dataset: data.Dataset) -> None:
    """Raises UserError if the images are too small for the architecture's pools."""
    spec = architectures.build(config.kernel.architecture, config.kernel.depth)
    height, width, _ = dataset.image_shape
    architectures.spatial_sizes(spec, height, width)


def check_same_experiment(saved: dict[str, Any], config: ConfigDict, workdir: str) -> None:
    """Refuses to go on with a run under another configuration.

    Args:
        saved: the nested configuration of the checkpoint.
        config: the one of this run.
        workdir: named in the error.

    Raises:
        UserError: naming the first field that differs and may not, with both values.
    """
    check_same(identity(saved), identity(config), "experiment", workdir)


def check_same(old: dict[str, Any], new: dict[str, Any], kind: str, workdir: str) -> None:
    """Refuses a folder that holds something of the same kind with other values.

    Args:
        old: what the folder holds, by dotted name.
        new: what it is asked for.
        kind: 'experiment', 'transfer', ...
        workdir: the folder.

    Raises:
        UserError: naming the first value that differs, the old and the new.
    """
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise UserError(
                f"{workdir} holds another {kind}: {name} was {old.get(name)!r} and is now "
                f"{new.get(name)!r}: take another --workdir, or the old value to go on."
            )


def _check_fields(flat: dict[str, Any], known: dict[str, type]) -> None:
    unknown = _names(flat.keys() - known.keys())
    if unknown:
        raise UserError(f"unknown config field {unknown}: configs/default.py lists all fields.")
    missing = _names(known.keys() - flat.keys())
    if missing:
        raise UserError(f"config without the field {missing}: begin with configs/default.py.")
    for name, kind in known.items():
        if not _is(flat[name], kind):
            raise UserError(
                f"{name} is {flat[name]!r}: it must be of type {kind.__name__}, "
                f"not {type(flat[name]).__name__}."
            )


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
