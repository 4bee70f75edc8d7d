"""Solve a damped least-squares problem for every damping at once, and choose among the solutions.

A batch is a sample of the targets, so the step that fits it best also fits its noise. Generalised
cross-validation (GCV) predicts from the batch alone how much that costs on other targets, so no
target is held out. A fraction of a step with little damping is often better than a whole step with
much: it averages what batches agree on, and still moves along directions that a batch hardly sees.

Krylov spaces: Golub and Van Loan, Matrix Computations, chapter 10. GCV: Golub, Heath and Wahba
(Technometrics 1979); noise drawn as in Wu's wild bootstrap (Annals of Statistics 1986) estimates
its matrix trace.
Shapes: S images that move, P numbers per image, T targets, C classes, K directions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import Precision

from kip_flax.krr.residuals import Model
from kip_flax.runtime.precision import product

DAMPINGS = tuple(10 ** (power / 4) for power in range(-20, 5))  # 1e-5 to 10
LENGTHS = tuple(tenths / 10 for tenths in range(1, 11))
_MOST_NOISE = 0.9  # A step that fits more noise leaves a loss that is mostly rounding.


class RidgePath(NamedTuple):
    """Minimisers of `|r + A d|^2 + ridge |d|^2` in a Krylov space of A^T A with K dimensions.

    Attributes:
        vectors: (K, S, P), orthonormal.
        values: (K,), |A v|^2 of each vector; 0 where the space has fewer dimensions.
        parts: (K,), -v^T A^T r: the descent along each vector.
        square: (), |r|^2.
    """

    vectors: jax.Array
    values: jax.Array
    parts: jax.Array
    square: jax.Array

    def solution(self, ridge: jax.Array) -> jax.Array:
        """The minimiser d (S, P) for `ridge`."""
        parts = self.parts / (self.values + ridge)
        return jnp.tensordot(parts, self.vectors, 1, precision=Precision.HIGHEST)

    def gain(self, ridge: jax.Array, length: jax.Array | float = 1.0) -> jax.Array:
        """The decrease from |r|^2 to |r + length A d|^2."""
        squares = jnp.sum(self.values * jnp.square(self.parts / (self.values + ridge)))
        return 2 * length * self.overlap(ridge) - length**2 * squares

    def overlap(self, ridge: jax.Array) -> jax.Array:
        """-r^T A d: the overlap of r with the part -A d that the solution removes."""
        return jnp.sum(jnp.square(self.parts) / (self.values + ridge))


def explore(model: Model, residuals: jax.Array, iterations: int) -> RidgePath:
    """The path of residuals (T, C), by K = `iterations` Lanczos steps with reorthogonalisation."""
    downhill = -model.transpose(residuals)

    def extend(i: jax.Array, carry: tuple) -> tuple:
        basis, products = carry
        bent = model.transpose(model.forward(basis[i].reshape(downhill.shape))).ravel()
        row = product(basis, bent)
        rest = bent - product(row, basis)
        # Twice: rounding leaves a little of the basis the first time.
        rest = rest - product(product(basis, rest), basis)
        basis = basis.at[i + 1].set(_unit(rest, jnp.linalg.norm(bent)), mode="drop")
        return basis, products.at[i].set(row)

    first = _unit(downhill.ravel(), jnp.linalg.norm(downhill))
    basis = jnp.zeros((iterations, downhill.size), downhill.dtype).at[0].set(first)
    start = (basis, jnp.zeros((iterations, iterations), downhill.dtype))
    basis, products = jax.lax.fori_loop(0, iterations, extend, start)
    # Row i holds the products with vectors 0 to i; symmetry gives the rest.
    lower = jnp.tril(products)
    values, turn = jnp.linalg.eigh(lower + jnp.tril(products, -1).T)
    vectors = product(turn.T, basis).reshape(iterations, *downhill.shape)
    parts = jnp.linalg.norm(downhill) * turn[0]
    return RidgePath(vectors, jnp.maximum(values, 0), parts, jnp.sum(jnp.square(residuals)))


def paths(
    model: Model, residuals: jax.Array, key: jax.Array, iterations: int
) -> tuple[RidgePath, RidgePath]:
    """The path of the residuals, and of noise: the residuals with a random sign per target.

    The noise excludes the part that labels fit, which the residuals lack too.
    """
    signs = jax.random.rademacher(key, (len(residuals), 1), residuals.dtype)
    both = jnp.stack([residuals, model.unfitted(residuals * signs)])
    # One after the other: on a mesh, each would start its sums over the devices in its own order.
    found = jax.lax.map(lambda r: explore(model, r, iterations), both)
    first, second = (jax.tree.map(lambda leaf, n=n: leaf[n], found) for n in range(2))
    return first, second


class Choice(NamedTuple):
    """A step and its expected outcome; all fields are scalars.

    Attributes:
        damping: in units of the mean of `Model.diagonal`.
        length: fraction of the way to the solution, one of `LENGTHS`.
        noise: share that the step fits of the noise that labels leave.
        predicted_loss: expected loss on other targets, in units of the batch's current loss.
    """

    damping: jax.Array
    length: jax.Array
    noise: jax.Array
    predicted_loss: jax.Array


def gcv_loss(loss: jax.Array, noise: jax.Array) -> jax.Array:
    """The expected loss on other targets after a step that leaves `loss` on its batch.

    Generalised cross-validation gives `loss` / (1 - h)^2, where h = `noise` is the share that the
    step fits of the noise that labels leave; inf if h is 0.9 or more. It applies where images have
    more numbers than the batch has residuals, so that a step could fit almost all of them. The
    noise that labels fit costs the same on other targets before and after the step.
    """
    return jnp.where(noise < _MOST_NOISE, loss / (1 - noise) ** 2, jnp.inf)


def choose(path: RidgePath, noise: RidgePath, mean: jax.Array, least: jax.Array) -> Choice:
    """The step with the least predicted loss on other targets.

    Args:
        path, noise: from `paths`.
        mean: the mean of `Model.diagonal`, the unit of dampings.
        least: the smallest damping allowed.

    Returns:
        The step; its damping is one of `DAMPINGS` or `least`, its length one of `LENGTHS`.
    """
    dampings = jnp.maximum(jnp.asarray(DAMPINGS, mean.dtype), least)
    lengths = jnp.asarray(LENGTHS, mean.dtype)

    def candidate(damping: jax.Array, length: jax.Array) -> Choice:
        ridge = damping * mean
        share = length * noise.overlap(ridge) / noise.square
        left = 1 - path.gain(ridge, length) / path.square
        return Choice(damping, length, share, gcv_loss(left, share))

    every = jax.vmap(lambda damping: jax.vmap(lambda n: candidate(damping, n))(lengths))(dampings)
    best = jnp.argmin(every.predicted_loss)
    return Choice(*(leaf.ravel()[best] for leaf in every))


def _unit(vector: jax.Array, scale: jax.Array) -> jax.Array:
    """`vector` scaled to length 1; zeros if its length is mere rounding beside `scale`."""
    length = jnp.linalg.norm(vector)
    whole = length > 1e-6 * scale
    return jnp.where(whole, vector / jnp.where(whole, length, 1), 0)
