"""Gauss-Newton steps on the support images.

The residuals are nearly linear in the images over a small step, so the loss is a least-squares
problem whose curvature is known from first derivatives: those of every pair cost no more than their
sum, the gradient that a step of descent takes. A step is damped for two reasons. The linear model
holds near the images only (Levenberg and Marquardt; More, 1978, for the ratio of gains), and the
batch is a sample of the targets (`ridge_path`).

What a step keeps of the noise of its batch averages out over steps: the images to use are a mean
of those that the steps had, the later the more (Polyak and Juditsky, SIAM J. Control Optim. 1992;
weights as the cube of the step's number: Shamir and Zhang, ICML 2013, polynomial-decay averaging).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kip_flax.algorithms._state import KipState
from kip_flax.krr import damping as ridge_path
from kip_flax.krr.residuals import Residuals, Targets

Metrics = dict[str, jax.Array]
Step = Callable[[KipState, jax.Array, jax.Array, jax.Array], tuple[KipState, Metrics]]

_TRIALS = 6  # Steps of a batch that may be refused, each with more damping.
_LEAST_GAIN = 1e-5  # As a share of the loss; less is not told from rounding.
_POWER = 3  # Of a step's number, its images' weight in the average.
_REFUSED, _POOR, _GOOD = 4.0, 2.5, 1 / 3  # What the damping is multiplied by.


class Trial(NamedTuple):
    """Images after a step that was tried, or as they were; how it went; the next least damping."""

    images: jax.Array
    ratio: jax.Array
    damping: jax.Array
    length: jax.Array
    least: jax.Array
    number: jax.Array


def init(images: jax.Array, labels: jax.Array, damping: float) -> KipState:
    """State before the first step: images (S, H, W, C), labels (S, classes)."""
    params = {"images": jnp.asarray(images, jnp.float32)}
    average = jnp.array(params["images"])  # A copy: a step takes over the memory of its state.
    state = {"damping": jnp.asarray(damping, jnp.float32), "average": average}
    return KipState(jnp.zeros((), jnp.int32), params, jnp.asarray(labels, jnp.float32), state)


def make_step(residuals: Residuals, iterations: int, key: jax.Array) -> Step:
    """`step(state, x_t, y_t, weights) -> (state, metrics)`.

    Args:
        residuals: those of solved or of fixed labels; on a mesh where wanted.
        iterations: directions that a step is made of.
        key: of the signs that say what fitting noise looks like.

    A step that leaves too much of its batch's loss to be of use elsewhere is tried again with more
    damping; after six trials, or where nothing is promised, it is left out. Metrics are the loss
    and accuracy before it, the norm of the gradient, the damping and length (share of the way) of
    the step, and its gain elsewhere as a share of what was promised (0 where no step was taken).
    The state keeps the least damping of the next step.
    """

    def step(
        state: KipState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[KipState, Metrics]:
        images, batch = state.params["images"], Targets(x_t, y_t, weights)
        now, model = residuals.linearise(images, state.labels, batch)
        entries = jnp.sum(weights) * y_t.shape[1]
        signs = jax.random.fold_in(key, state.step)
        path, noise = ridge_path.paths(model, now.residuals, signs, iterations)
        mean = jnp.mean(model.diagonal())

        def attempt(carry: Trial) -> Trial:
            choice = ridge_path.choose(path, noise, mean, carry.least)
            way = choice.length * path.solution(choice.damping * mean)
            moved = images + way.reshape(images.shape)
            left = residuals.loss(moved, state.labels, batch) / now.loss
            gain = 1 - ridge_path.elsewhere(left, choice.noise)
            hopeless = 1 - choice.promised < _LEAST_GAIN
            taken = (gain > 0) & ~hopeless  # False where it is not finite.
            ratio = jnp.where(taken, gain / (1 - choice.promised), 0)
            least = _next_least(carry.least, choice.damping, ratio, taken, hopeless)
            moved = jnp.where(taken, moved, images)
            number = jnp.where(hopeless, _TRIALS, carry.number + 1)
            return Trial(moved, ratio, choice.damping, choice.length, least, number)

        def refused(carry: Trial) -> jax.Array:
            return (carry.ratio <= 0) & (carry.number < _TRIALS)

        none = jnp.zeros_like(now.loss)
        start = Trial(images, none, none, none, state.opt_state["damping"], jnp.int32(0))
        end = jax.lax.while_loop(refused, attempt, start)
        metrics = {
            "loss": now.loss,
            "accuracy": now.accuracy,
            "grad_norm": jnp.linalg.norm(path.parts) / entries,
            "damping": end.damping,
            "length": end.length,
            "gain_ratio": end.ratio,
        }
        average = _averaged(state.opt_state["average"], end.images, state.step + 1)
        state = state.replace(
            step=state.step + 1,
            params={"images": end.images},
            opt_state={"damping": end.least, "average": average},
        )
        return state, metrics

    return jax.jit(step, donate_argnums=0)


def averaged(state: KipState) -> KipState:
    """The state with the average of its images in their place: what there is to use."""
    return state.replace(params={"images": state.opt_state["average"]})


def _averaged(average: jax.Array, images: jax.Array, number: jax.Array) -> jax.Array:
    """With the images after step `number`, from 1; the first ones take the average's place."""
    return average + (_POWER + 1) / (number + _POWER) * (images - average)


def _next_least(
    least: jax.Array, damping: jax.Array, ratio: jax.Array, taken: jax.Array, hopeless: jax.Array
) -> jax.Array:
    """Where the model held, more is dared next time; where not, less than it was this time."""
    dared = jnp.maximum(_GOOD * least, ridge_path.DAMPINGS[0])
    careful = damping * jnp.where(taken, _POOR, _REFUSED)
    careful = jnp.minimum(careful, ridge_path.DAMPINGS[-1])
    kept = jnp.where((ratio < 0.4) & ~hopeless, careful, least)
    return jnp.where(ratio > 0.75, dared, kept)
