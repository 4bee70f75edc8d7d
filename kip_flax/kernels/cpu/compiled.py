"""Decorators that compile the numba functions of this package, and the folder of their code."""

import functools
import hashlib
import os
import pathlib
import stat
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from kip_flax.runtime import hardware
from kip_flax.runtime.errors import UserError

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
    """Folder of the compiled code of this version of the sources, in this place.

    numba only checks the file of the entry function; this name depends on every source file. It
    depends on their folder too, as numba keeps the code of each folder apart. A folder that cannot
    be written would make numba look elsewhere, so the user's own one among the temporary files
    takes its place.

    Raises:
        UserError: that one cannot be written either.
    """
    digest = hashlib.sha256(bytes(pathlib.Path(__file__).resolve().parent))
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    name = f"numba-{digest.hexdigest()[:16]}"
    if _can_be_written(folder := hardware.cache_folder() / name):
        return str(folder)
    own = pathlib.Path(tempfile.gettempdir()) / f"kip_flax-{os.getuid()}"
    if _is_private(own) and _can_be_written(own / name):
        return str(own / name)
    raise UserError(
        f"the compiled kernel can be kept neither in {hardware.cache_folder()} nor in {own}: set "
        f"XDG_CACHE_HOME to a folder that can be written."
    )


def _is_private(folder: pathlib.Path) -> bool:
    """Makes the folder; False unless this user alone can put code there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _can_be_written(folder: pathlib.Path) -> bool:
    """Makes the folder; False if it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def is_cold(*functions: str) -> bool:
    """Whether `code_folder` still lacks the code of any of these entry functions."""
    folder = pathlib.Path(code_folder())
    return not all(any(folder.rglob(f"*.{function}-*.nbi")) for function in functions)
