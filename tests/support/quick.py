"""A kernel that compiles at once, for tests of what goes on around kernels."""

import jax.numpy as jnp

from kip_flax import kernels


def quick_kernel(spec, **options):
    """Positive definite, smooth, and as nonlinear as the digits ask for."""

    def kernel(x1, x2):
        flat1, flat2 = (x.reshape(len(x), -1) for x in (x1, x2))
        cross = jnp.matmul(flat1, flat2.T, precision="highest")
        squares = jnp.sum(flat1**2, axis=1)[:, None] + jnp.sum(flat2**2, axis=1)
        return jnp.exp((2 * cross - squares) / (2 * flat1.shape[1]))

    return kernel


def install(patch):
    """Makes it the kernel of whoever asks for one; nothing else is compiled ahead."""
    patch.setattr(kernels, "make_kernel", quick_kernel)
    patch.setattr(kernels, "warm_up", lambda *_: None)
