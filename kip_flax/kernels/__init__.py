"""Kernels of infinitely wide networks: description -> `kernel(x1, x2)`."""

from kip_flax.kernels.build import make_kernel, warm_up
from kip_flax.kernels.options import (
    GETS,
    IMPLEMENTATIONS,
    PARAMETERIZATIONS,
    SECTION,
    Kernel,
    KernelOptions,
    resolve,
)

__all__ = [
    "GETS",
    "IMPLEMENTATIONS",
    "PARAMETERIZATIONS",
    "SECTION",
    "Kernel",
    "KernelOptions",
    "make_kernel",
    "resolve",
    "warm_up",
]
