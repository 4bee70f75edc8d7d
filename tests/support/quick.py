"""A kernel that compiles at once, for tests of what goes on around kernels."""

import jax.numpy as jnp

from kip_flax import kernels
from kip_flax.kernels import jacobian


def quick_kernel(spec, **options):
    """Positive definite, smooth, and as nonlinear as the digits ask for."""

    def kernel(x1, x2):
        flat1, flat2 = (x.reshape(len(x), -1) for x in (x1, x2))
        cross = jnp.matmul(flat1, flat2.T, precision="highest")
        squares = jnp.sum(flat1**2, axis=1)[:, None] + jnp.sum(flat2**2, axis=1)
        return jnp.exp((2 * cross - squares) / (2 * flat1.shape[1]))

    return kernel


def quick_jacobian(options):
    """That of `quick_kernel`, in the form of `jacobian.make_jacobian`."""
    kernel = quick_kernel(options)

    def of_pairs(x_t, x_s):
        k = kernel(x_t, x_s)
        rows, columns = (x.reshape(len(x), -1) for x in (x_t, x_s))
        return k, k.T[:, :, None] * (rows - columns[:, None]) / rows.shape[1]

    return of_pairs


def install(patch):
    """Makes it the kernel of whoever asks for one; nothing else is compiled ahead."""
    patch.setattr(kernels, "make_kernel", quick_kernel)
    patch.setattr(kernels, "warm_up", lambda *_: None)
    patch.setattr(jacobian, "make_jacobian", quick_jacobian)
    patch.setattr(jacobian, "warm_up", lambda *_: None)
