"""Atomic writes, locks, and npz files without pickles."""

import contextlib
import fcntl
import io
import json
import os
import platform
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax.runtime.errors import UserError

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # As `write_bytes_atomic` names them.
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all, and creates the folder if it is missing.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {path}: {reason}; free space there or take another folder."
        ) from error


def remove_temporaries(folder: str | os.PathLike[str], lock: str) -> None:
    """Removes the temporary files that a killed process left in `folder` and its subfolders.

    Subfolders with a file named `lock` are left alone, as another process may write there, and so
    are files that a process of this machine may be writing.
    """
    folder = Path(folder)
    own = [path for path in folder.glob("*/") if not os.path.exists(path / lock)]
    for each in (folder, *own):
        for left in each.glob(".*.tmp"):
            match = _TEMPORARY.fullmatch(left.name)
            if match and not _lives(int(match[1])) and left.is_file():
                left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Whether another process of this machine has this number."""
    if process == os.getpid():
        return False
    try:
        with contextlib.suppress(PermissionError):
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Locks the file `path` and writes the holder into it; the lock ends with the process.

    The folder of the file is made if there is none.

    Raises:
        UserError: another process holds the lock on `what`, or the file cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; take another folder.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{what} is in use by another run ({file.read().strip() or 'just started'}): wait "
                f"until it ends, or take another folder."
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot lock {path}: {error.strerror}; take a folder on a disk that has locks."
            ) from None
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; free space or take another folder."
            ) from None
        yield


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes `obj` as indented JSON, atomically; UserError if the file cannot be written."""
    write_bytes_atomic(path, (json.dumps(obj, indent=2) + "\n").encode())


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz without pickles, atomically; the same arrays give the same bytes."""
    write_bytes_atomic(path, npz_bytes(arrays))


def is_utf8(name: str) -> bool:
    """Whether the bytes of a file's name on the disk are text."""
    return name == name.encode(errors="replace").decode()


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an npz; UserError if it is missing, damaged or holds pickles."""
    try:
        with open(path, "rb") as file:  # np.load leaves a broken file open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("one array instead of an archive of arrays")
            arrays = {key: loaded[key] for key in loaded.files}
            for key, value in arrays.items():
                if not isinstance(value, np.ndarray):  # The bytes of a member that is no .npy.
                    raise ValueError(f"{key!r} is no array")
            return arrays
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: name an .npz file that does.") from None
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder and not a whole npz file: name one in it or below."
        ) from None
    except _UNREADABLE as error:
        line = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a whole npz file of plain arrays ({line}): take another copy of it."
        ) from error


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An npz without pickles; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
