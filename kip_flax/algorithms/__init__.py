"""The algorithms: one module each, here or anywhere else, named by `config.algorithm`.

A module has `init(config, images, labels) -> state` and `make_step(problem) -> step`, where
`step(state, number) -> (state, metrics)`. It may also have the optional members that `runs.setup`,
`config` and the functions here look up; docs/adding-an-algorithm.md lists them.
"""

import pkgutil
import sys
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from kip_flax.algorithms.base import SECTION, Facts, KeptGradients, KeptRows
from kip_flax.runtime import plugins
from kip_flax.runtime.fields import Section

NAMES: tuple[str, ...] = tuple(
    module.name
    for module in pkgutil.iter_modules(__path__)
    if module.name != "base" and not module.name.startswith("_")
)


def find(name: str) -> ModuleType:
    """The module of the algorithm `name`: one of `NAMES`, or any module by its dotted name.

    Raises:
        UserError: there is no such module, or it is no algorithm.
    """
    page = "docs/adding-an-algorithm.md"
    return plugins.find("algorithm", name, __name__, NAMES, ("init", "make_step"), page)


def facts(name: str) -> Facts:
    """The `FACTS` of the algorithm `name`; defaults, with the name as title, if it has none.

    Never raises, as the name may come from someone else's file. For the same reason a module that
    is not one of `NAMES` is used only if it is already imported: reading a file runs no code.
    """
    return _hook(name, "FACTS", None) or Facts(title=name)


def labels(name: str, learn_labels: bool) -> str:
    """How the algorithm obtains the labels of a set: 'learned', 'fixed' or 'solved'.

    Args:
        name: the algorithm, as for `facts`.
        learn_labels: the field `support.learn_labels`.
    """
    return _hook(name, "labels", _labels)(learn_labels)


def labels_changed(name: str, learn_labels: bool, step: int) -> bool:
    """Whether published names count the labels of the set after `step` steps as changed ones."""
    return _hook(name, "labels_changed", _labels_changed)(learn_labels, step)


def published_step(name: str, step: int) -> int:
    """The number in the published name of the set after `step` steps."""
    return _hook(name, "published_step", _published_step)(step)


def kept_gradients(
    config: ConfigDict, image_shape: tuple[int, ...], targets: int, devices: int
) -> KeptGradients:
    """The pairwise gradients that a step keeps; zeros if it keeps only their sum.

    Args:
        config: a valid configuration.
        image_shape: (H, W, C).
        targets: the most targets of a step.
        devices: those that share the targets (the mesh's 'data').
    """
    hook = _hook(config.algorithm, "kept_gradients", _no_gradients)
    return hook(config, image_shape, targets, devices)


def _no_gradients(*_: Any) -> KeptGradients:
    return KeptGradients(0, 0)


def kept_rows(config: ConfigDict, train_size: int) -> KeptRows:
    """The targets whose kernel with the support is kept until labels are solved for; or none."""
    return _hook(config.algorithm, "kept_rows", lambda *_: KeptRows(0))(config, train_size)


def length_decides(fields: Mapping[str, Any]) -> bool:
    """Whether steps depend on `num_steps`, so that a run cannot be extended.

    `fields` is a configuration with dotted names; fields newer than the run may be missing.
    """
    name = fields["algorithm"]
    cosine = fields["optimizer.schedule"] != "constant" and "optimizer" in facts(name).sections
    return cosine or _hook(name, "length_decides", lambda fields: False)(fields)


def batch_size(config: ConfigDict, number: int) -> int:
    """The number of targets in step `number` (from 1)."""
    return _hook(config.algorithm, "batch_size", lambda config, _: config.batch_size)(
        config, number
    )


def check_beginning(config: ConfigDict, earlier: Collection[int]) -> None:
    """Raises UserError if a run may not begin in a folder that has sets of the steps `earlier`."""
    _hook(config.algorithm, "check_beginning", lambda *_: None)(config, earlier)


def declared(config: ConfigDict, train_size: int, step: int) -> dict[str, Any]:
    """The statement of a set after `step` steps about the privacy of its training images.

    {} unless the algorithm protects them; else with 'epsilon' (None: unbounded), 'delta', 'steps',
    'sampling_rate', 'noise_multiplier', 'clip', 'neighbours', 'accountant' and 'not_covered'.
    """
    return _hook(config.algorithm, "declared", lambda *_: {})(config, train_size, step)


def sections() -> dict[str, Section]:
    """The sections of the configuration that only some algorithms read, by the names in `Facts`.

    An algorithm describes its own as `SECTION`.
    """
    described = (getattr(find(name), "SECTION", None) for name in NAMES)
    every = (SECTION, *(section for section in described if section is not None))
    return {next(iter(section.fields)).partition(".")[0]: section for section in every}


def _labels(learn_labels: bool) -> str:
    return "learned" if learn_labels else "fixed"


def _labels_changed(learn_labels: bool, step: int) -> bool:
    del step
    return learn_labels


def _published_step(step: int) -> int:
    return step


def _hook(name: str, hook: str, otherwise: Any) -> Any:
    module = find(name) if name in NAMES else sys.modules.get(name)
    return getattr(module, hook, otherwise)
