"""Kernels of infinitely wide networks: description -> `kernel(x1, x2)`."""

import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kip_flax import architectures as arch
from kip_flax.kernels import band, duplicates, tiles, variances, xla
from kip_flax.kernels.layout import deviation, lay_out
from kip_flax.runtime.errors import UserError

Kernel = Callable[[jax.Array, jax.Array], jax.Array]

IMPLEMENTATIONS = ("auto", "cpu", "xla", "neural_tangents")
GETS = ("ntk", "nngp")
PARAMETERIZATIONS = ("ntk", "standard")


def resolve(implementation: str) -> str:
    """What `implementation` stands for here: 'auto' is the fastest that can run.

    That is 'cpu' where JAX computes on CPUs and numba can be imported, and 'xla' everywhere else.
    """
    _check_choice("implementation", implementation, IMPLEMENTATIONS)
    if implementation != "auto":
        return implementation
    compiled = jax.default_backend() == "cpu" and importlib.util.find_spec("numba") is not None
    return "cpu" if compiled else "xla"


def warm_up(spec: arch.Spec, implementation: str, say: Callable[[str], None]) -> None:
    """Compiles ahead what `make_kernel` of the same arguments would compile at its first call.

    `say` is told if that takes long. 'xla' compiles with the step that calls it, not here.
    """
    if not any(isinstance(layer, arch.Conv) for layer in spec):
        return
    if resolve(implementation) == "xla":
        say("the first step is compiled before it runs: up to a minute, unless kept from before")
    if resolve(implementation) == "cpu":
        from kip_flax.kernels.cpu.warm_up import warm_up as compile_ahead

        compile_ahead(say)


def make_kernel(
    spec: arch.Spec,
    w_std: float = 2**0.5,
    b_std: float = 0.1,
    parameterization: str = "ntk",
    width: int = 1024,
    get: str = "ntk",
    implementation: str = "auto",
) -> Kernel:
    """The infinite-width kernel of a network.

    Args:
        spec: description, from `architectures`.
        w_std, b_std: standard deviations of weights (times sqrt(fan-in)) and biases.
        parameterization: 'ntk', or 'standard', where the tangent kernel grows with `width`
            (Sohl-Dickstein et al. 2020, arXiv 2001.07301).
        width: channels of the hidden layers; matters to 'standard' only.
        get: 'ntk' (tangent kernel: a trained network) or 'nngp' (covariance at initialisation).
        implementation: one of `IMPLEMENTATIONS`.

    Returns:
        `kernel(x1, x2)`: images (n1, H, W, C) and (n2, H, W, C) to (n1, n2) in their precision;
        can be jitted and differentiated in both. In float32, pairs of nearly equal images are
        computed in float64 where JAX has it on (`jax_enable_x64`).

    Raises:
        UserError: a name that is not on offer; on call, images too small for the pools.
    """
    _check_choice("get", get, GETS)
    _check_choice("parameterization", parameterization, PARAMETERIZATIONS)
    if w_std <= 0 or b_std < 0:
        raise UserError(f"w_std={w_std}, b_std={b_std}: w_std must be positive, b_std at least 0.")
    implementation = resolve(implementation)
    if implementation == "neural_tangents":
        from kip_flax.kernels import reference

        return reference.make_reference_kernel(spec, w_std, b_std, parameterization, width, get)

    def kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
        _check_images(x1, x2)
        if x2 is x1:
            return duplicates.symmetric(pairs(x1, jax.lax.stop_gradient(x1), same=True))
        return pairs(x1, x2, same=False)

    def pairs(x1: jax.Array, x2: jax.Array, same: bool) -> jax.Array:
        x1, x2 = jnp.asarray(x1), jnp.asarray(x2)
        height, breadth, channels = x1.shape[1:]
        shape = (height, breadth, channels)
        plan = band.make_plan(spec, shape, w_std, b_std, parameterization, width)
        if not plan.convolutional:
            return _dense_kernel(plan, get, x1, x2)
        if implementation == "cpu":
            return _compiled_kernel(plan, channels, get)(x1, x2, same)
        v1 = tiles.all_variances(plan, x1)
        v2 = tiles.all_variances(plan, x2)
        k = tiles.pair_kernel(plan, get, x1, v1, x2, v2)
        return duplicates.corrected(_paired(plan, get), k, x1, x2)

    return kernel


def _compiled_kernel(plan: band.Plan, channels: int, get: str) -> Callable[..., jax.Array]:
    from kip_flax.kernels.cpu.kernel import make_compiled_kernel

    return make_compiled_kernel(plan, channels, get == "ntk")


def _paired(plan: band.Plan, get: str) -> duplicates.Paired:
    """Convolutional kernel image by image: (m, H, W, C), (m, H, W, C) -> (m,)."""

    def paired(x1: jax.Array, x2: jax.Array) -> jax.Array:
        lanes = len(x1)
        fixed = lay_out(plan, x1, variances.variances(plan, x1), lanes, moving=False)
        moving = lay_out(plan, x2, variances.variances(plan, x2), lanes, moving=True)
        return xla.tile(plan, get, lanes, fixed, jax.lax.stop_gradient(moving))

    return paired


def _dense_kernel(plan: band.Plan, get: str, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Kernel (n1, n2) of a network without convolutions: one matrix product and pointwise maps."""

    def ends(k: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        s1, s2 = (
            tuple(deviation(v) for v in xla.head_variances(plan.head, jnp.mean(x * x, axis=-1)))
            for x in (a, b)
        )
        return xla.head(plan.head, k, jnp.zeros_like(k), s1, s2)[get == "ntk"]

    def paired(a: jax.Array, b: jax.Array) -> jax.Array:
        a, b = (x.reshape(len(x), -1) for x in (a, b))
        return ends(jnp.mean(a * b, axis=-1), a, b)

    flat1, flat2 = (x.reshape(len(x), -1) for x in (x1, x2))
    k = jnp.matmul(flat1, flat2.T, precision=jax.lax.Precision.HIGHEST) / flat1.shape[1]
    k = ends(k, flat1[:, None], flat2[None])
    return duplicates.corrected(paired, k, x1, x2)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"unknown {name} {value!r}: it is one of {', '.join(allowed)}.")


def _check_images(x1: jax.Array, x2: jax.Array) -> None:
    if x1.ndim != 4 or x2.ndim != 4 or x1.shape[1:] != x2.shape[1:]:
        raise UserError(
            f"a kernel takes images (n1, H, W, C) and (n2, H, W, C), not {x1.shape} and {x2.shape}."
        )
