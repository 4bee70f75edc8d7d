"""The modes of `--mode`: one package each, or any module by its dotted name.

A mode describes itself as `MODE`, see `registry.Mode`. The packages here do so in their `__init__`,
which imports nothing slow, so that a mistake in a command is reported at once. The work is in the
package's `mode`, which is loaded when the mode runs.
"""

import importlib

from kip_flax.modes.registry import Command, Mode
from kip_flax.runtime import plugins
from kip_flax.runtime.errors import UserError

__all__ = ["NAMES", "Command", "Mode", "find"]

_ORDER = (
    *("train", "evaluate", "transfer", "predict", "plan", "compare"),
    *("export_set", "import_set", "report", "figures"),
)
# Package of each mode. `import` is a keyword and cannot name one, hence `import_set`.
_PACKAGES = {
    package.name.removesuffix("_set"): package.name
    for package in plugins.modules_in(__path__, _ORDER)
    if package.ispkg
}
NAMES: tuple[str, ...] = tuple(_PACKAGES)


def find(name: str) -> Mode:
    """The mode `name`: one of `NAMES`, or that of any module by its dotted name.

    Raises:
        UserError: there is no such mode, or the module has no `MODE`.
    """
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{_PACKAGES[name]}").MODE
    if "." not in name:
        raise UserError(f"unknown mode {name!r}: --mode is one of {', '.join(NAMES)}.")
    mode = getattr(plugins.find_foreign("mode", name, NAMES, ()), "MODE", None)
    if not isinstance(mode, Mode):
        raise UserError(f"--mode={name}: the module has no MODE, see kip_flax/modes/registry.py.")
    return mode
