"""Gauss-Newton steps on the support images.

The residuals are nearly linear in the images over a small step. So the loss is a least-squares
problem, and first derivatives give its curvature. The derivatives of every pair cost no more than
their sum, the gradient that a step of descent takes.

A step is damped for two reasons. The linear model holds near the images only (Levenberg and
Marquardt; More, 1978, for the ratio of gains). And the batch is a sample of the targets
(`damping`).

A step fits some of the noise of its batch. The noise averages out over steps, so the images to use
are an average over the steps (Polyak and Juditsky, SIAM J. Control Optim. 1992), weighted by the
cube of the step's number (polynomial-decay averaging: Shamir and Zhang, ICML 2013).

A step may move a block of the images, drawn in turn (block coordinate descent). Its gradients take
the memory of the block, and the batch can be as much larger.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kip_flax.krr import damping
from kip_flax.krr.residuals import Batch, Residuals

Metrics = dict[str, jax.Array]

_TRIALS = 6  # Steps of a batch that may be refused, each with more damping.
_LEAST_GAIN = 1e-5  # As a share of the loss; less is not told from rounding.
_POWER = 3  # Exponent: the images of step n weigh about n^3 in the average.
_REFUSED, _POOR, _GOOD = 4.0, 2.5, 1 / 3  # What the damping is multiplied by.


class Iterate(NamedTuple):
    """Where the steps are.

    Attributes:
        number: () int32, steps taken.
        images: (S, H, W, C), the support.
        labels: (S, classes), its labels, which steps do not change.
        damping: (), the least damping of the next step.
        average: (S, H, W, C), the average of the images of the steps, which is exported.
    """

    number: jax.Array
    images: jax.Array
    labels: jax.Array
    damping: jax.Array
    average: jax.Array


Step = Callable[[Iterate, jax.Array, jax.Array, jax.Array], tuple[Iterate, Metrics]]


class Trial(NamedTuple):
    """A step that was tried. B images of the S move.

    Attributes:
        images: (B, H, W, C), after the step, or as they were if it was refused.
        ratio: (), its gain as a share of the predicted one; 0 if it was refused.
        damping, length: (), those of the step.
        least: (), the least damping of the next trial, or of the next step.
        number: (), trials so far.
    """

    images: jax.Array
    ratio: jax.Array
    damping: jax.Array
    length: jax.Array
    least: jax.Array
    number: jax.Array


def init(images: jax.Array, labels: jax.Array, least_damping: float) -> Iterate:
    """The iterate before the first step: images (S, H, W, C), labels (S, classes)."""
    images = jnp.asarray(images, jnp.float32)
    return Iterate(
        number=jnp.zeros((), jnp.int32),
        images=images,
        labels=jnp.asarray(labels, jnp.float32),
        damping=jnp.asarray(least_damping, jnp.float32),
        average=jnp.array(images),  # A copy: a step takes over the memory of its iterate.
    )


def make_step(residuals: Residuals, iterations: int, key: jax.Array, block: int = 0) -> Step:
    """`step(iterate, x_t, y_t, weights) -> (iterate, metrics)`, compiled.

    Args:
        residuals: those of solved or of fixed labels; on a mesh where wanted.
        iterations: directions that a step is made of.
        key: of the blocks, and of the signs that say what fitting noise looks like.
        block: images that a step moves, a divisor of their number; 0: all.

    Retry with more damping while the GCV loss does not fall. Skip the step after six trials, or
    where no gain is predicted. Metrics are the loss and accuracy before it, the norm
    of the gradient, the damping and length (share of the way) of the step, and its gain in the GCV
    loss as a share of the predicted one (0 where no step was taken).
    """

    def step(
        iterate: Iterate, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[Iterate, Metrics]:
        moving = block or len(iterate.images)
        order = _moving_first(len(iterate.images), moving, iterate.number, key)
        images, labels = iterate.images[order], iterate.labels[order]
        now, model, loss = residuals(images, labels, Batch(x_t, y_t, weights), moving)
        images = images[:moving]
        entries = jnp.sum(weights) * y_t.shape[1]
        signs = jax.random.fold_in(key, iterate.number)
        path, noise = damping.paths(model, now.residuals, signs, iterations)
        mean = jnp.mean(model.diagonal())

        def attempt(carry: Trial) -> Trial:
            choice = damping.choose(path, noise, mean, carry.least)
            way = choice.length * path.solution(choice.damping * mean)
            moved = images + way.reshape(images.shape)
            left = loss(moved) / now.loss
            gain = 1 - damping.gcv_loss(left, choice.noise)
            hopeless = 1 - choice.predicted_loss < _LEAST_GAIN
            taken = (gain > 0) & ~hopeless  # False where it is not finite.
            ratio = jnp.where(taken, gain / (1 - choice.predicted_loss), 0)
            least = _next_least(carry.least, choice.damping, ratio, taken, hopeless)
            moved = jnp.where(taken, moved, images)
            number = jnp.where(hopeless, _TRIALS, carry.number + 1)
            return Trial(moved, ratio, choice.damping, choice.length, least, number)

        def refused(carry: Trial) -> jax.Array:
            return (carry.ratio <= 0) & (carry.number < _TRIALS)

        none = jnp.zeros_like(now.loss)
        start = Trial(images, none, none, none, iterate.damping, jnp.int32(0))
        end = jax.lax.while_loop(refused, attempt, start)
        metrics = {
            "loss": now.loss,
            "accuracy": now.accuracy,
            "grad_norm": jnp.linalg.norm(path.parts) / entries,
            "damping": end.damping,
            "length": end.length,
            "gain_ratio": end.ratio,
        }
        number = iterate.number + 1
        images = iterate.images.at[order[:moving]].set(end.images)
        average = _averaged(iterate.average, images, number)
        return Iterate(number, images, iterate.labels, end.least, average), metrics

    return jax.jit(step, donate_argnums=0)


def _moving_first(size: int, moving: int, number: jax.Array, key: jax.Array) -> jax.Array:
    """(size,), the images with those that step `number` moves ahead of the others.

    Every image moves once before one moves again.
    """
    if moving == size:
        return jnp.arange(size)
    steps = size // moving  # Of one pass over the images.
    order = jax.random.permutation(jax.random.fold_in(key, number // steps), size)
    return jnp.roll(order, -moving * (number % steps))


def _averaged(average: jax.Array, images: jax.Array, number: jax.Array) -> jax.Array:
    """With the images after step `number`, from 1; the first ones take the average's place."""
    return average + (_POWER + 1) / (number + _POWER) * (images - average)


def _next_least(
    least: jax.Array, tried: jax.Array, ratio: jax.Array, taken: jax.Array, hopeless: jax.Array
) -> jax.Array:
    """Lower the damping floor after a good gain ratio, raise it above `tried` after a poor one."""
    dared = jnp.maximum(_GOOD * least, damping.DAMPINGS[0])
    careful = tried * jnp.where(taken, _POOR, _REFUSED)
    careful = jnp.minimum(careful, damping.DAMPINGS[-1])
    kept = jnp.where((ratio < 0.4) & ~hopeless, careful, least)
    return jnp.where(ratio > 0.75, dared, kept)
