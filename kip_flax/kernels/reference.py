"""The reference kernel, computed by neural_tangents; no other module imports that package.

neural-tangents 0.6.5 was written for an older JAX. Importing it needs names that JAX has since
moved (`jax.core.Jaxpr`, `jax.util.safe_map`, ...): `_names_of_older_jax` restores them during the
import and removes them afterwards. Nothing is written to site-packages.
"""

import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend.core
import jax.interpreters.ad

from kip_flax import architectures as arch
from kip_flax.kernels.options import Kernel, KernelOptions
from kip_flax.kernels.plan import make_plan

_MOVED_FROM_CORE = ("Jaxpr", "JaxprEqn", "Literal", "Var", "Primitive")


def make_reference_kernel(options: KernelOptions) -> Kernel:
    """`kernel(x1, x2)` -> (n1, n2) of neural_tangents: all pairs at once, in x1's dtype.

    It raises UserError where `make_plan` does.
    """
    nt = neural_tangents()
    affine = {
        "W_std": options.w_std,
        "b_std": options.b_std,
        "parameterization": options.parameterization,
    }
    layers = (_layer(nt, layer, options.width, affine) for layer in options.spec)
    _, _, kernel_fn = nt.stax.serial(*layers)

    def kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
        height, breadth, channels = x1.shape[1:]
        make_plan(options, (height, breadth, channels))  # neural_tangents checks no sizes.
        # x2=None lets neural_tangents know that the diagonal is exactly the variance.
        return kernel_fn(x1, None if x2 is x1 else x2, options.get)

    return kernel


@functools.cache
def neural_tangents() -> types.ModuleType:
    """The neural_tangents module, imported once."""
    with _names_of_older_jax():
        return importlib.import_module("neural_tangents")


def _layer(nt: Any, layer: arch.Layer, width: int, affine: dict[str, Any]) -> Any:
    stax = nt.stax
    match layer:
        case arch.Conv(size, stride):
            strides = (stride, stride)
            return stax.Conv(width, (size, size), strides, padding="SAME", **affine)
        case arch.Relu():
            return stax.Relu()
        case arch.AvgPool(size):
            return stax.AvgPool((size, size), strides=(size, size), padding="VALID")
        case arch.GlobalAvgPool():
            return stax.GlobalAvgPool()
        case arch.Flatten():
            return stax.Flatten()
        case arch.Dense():
            return stax.Dense(width, **affine)
    raise TypeError(f"no neural_tangents layer for {layer}")


@contextlib.contextmanager
def _names_of_older_jax() -> Iterator[None]:
    """Restores the JAX names that neural_tangents imports, and stubs its TensorFlow part."""
    util = types.ModuleType("jax.util")
    util.safe_map, util.safe_zip = _safe_map, _safe_zip  # type: ignore[attr-defined]
    experimental = types.ModuleType("neural_tangents.experimental")
    zeros_like_p = jax.extend.core.Primitive("zeros_like")
    attributes = [(jax.core, name, getattr(jax.extend.core, name)) for name in _MOVED_FROM_CORE]
    attributes += [(jax.interpreters.ad, "zeros_like_p", zeros_like_p), (jax, "util", util)]
    modules = {"jax.util": util, "neural_tangents.experimental": experimental}

    added = [(owner, name) for owner, name, _ in attributes if name not in vars(owner)]
    added_modules = [name for name in modules if name not in sys.modules]
    for owner, name, value in attributes:
        if (owner, name) in added:
            setattr(owner, name, value)
    for name in added_modules:
        sys.modules[name] = modules[name]
    try:
        yield
    finally:
        for owner, name in added:
            delattr(owner, name)
        for name in added_modules:
            del sys.modules[name]


def _safe_map(f: Callable, *args: Any) -> list:
    return [f(*row) for row in _safe_zip(*args)]


def _safe_zip(*args: Any) -> list[tuple]:
    return list(zip(*args, strict=True))
