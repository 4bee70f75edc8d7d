"""Four CPU devices and float64 solves, set before JAX looks at its devices.

Runs of equal shape compile the same programs again and again: a cache for the session halves that.
"""

import tempfile

import jax

from kip_flax import sharding

_CACHE = tempfile.TemporaryDirectory(prefix="kip_flax_tests_")  # Removed when Python ends.

sharding.prepare_cpu_devices()
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", _CACHE.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

from made_transfers import files  # noqa: E402, F401
from whole_runs import digits, quick_kernels, undisturbed  # noqa: E402, F401  (after the settings above)
