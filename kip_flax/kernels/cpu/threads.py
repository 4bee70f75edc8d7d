"""Tasks on all cores: one pool of threads for the process, however many devices call."""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def count() -> int:
    """Threads: the cores this process may use, or fewer where NUMBA_NUM_THREADS says so.

    A launcher that starts several processes on one machine gives each its share: by affinity, as
    SLURM does, or with that variable.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # Not on every system.
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(os.environ.get("NUMBA_NUM_THREADS", cores))))


def run(task: Callable[..., Any], arguments: Iterable[tuple]) -> list[Any]:
    """`task(*a)` for all a, in parallel; results in order, and the first error raised."""
    return [future.result() for future in [_pool().submit(task, *a) for a in arguments]]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count(), thread_name_prefix="kernel")
