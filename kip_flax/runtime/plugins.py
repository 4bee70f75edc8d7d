"""Modules by name: those of this program, and a user's own by their dotted names."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Sequence
from pkgutil import ModuleInfo
from types import ModuleType

from kip_flax.runtime.errors import UserError

_PAGE = "docs/architecture.md"


def modules_in(folders: Iterable[str], order: Sequence[str]) -> list[ModuleInfo]:
    """The modules and packages in `folders`: those of `order` in that order, then the others.

    Args:
        folders: the `__path__` of a package.
        order: names in the order that people see. A module that is not listed is found too.
    """

    def place(module: ModuleInfo) -> tuple[int, str]:
        listed = module.name in order
        return (order.index(module.name) if listed else len(order)), module.name

    return sorted(pkgutil.iter_modules(folders), key=place)


def find(
    kind: str,
    name: str,
    package: str,
    names: Sequence[str],
    needs: Iterable[str],
    page: str = _PAGE,
) -> ModuleType:
    """The module called `name`: one of `names` in `package`, or any module by its dotted name.

    Args:
        kind: the field that has the name, for messages, such as 'algorithm' or 'dataset.name'.
        name: what to look for.
        package: dotted name of the package with the built-in modules.
        names: of the built-in modules.
        needs: attributes that a module must have.
        page: page of the documentation on what a module needs, for messages.

    Raises:
        UserError: there is no such module, or it lacks an attribute.
    """
    if name in names:
        return importlib.import_module(f"{package}.{name}")
    return find_foreign(kind, name, names, needs, page)


def find_foreign(
    kind: str, name: str, names: Iterable[str], needs: Iterable[str], page: str = _PAGE
) -> ModuleType:
    """A user's own module by its dotted name; `names` are built in and only listed in messages.

    Raises:
        UserError: there is no such module, or it lacks an attribute of `needs`.
    """
    try:
        module = importlib.import_module(name) if _may_be_found(name) else None
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise UserError(f"{kind} is {name!r}, which cannot be imported: {error}.") from error
        module = None
    if module is None:
        raise UserError(
            f"{kind} is {name!r}: take one of {', '.join(names)}, or a module of your own by "
            f"its dotted name."
        )
    lacking = [part for part in needs if not hasattr(module, part)]
    if lacking:
        raise UserError(f"{kind} is {name!r}, which has no {' and no '.join(lacking)}: see {page}.")
    return module


def _may_be_found(name: str) -> bool:
    """Whether a dotted name leads to a module; raises what importing its packages raises."""
    if "." not in name or name.startswith("."):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError as error:  # A module without a spec, as `__main__` is.
        if isinstance(error, UserError):
            raise
        return False
