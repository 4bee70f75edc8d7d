"""Vector functions of a correlation against NumPy in float64, on this CPU and on lesser ones."""

import os
import subprocess
import sys

import numpy as np
import pytest

from kip_flax.kernels.cpu.compiled import loop
from kip_flax.kernels.cpu.correlation import (
    derivative_kernel,
    derivative_kernel_of_positive,
    estimated_sine,
    reciprocal_sine,
    sine_of,
)
from kip_flax.kernels.cpu.vectors import LANES, load, row_at, splat, store


@loop
def evaluate(c, out):
    one = splat(row_at(c, 0), 1)
    for i in range(len(c)):
        x = load(row_at(c, i), 0)
        store(row_at(out[0], i), 0, sine_of(x))
        store(row_at(out[1], i), 0, estimated_sine(x))
        store(row_at(out[2], i), 0, reciprocal_sine(x))
        store(row_at(out[3], i), 0, derivative_kernel(x, sine_of(x), one))
        store(row_at(out[4], i), 0, derivative_kernel_of_positive(x, sine_of(x), one))


def check(dtype):
    # Up to 1 and -1 themselves, and close to them on a logarithmic scale.
    near = 1 - np.logspace(-12, 0, 400)
    c = np.concatenate([-near, near, np.linspace(-1, 1, 799), [1.0]]).astype(dtype)
    c = c.reshape(-1, LANES)
    out = tuple(np.empty_like(c) for _ in range(5))
    evaluate(c, out)
    exact = c.astype(np.longdouble)
    squared = (1 - exact) * (1 + exact)
    equal = squared < (1.001e-6 if dtype == np.float32 else 2.001e-14)
    some = squared > (0.999e-6 if dtype == np.float32 else 1.999e-14)
    rtol = 3e-7 if dtype == np.float32 else 1e-14
    for sine in out[:2]:
        np.testing.assert_allclose(sine[some], np.sqrt(squared)[some], rtol=rtol)
    np.testing.assert_allclose(out[2][some], 1 / np.sqrt(squared)[some], rtol=rtol)
    surely = equal & ~some
    for result in out[:3]:
        np.testing.assert_array_equal(result[surely], 0)
    want = (np.pi - np.arccos(c.astype(np.float64))) / (2 * np.pi)
    atol = 1.5e-7 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(out[3][~surely], want[~surely], rtol=0, atol=atol)
    positive = (c >= 0) & ~surely
    np.testing.assert_allclose(out[4][positive], want[positive], rtol=0, atol=atol)
    np.testing.assert_array_equal(out[3][surely & (c > 0)], 0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_numpy(dtype):
    check(dtype)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names x86 features")
@pytest.mark.parametrize("features", ["+avx,+avx2,+fma", "+sse2"])
def test_code_for_lesser_cpus(features):
    """AVX2 has another estimate of 1 / sqrt, and SSE2 none that is used."""
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    code = "import numpy as np, correlation_test; correlation_test.check(np.float32)"
    folders = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment | {"PYTHONPATH": folders}
    )
