"""Decorators that compile the numba functions of this package, and the folder of their code."""

import functools
import hashlib
import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import binding

from kip_flax.runtime import hardware

F = TypeVar("F", bound=Callable[..., Any])

_numba: Any = numba  # Its types lack `_nrt` and what the decorators return.

# These functions make no arrays, so they do not count references (`_nrt`): that would cost each
# call as much as a row of numbers.
inlined: Callable[[F], F] = _numba.njit(_nrt=False, forceinline=True)
# For loops: inside a larger function their constants would not stay in registers.
loop: Callable[[F], F] = _numba.njit(_nrt=False, forceinline=False)
# For functions that may make arrays; they are called once per tile.
rare: Callable[[F], F] = _numba.njit


def entry(function: F) -> F:
    """Compiles a function that Python calls: it runs without the GIL and is cached on disk."""
    return _entry(function, fastmath=False)


def entry_in_any_order(function: F) -> F:
    """Like `entry`, but sums may be reordered, which vectorisation needs."""
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
    """Folder of the compiled code of this version of the sources, in this place, on this machine.

    numba only checks the file of the entry function; this name depends on every source file. It
    depends on what else makes numba compile anew, so that code in the folder is code that can be
    used: their folder and times, processor, Python and numba. A folder that cannot be written would
    make numba look elsewhere, so it may lie among the temporary files.

    Raises:
        UserError: that one cannot be written either.
    """
    machine = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    versions = sys.version_info[:2], numba.__version__
    folder = pathlib.Path(__file__).resolve().parent
    digest = hashlib.sha256(repr((folder, machine, versions)).encode(errors="surrogateescape"))
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes() + repr(path.stat().st_mtime_ns).encode())
    return str(hardware.writable_cache_folder(f"numba-{digest.hexdigest()[:16]}"))


def is_cold(*functions: str) -> bool:
    """Whether `code_folder` still lacks the code of any of these entry functions."""
    folder = pathlib.Path(code_folder())
    return not all(any(folder.rglob(f"*.{function}-*.nbi")) for function in functions)
