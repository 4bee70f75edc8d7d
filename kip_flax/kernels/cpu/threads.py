"""Tasks on all cores: one pool of threads for the process, however many devices call."""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kip_flax.runtime import hardware


def count() -> int:
    """Number of threads: the cores this process may use, or NUMBA_NUM_THREADS if that is less.

    A launcher of several processes on one machine gives each its share by affinity, as SLURM does,
    or by that variable.
    """
    cores = hardware.usable_cores()
    return max(1, min(cores, int(os.environ.get("NUMBA_NUM_THREADS", cores))))


def run(task: Callable[..., Any], arguments: Iterable[tuple]) -> list[Any]:
    """Results of `task(*a)` for all a, in order, computed in parallel; raises the first error."""
    return [future.result() for future in [_pool().submit(task, *a) for a in arguments]]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count(), thread_name_prefix="kernel")
