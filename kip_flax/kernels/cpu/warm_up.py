"""Compiling ahead, so that a run can say what it waits for."""

import time
from collections.abc import Callable

import numpy as np

from kip_flax import architectures as arch
from kip_flax.kernels.band import make_plan
from kip_flax.kernels.cpu import pairs
from kip_flax.kernels.cpu.compiled import cache_folder, is_cold
from kip_flax.kernels.cpu.jacobian import jacobian


def warm_up(say: Callable[[str], None]) -> None:
    """Compiles all that the kernel of float32 images needs, or reads it from the disk.

    The compiled code is the same for all networks and image sizes.
    """
    if not is_cold():
        return _run_all()
    say("compiling the kernel for this CPU: about a minute, on the first run only")
    begin = time.perf_counter()
    _run_all()
    say(f"compiled in {time.perf_counter() - begin:.0f} s; kept in {cache_folder()}")
    return None


def warm_up_jacobian(say: Callable[[str], None]) -> None:
    """The same for the gradients of each pair."""
    if is_cold("tiles_jacobian"):
        say("compiling the kernel's gradients for this CPU, on the first run only")
    programs, x, s = _smallest()
    jacobian(programs, x, s.astype(np.float64) ** 2, x, s, np.ones(2))


def _run_all() -> None:
    """One tiny step with a near-duplicate in it: everything is called once."""
    programs, x, s = _smallest()
    pairs.kernel(programs, x, s, x, s, same=True)
    pairs.gradient(programs, x, s, x, s, np.ones((2, 2, 2)))


def _smallest() -> tuple[pairs.Programs, np.ndarray, np.ndarray]:
    """A small network, two images and their deviations."""
    plan = make_plan(arch.convnet(1), (2, 2, 1), 2**0.5, 0.1, "ntk", 1)
    programs = pairs.make_programs(plan, channels=1, tangent=True)
    x = np.array([[1, 2, 3, 4], [4, -3, 2, 1]], np.float32)
    return programs, x, np.sqrt(pairs.variances(programs, x, np.float32)[0])
