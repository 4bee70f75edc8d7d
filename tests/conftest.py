"""Four CPU devices and float64 solves, set before JAX looks at its devices.

Most of the time goes into compiling programs that run once or twice. LLVM leaves out optimisations,
XLA takes its older code for fused operations, and a program is one module, unless XLA_FLAGS says
otherwise as in run_slow.sh (docs/what-was-tried.md). The processes that tests start do the same.
Runs of equal shape find what was compiled in a cache for the session, which workers share.
"""

import gc
import os
import tempfile

import jax
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels import jacobian
from kip_flax.runtime import sharding

_CACHE = "KIP_FLAX_TESTS_CACHE"
if _CACHE not in os.environ:  # The first process; its workers inherit the name.
    _FOLDER = tempfile.TemporaryDirectory(prefix="kip_flax_tests_")  # Removed when Python ends.
    os.environ[_CACHE] = _FOLDER.name

sharding.add_xla_flags(
    {
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": "false",
        "xla_cpu_parallel_codegen_split_count": 1,
    }
)
sharding.prepare_cpu_devices()
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

from made_sets import exported  # noqa: E402, F401
from made_transfers import files  # noqa: E402, F401
from own_modules import own_module  # noqa: E402, F401
from whole_runs import digits, quick_kernels, undisturbed  # noqa: E402, F401  (after the settings above)

# Tracing makes many objects; to look among all of them for cycles took an eighth of the time.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 10, 10)


OPTIONS = kernels.KernelOptions(arch.convnet(1), implementation="cpu")


def pytest_sessionstart(session):
    """On a new machine the kernel is compiled before workers start, on both cores.

    Left to their first calls, all would compile the same, each on a core of its own.
    """
    if session.config.getoption("numprocesses", None) and not hasattr(
        session.config, "workerinput"
    ):
        kernels.warm_up(OPTIONS, print)
        jacobian.warm_up(OPTIONS, print)


@pytest.fixture(scope="session")
def compiled_kernel():
    """Compiled ahead: a second process waits for the first."""
    kernels.warm_up(OPTIONS, lambda _: None)
