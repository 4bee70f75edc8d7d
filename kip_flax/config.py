"""Validation of configurations: one clear error per mistake, before any device is used.

The defaults, and what each field is for, are in `configs/default.py`. The code that reads a section
of fields describes it (`runtime.fields.Section`); those of a run as a whole are described here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from kip_flax import algorithms, architectures, data, kernels, preprocess
from kip_flax.algorithms import kip_solve
from kip_flax.algorithms.base import SUPPORT_DRAWS, check_mirrorable, kernel_options
from kip_flax.data import augment, datasets
from kip_flax.kernels.mirrored import check_mirrored
from kip_flax.networks import named, transfer_fields
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import LARGEST_SEED, Section

# Fields that may differ between a run and its continuation: they decide how long, where and how
# often it computes, but not the results. A name that ends in a dot covers all fields below it.
_FREE = (
    "num_steps",
    "time_limit",
    "mesh.",
    "checkpoint.",
    "eval.",
    "log.",
    "report.",
    "transfer.",
    "kernel.implementation",
    "dataset.data_dir",
)

# Fields that were added later, each with the value that earlier runs implicitly had.
_SINCE: dict[str, Any] = {
    "support.frozen": 0.0,
    "kernel.mirrored": False,
    "dataset.classes": (),
    "dataset.preprocess_from": "",
    "newton.block": 0,
    "newton.growth": 1,
    "rfad.average": 0.0,
    "rfad.schedule": "constant",
    "rfad.debias": False,
    "privacy.start": "noise",
    "privacy.means_share": 0.3,
    "privacy.means_clip": 0.5,
    "eval.label_targets": 10_000,
    "eval.label_loss": "squared_error",
}


def _check(fields: Mapping[str, Any]) -> None:
    frozen = fields["support.frozen"]
    if frozen >= 1:
        raise UserError(f"support.frozen is {frozen}: it is a share of the pixels, below 1.")
    if frozen and not algorithms.facts(fields["algorithm"]).freezes_pixels:
        able = [repr(name) for name in algorithms.NAMES if algorithms.facts(name).freezes_pixels]
        raise UserError(
            f"support.frozen is {frozen} and algorithm {fields['algorithm']!r} freezes no pixels: "
            f"take 0, or algorithm {' or '.join(able)}."
        )
    if fields["support.init"] not in SUPPORT_DRAWS and not names_a_file(fields["support.init"]):
        raise UserError(
            f"support.init is {fields['support.init']!r}: take one of {', '.join(SUPPORT_DRAWS)}, "
            f"or the file of a distilled set (.npz)."
        )
    symmetric = fields["kernel.mirrored"] and algorithms.facts(fields["algorithm"]).uses_kernel
    if symmetric and "flip" in augment.parse(fields["augment"]):
        raise UserError(
            "augment has 'flip', which changes nothing with kernel.mirrored=True: leave it out."
        )
    if any(not _is(step, int) or step < 0 for step in fields["eval.steps"]):
        raise UserError(f"eval.steps is {fields['eval.steps']}: write steps, such as (0, 10, 100).")
    for name in fields["eval.networks"]:
        kernel = fields["kernel.architecture"], fields["kernel.depth"]
        named.check_network("eval.networks", str(name), *kernel)


SECTION = Section(
    {
        "algorithm": str,
        "seed": int,
        "support.size": int,
        "support.init": str,
        "support.learn_labels": bool,
        "support.frozen": float,
        "batch_size": int,
        "num_steps": int,
        "time_limit": float,
        "reg": float,
        "mesh.data": int,
        "mesh.support": int,
        "mesh.cpu_devices": int,
        "checkpoint.every_steps": int,
        "checkpoint.keep": int,
        "eval.steps": tuple,
        "eval.num_test": int,
        "eval.batch_size": int,
        "eval.label_targets": int,
        "eval.label_loss": str,
        "eval.networks": tuple,
        "eval.network_seeds": int,
        "log.every_steps": int,
        "report.num_train": int,
    },
    choices={"eval.label_loss": tuple(kip_solve.LABELLERS)},
    minima={
        "seed": 0,
        "support.size": 1,
        "batch_size": 1,
        "num_steps": 0,
        "time_limit": 0,
        "reg": 0,
        "support.frozen": 0,
        "mesh.cpu_devices": 0,
        "checkpoint.every_steps": 1,
        "checkpoint.keep": 1,
        "eval.num_test": 0,
        "eval.batch_size": 1,
        "eval.label_targets": 0,
        "eval.network_seeds": 1,
        "log.every_steps": 1,
        "report.num_train": 0,
    },
    maxima={"seed": LARGEST_SEED},
    check=_check,
)
SECTIONS = (
    SECTION,
    datasets.SECTION,
    preprocess.SECTION,
    augment.SECTION,
    kernels.SECTION,
    *algorithms.sections().values(),
    transfer_fields.SECTION,
)
FIELDS: dict[str, type] = {
    name: kind for section in SECTIONS for name, kind in section.fields.items()
}


def flatten(config: ConfigDict | dict[str, Any]) -> dict[str, Any]:
    """A nested configuration by dotted names, {'kernel.depth': 3, ...}; lists become tuples."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= {f"{name}.{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[name] = tuple(value) if isinstance(value, list) else value
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`: nested dicts."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split(".")
        inner = nested
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[leaf] = value
    return nested


def identity(config: ConfigDict | dict[str, Any]) -> dict[str, Any]:
    """The fields, by dotted names, that decide what is computed: all but the free ones.

    `num_steps` is one of them if steps depend on it (see `length_decides`), and so are the fields
    that decide solved labels. Optional sections that the algorithm does not read are left out, as
    are later fields at the value of earlier runs.
    """
    flat = flatten(config)
    facts = algorithms.facts(flat["algorithm"])
    read = facts.sections
    idle = tuple(f"{name}." for name in algorithms.sections() if name not in read)
    decide = {"num_steps"} if length_decides(flat) else set()
    if algorithms.known(flat["algorithm"]).labels(flat["support.learn_labels"]) == "solved":
        decide |= set(facts.label_fields)
    return {
        name: value
        for name, value in flat.items()
        if (not name.startswith((*_FREE, *idle)) or name in decide)
        and (name not in _SINCE or value != _SINCE[name])
    }


def length_decides(config: ConfigDict | dict[str, Any]) -> bool:
    """Whether steps depend on `num_steps`, for example by a schedule that ends there."""
    return algorithms.length_decides(flatten(config))


def from_a_file(config: ConfigDict) -> bool:
    """Whether the support starts from the file of a distilled set, not from a draw."""
    return names_a_file(config.support.init)


def hyper_parameters(config: ConfigDict | dict[str, Any]) -> dict[str, int | float | str]:
    """The fields that decide what is computed, as values that TensorBoard can compare.

    Empty texts become 'none', sequences their text.
    """
    return {
        name: value if isinstance(value, int | float) else str(value) or "none"
        for name, value in identity(config).items()
    }


def validate(config: ConfigDict) -> None:
    """Checks everything that can be checked without data or devices.

    Raises:
        UserError: a field is unknown, missing, of a wrong type or out of its range, or contradicts
            another.
    """
    flat = flatten(config)
    sections = list(SECTIONS)
    if isinstance(flat.get("algorithm"), str):
        sections += _foreign_sections(flat["algorithm"])
    known = {name: kind for part in sections for name, kind in part.fields.items()}
    _check_fields(flat, known, {name for part in sections for name in part.optional})
    for name, allowed in _all(part.choices for part in sections):
        if flat[name] is not None and flat[name] not in allowed:
            raise UserError(f"{name} is {flat[name]!r}: take one of {', '.join(allowed)}.")
    for name, minimum in _all(part.minima for part in sections):
        if flat[name] is not None and flat[name] < minimum:
            raise UserError(f"{name} is {flat[name]}: it must be at least {minimum}.")
    for name, maximum in _all(part.maxima for part in sections):
        if flat[name] is not None and flat[name] > maximum:
            raise UserError(f"{name} is {flat[name]}: it must be at most {maximum}.")
    for part in sections:
        for name in part.above_zero:
            if flat[name] is not None and not flat[name] > 0:
                raise UserError(f"{name} is {flat[name]}: it must be above 0.")
    for name, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} is {value}: it must be a finite number.")
    for part in sections:
        if part.check is not None:
            part.check(flat)
    algorithms.find(config.algorithm).check(config)


def _foreign_sections(algorithm: str) -> list[Section]:
    """The fields that a user's own algorithm adds, by its `FIELDS`, its `SECTION` or both."""
    found = algorithms.find(algorithm)
    if algorithm in algorithms.NAMES:
        return []
    return [Section(found.FIELDS), *([] if found.SECTION is None else [found.SECTION])]


def _all(parts: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    return (item for part in parts for item in part.items())


def names_a_file(init: str) -> bool:
    """Whether `support.init` names the file of a distilled set, not a draw."""
    return init.endswith(".npz")


def check_data(config: ConfigDict, dataset: data.Dataset) -> None:
    """Checks the sizes in a valid `config` against the data.

    Raises:
        UserError: the support does not fit the classes or the training set, the algorithm's own
            check fails, or the images are too small for the architecture's pools.
    """
    size, classes, train = config.support.size, dataset.num_classes, len(dataset.train_labels)
    if classes < 2:
        raise UserError(
            f"{dataset.name} has one class ({dataset.class_names[0]}): there must be another to "
            f"tell it from."
        )
    counts = np.bincount(dataset.train_labels, minlength=classes)
    if 0 in counts:
        raise UserError(
            f"{dataset.name} has no training image of class "
            f"{dataset.class_names[int(counts.argmin())]}: classes are numbered from 0 without "
            f"gaps, and each needs images; dataset.classes takes some of them."
        )
    if size % classes:
        raise UserError(
            f"support.size is {size}, which is no multiple of the {classes} classes of "
            f"{dataset.name}: take for example {max(1, round(size / classes)) * classes}."
        )
    if size > train:
        raise UserError(
            f"support.size is {size} and {dataset.name} has {train} training images: take fewer."
        )
    names = augment.parse(config.augment)
    augment.check_effect(names, dataset.image_shape, "augment")
    if "flip" in names:
        check_mirrorable(dataset, "augment", "--config.augment=shift, or leave it empty")
    algorithms.find(config.algorithm).check_data(config, dataset)
    check_kernel(config, dataset)


def check_kernel(config: ConfigDict, dataset: data.Dataset) -> None:
    """Raises UserError if images are too small for the kernel's pools, or cannot be mirrored."""
    options = kernel_options(config)
    height, width, _ = dataset.image_shape
    architectures.spatial_sizes(options.spec, height, width)
    if options.mirrored:
        check_mirrorable(dataset, "kernel.mirrored", "--config.kernel.mirrored=False")
        check_mirrored(options, dataset.image_shape)


def check_same_experiment(saved: dict[str, Any], config: ConfigDict, workdir: str) -> None:
    """Refuses to continue a run under another configuration.

    Args:
        saved: the nested configuration of the checkpoint.
        config: the configuration of this run.
        workdir: named in the error.

    Raises:
        UserError: a field differs that may not; the first one is named, with both values.
    """
    check_same(identity(saved), identity(config), "experiment", workdir)


def check_same(old: dict[str, Any], new: dict[str, Any], kind: str, workdir: str) -> None:
    """Refuses a folder that already holds results of the same kind with other values.

    Args:
        old: the values of the folder, by dotted name.
        new: the values asked for.
        kind: 'experiment', 'transfer', ...
        workdir: the folder.

    Raises:
        UserError: a value differs, or the folder does not say it; the first one is named.
    """
    old, new = flatten(old), flatten(new)  # Tuples in the place of JSON's lists.
    for name in sorted(old.keys() | new.keys()):
        was, now = (values.get(name, _SINCE.get(name)) for values in (old, new))
        if was == now:
            continue
        if name not in old and name not in _SINCE:
            raise UserError(
                f"{workdir} holds another {kind}: it does not say {name}, as older versions did "
                f"not: take another folder."
            )
        raise UserError(
            f"{workdir} holds another {kind}: {name} was {was!r} and is now {now!r}: take "
            f"another folder, or the old value to go on."
        )


def _check_fields(flat: dict[str, Any], known: dict[str, type], optional: set[str]) -> None:
    unknown = _names(flat.keys() - known.keys())
    if unknown:
        raise UserError(f"unknown config field {unknown}: configs/default.py lists all fields.")
    missing = _names(known.keys() - flat.keys())
    if missing:
        raise UserError(f"config without the field {missing}: begin with configs/default.py.")
    for name, kind in known.items():
        if flat[name] is None and name in optional:
            continue
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
