"""Compiles the kernel ahead of its first call, so that a run can report why it waits.

numba compiles on one core per process. The float32 code for images and the float64 code for their
near-duplicates have little in common, so another process compiles the latter.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kip_flax import architectures as arch
from kip_flax.kernels.cpu import pairs, threads
from kip_flax.kernels.cpu.compiled import code_folder, is_cold
from kip_flax.kernels.cpu.pair_gradients import pair_gradients
from kip_flax.kernels.options import KernelOptions
from kip_flax.kernels.plan import make_plan

_LAST = ("tiles_backward", "variances_backward")  # The last function compiled in each half.
_PACKAGES = Path(__file__).resolve().parents[3]


def warm_up(say: Callable[[str], None]) -> None:
    """Compiles all code that the kernel of float32 images needs, or reads it from disk.

    The code is the same for all networks and image sizes. If several processes start together, the
    first compiles and the others wait for it. `say` gets a line before and after a compilation.
    """
    if not is_cold(*_LAST):
        return _call_all()
    say("compiling the kernel for this CPU: about a minute, on the first run only")
    begin = time.perf_counter()
    with _one_at_a_time():
        if is_cold(*_LAST) and threads.count() > 1:
            with _in_another_process("call_for_near_duplicates"):
                call_for_images()
        _call_all()
    say(f"compiled in {time.perf_counter() - begin:.0f} s; kept in {code_folder()}")
    return None


def warm_up_jacobian(say: Callable[[str], None]) -> None:
    """Compiles the code of `pair_gradients`, or reads it from disk; `say` gets a line before."""
    if not is_cold("tiles_jacobian"):
        return call_for_pair_gradients()
    say("compiling the kernel's gradients for this CPU, on the first run only")
    with _one_at_a_time():
        return call_for_pair_gradients()


def call_for_pair_gradients() -> None:
    """Computes the gradients of two images, each with the others."""
    programs, x = _smallest()
    variances = pairs.variances(programs, x)[0]
    deviations = np.sqrt(variances.astype(np.float32))
    pair_gradients(programs, x, variances, x, deviations, np.ones(2))


def _call_all() -> None:
    call_for_images()
    call_for_near_duplicates()


def call_for_images() -> None:
    """Computes values and gradients of two different images, which need float32 only."""
    programs, x = _smallest()
    s = np.sqrt(pairs.variances(programs, x, np.float32)[0])
    pairs.kernel(programs, x[:1], s[:1], x[1:], s[1:], same=False)
    pairs.gradient(programs, x[:1], s[:1], x[1:], s[1:], np.ones((2, 1, 1)))


def call_for_near_duplicates() -> None:
    """Computes the same for an image with itself, in float64."""
    programs, x = _smallest()
    here = np.zeros(1, int)
    for _, sides in pairs.near_parts(programs, here, here, x, x):
        pairs.near_values(programs, sides)
        pairs.near_gradient(programs, sides, np.ones((2, 1)))


def _smallest() -> tuple[pairs.Programs, np.ndarray]:
    """A small network and two images."""
    plan = make_plan(KernelOptions(arch.convnet(1), width=1), (2, 2, 1))
    programs = pairs.make_programs(plan, channels=1, tangent=True)
    return programs, np.array([[1, 2, 3, 4], [4, -3, 2, 1]], np.float32)


@contextlib.contextmanager
def _in_another_process(function: str) -> Iterator[subprocess.Popen]:
    """Calls a function of this module in another process during the block, and waits for it.

    If that fails, this process compiles the code later.
    """
    code = f"from kip_flax.kernels.cpu import warm_up; warm_up.{function}()"
    path = os.pathsep.join(filter(None, (str(_PACKAGES), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield process


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    with open(os.path.join(code_folder(), ".lock"), "a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # Without locks, those that start together all compile.
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
