"""How the numba functions of this package are compiled, and where compiled code is kept."""

import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from kip_flax.runtime import hardware

F = TypeVar("F", bound=Callable[..., Any])

_numba: Any = numba  # Its types know neither the option nor what a decorator returns.

# None of these makes arrays, so none counts references to them (`_nrt`): counting would cost each
# call as much as a row of numbers.
inlined: Callable[[F], F] = _numba.njit(_nrt=False, forceinline=True)
# A loop of its own: in the middle of a larger function its constants do not stay in registers.
loop: Callable[[F], F] = _numba.njit(_nrt=False, forceinline=False)
# May make arrays; called once a tile.
rare: Callable[[F], F] = _numba.njit


def entry(function: F) -> F:
    """Compiles functions that Python calls: without the GIL, and cached on disk."""
    return _entry(function, fastmath=False)


def entry_in_any_order(function: F) -> F:
    """The same; sums may be taken in any order, as vectors need it."""
    return _entry(function, fastmath=True)


def _entry(function: F, fastmath: bool) -> F:
    given = _numba.config.CACHE_DIR
    _numba.config.CACHE_DIR = code_folder()
    try:
        return _numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
    finally:
        _numba.config.CACHE_DIR = given


@functools.cache
def code_folder() -> str:
    """Folder of the compiled code of this version of the sources.

    numba checks the file of the entry function alone; this name changes with every source.
    """
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return str(hardware.cache_folder() / f"numba-{digest.hexdigest()[:16]}")


def is_cold(*functions: str) -> bool:
    """Whether one of these entry functions is not kept there yet.

    numba makes the folder itself at import.
    """
    folder = pathlib.Path(code_folder())
    return not all(any(folder.rglob(f"*.{function}-*.nbi")) for function in functions)
