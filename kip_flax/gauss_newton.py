"""Gauss-Newton steps on the support images.

The residuals are nearly linear in the images over a small step, so the loss is a least-squares
problem whose curvature is known from first derivatives: those of every pair cost no more than their
sum, the gradient that a step of descent takes. Levenberg and Marquardt's damping says how far the
linear model is trusted: More (1978) for the ratio of gains.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kip_flax import krr
from kip_flax.residuals import Model, Residuals, Targets
from kip_flax.state import KipState

Metrics = dict[str, jax.Array]
Step = Callable[[KipState, jax.Array, jax.Array, jax.Array], tuple[KipState, Metrics]]

_TRIALS = 6  # Steps of a batch that may be refused, each with more damping.
_REFUSED, _POOR, _GOOD = 4.0, 2.5, 1 / 3  # What the damping is multiplied by.
_TOLERANCE = 1e-6  # Conjugate gradients end where the squared residual has fallen to this share.


def init(images: jax.Array, labels: jax.Array, damping: float) -> KipState:
    """State before the first step: images (S, H, W, C), labels (S, classes)."""
    params = {"images": jnp.asarray(images, jnp.float32)}
    state = {"damping": jnp.asarray(damping, jnp.float32)}
    return KipState(jnp.zeros((), jnp.int32), params, jnp.asarray(labels, jnp.float32), state)


def direction(model: Model, residuals: jax.Array, damping: jax.Array, iterations: int) -> jax.Array:
    """The step (S, P) that is best for the linear model and not too long.

    It minimises `|r + A d|^2 + damping * m |d|^2`, `m` being the mean diagonal of A^T A, by
    conjugate gradients, which the diagonal preconditions.
    """
    diagonal = model.diagonal()
    ridge = damping * jnp.mean(diagonal)
    scale = 1 / (diagonal + ridge)

    def curved(d: jax.Array) -> jax.Array:
        return model.transpose(model.forward(d)) + ridge * d

    def improve(carry: tuple) -> tuple:
        d, residual, way, square, count = carry
        bent = curved(way)
        length = square / jnp.vdot(way, bent)
        d, residual = d + length * way, residual - length * bent
        scaled = scale * residual
        new = jnp.vdot(residual, scaled)
        return d, residual, scaled + new / square * way, new, count + 1

    downhill = -model.transpose(residuals)
    first = scale * downhill
    square = jnp.vdot(downhill, first)
    start = (jnp.zeros_like(downhill), downhill, first, square, 0)

    def unfinished(carry: tuple) -> jax.Array:
        return (carry[4] < iterations) & (carry[3] > _TOLERANCE * square)

    return jax.lax.while_loop(unfinished, improve, start)[0]


def make_step(residuals: Residuals, iterations: int) -> Step:
    """`step(state, x_t, y_t, weights) -> (state, metrics)`.

    Args:
        residuals: those of solved or of fixed labels; on a mesh where wanted.
        iterations: of conjugate gradients, at most.

    A step that would not lower the loss of its batch is tried again with more damping, and after
    six trials left out. Metrics are the loss and accuracy before it, the norm of the gradient, the
    damping, and the gain as a share of what the model had foretold (0 where no step was taken).
    """

    def step(
        state: KipState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[KipState, Metrics]:
        images, batch = state.params["images"], Targets(x_t, y_t, weights)
        now, model = residuals.linearise(images, state.labels, batch)

        def attempt(carry: tuple) -> tuple:
            _, _, damping, trials = carry
            way = direction(model, now.residuals, damping, iterations)
            foretold = krr.loss(now.residuals + model.forward(way), jnp.zeros_like(y_t), weights)
            moved = images + way.reshape(images.shape)
            gain = now.loss - residuals.loss(moved, state.labels, batch)
            taken = gain > 0  # False where it is not finite.
            ratio = jnp.where(taken, gain / (now.loss - foretold), 0)
            factor = jnp.where(ratio > 0.75, _GOOD, jnp.where(ratio < 0.4, _POOR, 1.0))
            factor = jnp.where(taken, factor, _REFUSED)
            return jnp.where(taken, moved, images), ratio, damping * factor, trials + 1

        def refused(carry: tuple) -> jax.Array:
            return (carry[1] <= 0) & (carry[3] < _TRIALS)

        start = (images, jnp.zeros_like(now.loss), state.opt_state["damping"], 0)
        moved, ratio, damping, _ = jax.lax.while_loop(refused, attempt, start)
        gradient = model.transpose(now.residuals) / (jnp.sum(weights) * y_t.shape[1])
        metrics = {
            "loss": now.loss,
            "accuracy": now.accuracy,
            "grad_norm": jnp.linalg.norm(gradient),
            "damping": damping,
            "gain_ratio": ratio,
        }
        state = state.replace(
            step=state.step + 1, params={"images": moved}, opt_state={"damping": damping}
        )
        return state, metrics

    return jax.jit(step, donate_argnums=0)
