"""The hardware and software that a program runs on, and its cache folder."""

import contextlib
import math
import os
import platform
import stat
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from kip_flax import __version__
from kip_flax.runtime.errors import UserError

_CONTROL = Path("/sys/fs/cgroup")
_MEMORY = (  # Limit, use and statistics of a control group, by version 2 and version 1.
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        *("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
        "total_inactive_file",
    ),
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def hardware() -> str:
    """The devices in use in words, such as '2 x cpu (AMD EPYC 7B13, 2 cores)'."""
    import jax

    device = jax.devices()[0]
    name = device.device_kind
    if device.platform == "cpu":
        name = f"{_processor()}, {usable_cores()} cores"
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{jax.device_count()} x {device.platform} ({name}){processes}"


def usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Cores that the control group gives its processes, as `docker --cpus=2` does; inf: all."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            words = " ".join((_CONTROL / name).read_text() for name in files).split()
            quota, period = (math.inf if word in ("max", "-1") else float(word) for word in words)
            return quota / period
    return math.inf


def free_memory() -> int:
    """Bytes of free memory on the host, or fewer if a container has a limit."""
    return min(_available(), _left_of_container())


def _available() -> int:
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _left_of_container() -> int:
    """Bytes that the control group still gives its processes, as `docker --memory=4g` does.

    Files that are kept in memory count as free. `sys.maxsize` if there is no limit.
    """
    for limit, used, statistics, cache in _MEMORY:
        with contextlib.suppress(OSError, ValueError):
            most, now = (int((_CONTROL / name).read_text()) for name in (limit, used))
            words = (_CONTROL / statistics).read_text().split()
            return max(0, most - now + int(words[words.index(cache) + 1]))
    return sys.maxsize


def versions() -> dict[str, str]:
    """Versions of this program and of the packages that its numbers depend on."""
    ours = {"kip_flax": __version__, "python": platform.python_version()}
    return ours | {name: metadata.version(name) for name in _PACKAGES}


def cache_folder() -> Path:
    """The folder for compiled programs, under XDG_CACHE_HOME or ~/.cache; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "kip_flax"


def writable_cache_folder(name: str = "") -> Path:
    """`cache_folder`, or the folder `name` in it; it is made.

    Where it cannot be written, the user's own one among the temporary files takes its place.

    Raises:
        UserError: that one cannot be written either.
    """
    if _can_be_written(folder := cache_folder() / name):
        return folder
    own = Path(tempfile.gettempdir()) / f"kip_flax-{os.getuid()}"
    if _is_private(own) and _can_be_written(own / name):
        return own / name
    raise UserError(
        f"compiled code can be kept neither in {cache_folder()} nor in {own}: set "
        f"XDG_CACHE_HOME to a folder that can be written."
    )


def _is_private(folder: Path) -> bool:
    """Makes the folder; False unless this user alone can put code there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _can_be_written(folder: Path) -> bool:
    """Makes the folder; False if it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
