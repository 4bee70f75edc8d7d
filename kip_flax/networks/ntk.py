"""The tangent kernel of a finite network, and the largest learning rate that it allows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kip_flax.networks.build import Tree
from kip_flax.runtime.precision import product

Outputs = Callable[[Tree, jax.Array], jax.Array]

_TOLERANCE = 1e-4  # Relative change of the eigenvalue at which iterations end.
_MAX_ITERATIONS = 200


def ntk(outputs: Outputs, params: Tree, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Empirical tangent kernel (n1, n2): products of the gradients of a scalar output.

    Args:
        outputs: (params, images (n, H, W, C)) -> (n,).
        params: where the gradients are taken; all n1 + n2 gradients are held in memory at once.
        x1, x2: images (n1, H, W, C), (n2, H, W, C).
    """
    g1, g2 = (jax.tree.leaves(jax.jacrev(outputs)(params, x)) for x in (x1, x2))
    products = (
        product(a.reshape(len(a), -1), b.reshape(len(b), -1).T) for a, b in zip(g1, g2, strict=True)
    )
    return jnp.sum(jnp.stack(list(products)), axis=0)


def max_eigenvalue(outputs: Outputs, params: Tree, x: jax.Array) -> jax.Array:
    """Largest eigenvalue of `ntk(outputs, params, x, x)`, without forming gradients or kernel.

    Each step of the power iteration multiplies by the Jacobian's transpose and by the Jacobian. It
    ends when the eigenvalue changes by less than 1e-4 of itself, or after 200 steps. It starts from
    equal entries: tangent kernels of ReLU networks with biases are positive, and so is their first
    eigenvector.
    """
    values, pull = jax.vjp(lambda p: outputs(p, x), params)

    def times_kernel(v: jax.Array) -> jax.Array:
        # The transpose of the transpose: convolutions have no forward mode on a CPU.
        gradient, push = jax.vjp(lambda u: pull(u)[0], v)
        return push(gradient)[0]

    def going_on(carry: tuple[jax.Array, ...]) -> jax.Array:
        _, new, old, iteration = carry
        # Before the second there is nothing to compare.
        moving = (iteration < 2) | (jnp.abs(new - old) > _TOLERANCE * new)
        return moving & (iteration < _MAX_ITERATIONS)

    def step(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        v, value, _, iteration = carry
        moved = times_kernel(v)
        norm = jnp.linalg.norm(moved)
        return moved / norm, norm, value, iteration + 1

    start = jnp.full(len(x), len(x) ** -0.5, values.dtype)
    zero = jnp.zeros((), values.dtype)
    carry: tuple[jax.Array, ...] = (start, zero, zero, jnp.array(0))
    return jax.lax.while_loop(going_on, step, carry)[1]


def max_learning_rate(
    apply: Outputs, params: Tree, x: jax.Array, momentum: float = 0.0
) -> jax.Array:
    """Largest learning rate at which gradient descent on the squared error still contracts.

    It is 2 (1 + momentum) n C / lambda, as in `neural_tangents.predict.max_learning_rate`, for the
    loss `0.5 * mean((f(x) - y)^2)` over n inputs and C outputs. lambda is the largest eigenvalue of
    the empirical tangent kernel of the sum of the outputs over sqrt(C): the estimate of Nguyen et
    al. (NeurIPS 2021), who take 50 inputs and a momentum of 0 here while training with 0.9.

    Args:
        apply: (params, images (n, H, W, C)) -> (n, C).
        params: of the network, at initialisation.
        x: images (n, H, W, C).
        momentum: of the optimiser.
    """
    classes = jax.eval_shape(apply, params, x).shape[1]
    largest = max_eigenvalue(lambda p, x: jnp.sum(apply(p, x), axis=1) / classes**0.5, params, x)
    return 2 * (1 + momentum) * len(x) * classes / largest
