"""The algorithms: one module each, here or anywhere else, named by `config.algorithm`.

`interface.Algorithm` lists what a module has; docs/adding-an-algorithm.md says how to add one.
"""

import pkgutil
import sys
from collections.abc import Mapping
from typing import Any

from kip_flax.algorithms.base import SECTION
from kip_flax.algorithms.interface import Algorithm, Facts
from kip_flax.runtime import plugins
from kip_flax.runtime.fields import Section

NAMES: tuple[str, ...] = tuple(
    module.name
    for module in pkgutil.iter_modules(__path__)
    if module.name not in ("base", "interface") and not module.name.startswith("_")
)


def find(name: str) -> Algorithm:
    """The algorithm `name`: one of `NAMES`, or any module by its dotted name.

    Raises:
        UserError: there is no such module, or it is no algorithm.
    """
    page = "docs/adding-an-algorithm.md"
    needs = ("init", "make_step")
    return Algorithm.of(plugins.find("algorithm", name, __name__, NAMES, needs, page))


def known(name: str) -> Algorithm:
    """The algorithm `name`, or the defaults if it is not known here. Never raises.

    The name may come from someone else's file. So a module that is not one of `NAMES` is used only
    if it is already imported: reading a file runs no code.
    """
    if name in NAMES:
        return find(name)
    module = sys.modules.get(name)
    return Algorithm() if module is None else Algorithm.of(module)


def facts(name: str) -> Facts:
    """The `FACTS` of the algorithm `name`; defaults, with the name as title, if it has none.

    Never raises, see `known`.
    """
    return known(name).FACTS or Facts(title=name)


def length_decides(fields: Mapping[str, Any]) -> bool:
    """Whether steps depend on `num_steps`, so that a run cannot be extended.

    `fields` is a configuration with dotted names; fields newer than the run may be missing.
    """
    name = fields["algorithm"]
    cosine = fields["optimizer.schedule"] != "constant" and "optimizer" in facts(name).sections
    return cosine or known(name).length_decides(fields)


def sections() -> dict[str, Section]:
    """The sections of the configuration that only some algorithms read, by the names in `Facts`."""
    described = (find(name).SECTION for name in NAMES)
    every = (SECTION, *(section for section in described if section is not None))
    return {next(iter(section.fields)).partition(".")[0]: section for section in every}
