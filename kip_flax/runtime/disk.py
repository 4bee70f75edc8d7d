"""Full and unwritable disks: turns the errors of libraries into one message."""

import contextlib
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from absl import logging as absl_logging

from kip_flax.runtime.errors import UserError

# An error of the operating system in the messages of TensorStore, which Orbax uses.
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
# Bytes of a checkpoint besides its arrays, at most.
_OVERHEAD = 1 << 18


def check_space(folder: str, size: int) -> None:
    """Raises UserError unless a checkpoint with arrays of `size` bytes has room in `folder`.

    It is called first, because a failing save prints errors from several threads.
    """
    needed = size + _OVERHEAD
    left = shutil.disk_usage(folder).free
    if left < needed:
        raise _unwritable(folder, f"{left >> 10} KiB are left and {needed >> 10} are needed")


@contextlib.contextmanager
def writing(folder: str) -> Iterator[None]:
    """Turns the errors of writing a checkpoint to `folder` into a UserError."""
    try:
        yield
    except TimeoutError:  # Another process is missing; the disk is not the cause.
        raise
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        if found := _OS_ERROR.search(str(error)):
            number = int(found[1])
        if number is None:
            raise
        raise _unwritable(folder, os.strerror(number)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Orbax's duplicate thread errors; the next call re-raises them.

    The threads log an error through absl and asyncio. TensorStore's callbacks, and coroutines that
    never run, hand it to Python's hooks for uncaught errors.
    """

    def uncaught(kind: type[BaseException], error: BaseException | None, *rest: Any) -> None:
        absl_logging.info("in a thread: %s", error)

    def unraisable(unraised: Any) -> None:
        absl_logging.info("in a thread: %s", unraised.exc_value)

    asyncio = logging.getLogger("asyncio")
    asyncio.addFilter(_not_of_orbax)  # It stays: tasks log an error when they are collected.
    before = asyncio.level, sys.excepthook, sys.unraisablehook
    asyncio.setLevel(logging.CRITICAL)
    sys.excepthook, sys.unraisablehook = uncaught, unraisable
    try:
        with unlogged("orbax"):
            yield
    finally:
        asyncio.setLevel(before[0])
        sys.excepthook, sys.unraisablehook = before[1:]


def _not_of_orbax(record: logging.LogRecord) -> bool:
    trace = record.exc_info[2] if record.exc_info else None
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    return not any("/orbax/" in file for file in files)


@contextlib.contextmanager
def unlogged(package: str) -> Iterator[None]:
    """Drops the errors that `package` logs through absl, because it raises them as well."""

    def passes(record: logging.LogRecord) -> bool:
        return f"/{package}/" not in record.pathname or record.levelno != logging.ERROR

    logger = absl_logging.get_absl_logger()
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def _unwritable(folder: str, reason: str) -> UserError:
    return UserError(
        f"cannot write a checkpoint to {folder} ({reason}): free space there; the same command "
        f"goes on from the last whole one."
    )
