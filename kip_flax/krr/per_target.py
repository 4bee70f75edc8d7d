"""Per-target gradients of the KRR loss, clipped and summed.

The norm of a target's contribution is bounded, as differential privacy needs (Abadi et al., CCS
2016, Algorithm 1). Shapes: S support images, T targets, C classes, P numbers per image.

A target's loss depends on the images through its own row of K_ts and through K_ss, which all
targets share. So the pairwise gradients of K_ts and of K_ss give every target's gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kip_flax import krr
from kip_flax.kernels.jacobian import Jacobian
from kip_flax.krr.residuals import Batch
from kip_flax.runtime.precision import product

# A clipped gradient stays below the clip by this share, as its norm is rounded. What sums of many
# gradients round is not covered.
_ROUNDING = 1e-5


class SupportTerms(NamedTuple):
    """What the gradients of all targets share.

    Attributes:
        images: (S, H, W, C).
        alpha: (S, C), the solution for the labels.
        inverse: (S, S), of the regularised K_ss.
        derivatives: (S, S, P), of K_ss in the images of its rows; in a basis (S, S, K).
    """

    images: jax.Array
    alpha: jax.Array
    inverse: jax.Array
    derivatives: jax.Array


class Gradients(NamedTuple):
    """Of each target: in images (T, S, P), or (T, S, K) in a basis, and in labels (T, S, C)."""

    images: jax.Array
    labels: jax.Array


class GradientSums(NamedTuple):
    """Sums over the targets: images (S, P) and labels (S, C)."""

    images: jax.Array
    labels: jax.Array


# (support images (S, H, W, C), labels (S, C)) -> what the gradients of all targets share.
OfSupport = Callable[[jax.Array, jax.Array], SupportTerms]
# (what they share, batch) -> gradients of its targets.
OfTargets = Callable[[SupportTerms, Batch], Gradients]


def make_gradients(
    jacobian: Jacobian, reg: float, basis: jax.Array | None = None
) -> tuple[OfSupport, OfTargets]:
    """Two functions: what all targets share, and with it the gradient of each one's `krr.loss`.

    Args:
        jacobian: the kernel with its gradients, from `kernels.jacobian.make_jacobian`.
        reg: ridge, relative to the mean of the diagonal of K_ss.
        basis: (K, P), orthonormal rows; image gradients are their K coefficients. None: all P
            numbers.
    """

    def in_basis(derivatives: jax.Array) -> jax.Array:
        return derivatives if basis is None else product(derivatives, basis.T)

    def of_support(images: jax.Array, labels: jax.Array) -> SupportTerms:
        k_ss, dk_ss = jacobian(images, images)
        alpha = krr.solve(k_ss, labels, reg)
        inverse = krr.solve(k_ss, jnp.eye(len(images)), reg)
        return SupportTerms(images, alpha, inverse, in_basis(dk_ss))

    def gradients(support: SupportTerms, batch: Batch) -> Gradients:
        images, alpha, inverse, dk_ss = support
        size, classes = alpha.shape
        k_ts, dk_ts = jacobian(batch.x, images)
        residuals = (krr.predict(k_ts, alpha) - batch.y) / classes
        smoother = product(k_ts, inverse).astype(jnp.float32)  # (T, S), K_ts K_ss^-1.

        back = product(residuals, alpha.T.astype(jnp.float32))  # (T, S), d loss / d K_ts.
        by_k_ss = _symmetric(back, smoother)  # (T, S, S), minus d loss / d K_ss.
        ridge = reg / size * jnp.trace(by_k_ss, axis1=1, axis2=2)
        by_k_ss = by_k_ss + ridge[:, None, None] * jnp.eye(size, dtype=jnp.float32)

        own = back[:, :, None] * jnp.swapaxes(in_basis(dk_ts), 0, 1)
        highest = jax.lax.Precision.HIGHEST
        shared = jnp.einsum("tsi,sip->tsp", by_k_ss, dk_ss, precision=highest)
        return Gradients(own - shared, smoother[:, :, None] * residuals[:, None, :])

    return of_support, gradients


def clipped_sum(gradients: Gradients, weights: jax.Array, clip: float) -> GradientSums:
    """The sum of the gradients, each scaled down to a norm of at most `clip`.

    The norm is that of images and labels together. A gradient that is not finite counts as 0, so
    no target adds more than `clip`.

    Args:
        gradients: of the targets.
        weights: (T,), 1 for a target, 0 for padding.
        clip: above 0.
    """
    norms = jnp.sqrt(_squares(gradients.images) + _squares(gradients.labels))
    finite = jnp.isfinite(norms)
    scale = jnp.minimum(1.0, clip / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny))
    scale = jnp.where(finite, weights * scale * (1 - _ROUNDING), 0.0)

    def total(of_targets: jax.Array) -> jax.Array:
        kept = jnp.where(finite[:, None, None], of_targets, 0.0)
        highest = jax.lax.Precision.HIGHEST
        return jnp.einsum("t,tsp->sp", scale, kept, precision=highest)

    return GradientSums(total(gradients.images), total(gradients.labels))


def _symmetric(back: jax.Array, smoother: jax.Array) -> jax.Array:
    """(T, S, S): back smoother' + smoother back' of every target."""
    outer = back[:, :, None] * smoother[:, None, :]
    return outer + jnp.swapaxes(outer, 1, 2)


def _squares(of_targets: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(of_targets), axis=(1, 2))
