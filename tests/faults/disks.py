"""Small disks for tests: a tmpfs that can be filled, emptied and made read-only."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SIZE = "4m"


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
        return mounted and _run("umount", folder)


@contextlib.contextmanager
def room(folder: Path, mounted: bool) -> Iterator[Path]:
    """A folder, on a disk of its own where `mounted`; gone in the end."""
    folder.mkdir()
    if mounted:
        assert _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        if mounted:
            assert _run("umount", str(folder))
        shutil.rmtree(folder)


def fill(folder: Path, leave: int = 0) -> Path:
    """Fills the disk of `folder` but for `leave` bytes; the file that does it."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, max(0, filler.stat().st_size - leave))
    return filler


def read_only(folder: Path, yes: bool) -> bool:
    """Makes the disk read-only, or writable again; False where files open for writing forbid it."""
    return _run("mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(folder))


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
