"""The data sets by name: a module for each source, here or a user's own.

A module has

- `NAMES`: the names of its data sets in `dataset.name` (a user's module has its dotted name);
- `read(name, root, image_size) -> Source`: the data set `name` from the files in the folder `root`.

It may have

- `NEEDS_FILES = False`: it reads nothing from `root`;
- `FACTS`: `Facts` by name;
- `data_note(name, root) -> str`: a sentence on how the files differ from the publisher's; or ''.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kip_flax.data.source import Facts
from kip_flax.preprocess import Preprocess
from kip_flax.runtime import plugins

_SOURCES = plugins.modules_in(__path__, ("digits", "mnist", "cifar", "svhn", "folder", "npz"))
_MODULES: dict[str, ModuleType] = {
    name: module
    for module in (importlib.import_module(f"{__name__}.{source.name}") for source in _SOURCES)
    for name in module.NAMES
}
NAMES: tuple[str, ...] = tuple(_MODULES)


def find(name: str) -> ModuleType:
    """The module of the data set `name`: one of `NAMES`, or any module by its dotted name.

    Raises:
        UserError: there is no such module, or it reads no data set.
    """
    if name in _MODULES:
        return _MODULES[name]
    return plugins.find_foreign("dataset.name", name, NAMES, ("read",))


def facts(name: str) -> Facts:
    """The facts about the data set `name`; the defaults of `Facts` for an unknown one.

    It never raises, as the name may come from another's file. For the same reason it does not
    import a user's own module, but uses one that is imported already: reading a file runs no code.
    """
    return _attribute(name, "FACTS", {}).get(name, Facts())


def field_name(name: str) -> str:
    """The name of the data set `name` in the field's evaluators; `name` itself if they lack it."""
    return facts(name).field_name or name


def field_preprocess(name: str, fitted: Preprocess) -> Preprocess:
    """The normalisation of the field's evaluators, as a preprocessing of the kind 'standard'.

    The constants come from the evaluators' code. A data set that they lack gets the mean and the
    standard deviation of `fitted`.
    """
    moments = facts(name).field_moments
    if moments is None:
        return Preprocess("standard", fitted.mean, fitted.std)
    mean, std = (np.asarray(values, np.float32) for values in moments)
    return Preprocess("standard", mean, std)


def data_note(name: str, data_dir: str) -> str:
    """A sentence on how the files in `data_dir` differ from the publisher's, if known; or ''."""
    return _attribute(name, "data_note", lambda name, root: "")(name, Path(data_dir).expanduser())


def _attribute(name: str, attribute: str, otherwise: Any) -> Any:
    module = _MODULES.get(name) or sys.modules.get(name)
    return getattr(module, attribute, otherwise)
