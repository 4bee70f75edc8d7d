"""Gauss-Newton steps on the support images.

The residuals are nearly linear in the images over a small step, so the loss is a least-squares
problem whose curvature is known from first derivatives: those of every pair cost no more than their
sum, the gradient that a step of descent takes. A step is damped for two reasons. The linear model
holds near the images only (Levenberg and Marquardt; More, 1978, for the ratio of gains), and the
batch is a sample of the targets (`ridge_path`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kip_flax import ridge_path
from kip_flax.residuals import Residuals, Targets
from kip_flax.state import KipState

Metrics = dict[str, jax.Array]
Step = Callable[[KipState, jax.Array, jax.Array, jax.Array], tuple[KipState, Metrics]]

_TRIALS = 6  # Steps of a batch that may be refused, each with more damping.
_REFUSED, _POOR, _GOOD = 4.0, 2.5, 1 / 3  # What the damping is multiplied by.


def init(images: jax.Array, labels: jax.Array, damping: float) -> KipState:
    """State before the first step: images (S, H, W, C), labels (S, classes)."""
    params = {"images": jnp.asarray(images, jnp.float32)}
    state = {"damping": jnp.asarray(damping, jnp.float32)}
    return KipState(jnp.zeros((), jnp.int32), params, jnp.asarray(labels, jnp.float32), state)


def make_step(residuals: Residuals, iterations: int, key: jax.Array) -> Step:
    """`step(state, x_t, y_t, weights) -> (state, metrics)`.

    Args:
        residuals: those of solved or of fixed labels; on a mesh where wanted.
        iterations: directions that a step is made of.
        key: of the signs that say what fitting noise looks like.

    A step that would not lower the loss of its batch is tried again with more damping, and after
    six trials left out. Metrics are the loss and accuracy before it, the norm of the gradient, the
    damping and length (share of the way) of the step, and the gain as a share of what the model had
    foretold (0 where no step was taken). The state keeps the least damping of the next step.
    """

    def step(
        state: KipState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[KipState, Metrics]:
        images, batch = state.params["images"], Targets(x_t, y_t, weights)
        now, model = residuals.linearise(images, state.labels, batch)
        entries = jnp.sum(weights) * y_t.shape[1]
        signs = jax.random.fold_in(key, state.step)
        path, noise = ridge_path.paths(model, now.residuals, signs, iterations)
        square, mean = jnp.sum(jnp.square(now.residuals)), jnp.mean(model.diagonal())

        def attempt(carry: tuple) -> tuple:
            *_, least, trials = carry
            damping, length = ridge_path.choose(path, noise, square, mean, least)
            ridge = damping * mean
            moved = images + length * path.solution(ridge).reshape(images.shape)
            gain = now.loss - residuals.loss(moved, state.labels, batch)
            taken = gain > 0  # False where it is not finite.
            ratio = jnp.where(taken, gain / (path.gain(ridge, length) / (2 * entries)), 0)
            # Where the model held, more is dared next time; where not, less than it was this time.
            dared = jnp.maximum(_GOOD * least, ridge_path.DAMPINGS[0])
            careful = damping * jnp.where(taken, _POOR, _REFUSED)
            least = jnp.where(ratio > 0.75, dared, jnp.where(ratio < 0.4, careful, least))
            moved = jnp.where(taken, moved, images)
            return moved, ratio, (damping, length), least, trials + 1

        def refused(carry: tuple) -> jax.Array:
            return (carry[1] <= 0) & (carry[-1] < _TRIALS)

        none = jnp.zeros_like(now.loss)
        start = (images, none, (none, none), state.opt_state["damping"], 0)
        moved, ratio, chosen, least, _ = jax.lax.while_loop(refused, attempt, start)
        metrics = {
            "loss": now.loss,
            "accuracy": now.accuracy,
            "grad_norm": jnp.linalg.norm(path.parts) / entries,
            "damping": chosen[0],
            "length": chosen[1],
            "gain_ratio": ratio,
        }
        state = state.replace(
            step=state.step + 1, params={"images": moved}, opt_state={"damping": least}
        )
        return state, metrics

    return jax.jit(step, donate_argnums=0)
