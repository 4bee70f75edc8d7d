"""The algorithms: each is one module here, or anywhere, named by `config.algorithm`.

A module has `init(config, images, labels) -> state` and `make_step(problem) -> step`, where
`step(state, number) -> (state, metrics)`, and may have what `tasks` and `config` ask it for
besides; docs/adding-an-algorithm.md says what.
"""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from kip_flax.runtime.errors import UserError

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
    if name in NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    try:
        found = "." in name and importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise UserError(
            f"algorithm is {name!r}: take one of {', '.join(NAMES)}, or a module of your own by "
            f"its dotted name."
        )
    module = importlib.import_module(name)
    lacking = [part for part in ("init", "make_step") if not hasattr(module, part)]
    if lacking:
        raise UserError(
            f"algorithm is {name!r}, which has no {' and no '.join(lacking)}: see "
            f"docs/adding-an-algorithm.md."
        )
    return module
