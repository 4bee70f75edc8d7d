"""Gauss-Newton steps on the support images.

The residuals are nearly linear in the images over a small step. So the loss is a least-squares
problem, and first derivatives give its curvature. The derivatives of all pairs cost no more than
their sum, which is the gradient of plain descent.

A step is damped for two reasons: the linear model holds only near the images (Levenberg and
Marquardt; More, 1978, for the gain ratio), and the batch is only a sample of the targets (see
`damping`).

A step fits some of the noise of its batch. The noise averages out over steps, so the exported
images are an average over the steps (Polyak and Juditsky, SIAM J. Control Optim. 1992), weighted
by about the cube of the step's number (polynomial-decay averaging: Shamir and Zhang, ICML 2013).

A step may move the images block by block, each block given the current others (Gauss-Seidel). Only
one block's gradients are in memory, so the batch can be larger by the same factor.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kip_flax.krr import damping
from kip_flax.krr.residuals import Batch, Entries, Residuals

Metrics = dict[str, jax.Array]

_TRIALS = 6  # Most trial steps of a block before it is skipped; each has more damping.
_LEAST_GAIN = 1e-5  # As a share of the loss; a smaller gain may be rounding.
_POWER = 3  # Exponent: the images of step n weigh about n^3 in the average.
_REFUSED, _POOR, _GOOD = 4.0, 2.5, 1 / 3  # Factors of the damping.


class Iterate(NamedTuple):
    """The state between steps.

    Attributes:
        number: () int32, steps taken.
        images: (S, H, W, C), the support.
        labels: (S, classes), its labels, which steps do not change.
        damping: (), the smallest damping allowed in the next step.
        average: (S, H, W, C), the average of the images of the steps, which is exported.
    """

    number: jax.Array
    images: jax.Array
    labels: jax.Array
    damping: jax.Array
    average: jax.Array


Step = Callable[[Iterate, jax.Array, jax.Array, jax.Array], tuple[Iterate, Metrics]]


class Attempt(NamedTuple):
    """An attempted step of a block, and its outcome.

    Attributes:
        images: (B, H, W, C), after the step; unchanged if it was refused.
        entries: the kernel entries with those images.
        ratio: (), the gain ratio: its gain over the predicted gain; 0 if it was refused.
        damping, length: (), as in `damping.Choice`.
        least: (), the smallest damping allowed in the next trial or step.
        number: (), trials so far; `_TRIALS` if no gain is predicted.
    """

    images: jax.Array
    entries: Entries
    ratio: jax.Array
    damping: jax.Array
    length: jax.Array
    least: jax.Array
    number: jax.Array


class RotatedSupport(NamedTuple):
    """The support between the blocks of a step; the block that moves next comes first.

    Attributes:
        images: (S, H, W, C).
        labels: (S, C).
        entries: the kernel entries; None if all images move at once.
        least: (), the smallest damping allowed in the next block.
    """

    images: jax.Array
    labels: jax.Array
    entries: Entries | None
    least: jax.Array


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
    """`step(iterate, x_t, y_t, weights) -> (iterate, metrics)`, compiled; it donates `iterate`.

    Args:
        residuals: those of solved or of fixed labels, possibly sharded over a mesh.
        iterations: search directions in the step of a block.
        key: random key of the blocks, and of the signs of noise (see `damping.paths`).
        block: images that move at once, a divisor of S; 0: all.

    Retry with more damping while the GCV loss does not fall. Skip the block after six trials, after
    one with the most damping, or where no gain is predicted. Metrics are the loss and accuracy
    before the step, the norm of the gradient, and means over the blocks of the step's damping,
    length (fraction of the way) and gain ratio: its gain in the GCV loss over the predicted gain, 0
    where no step was taken.
    """

    def step(
        iterate: Iterate, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[Iterate, Metrics]:
        size, batch = len(iterate.images), Batch(x_t, y_t, weights)
        own_key = jax.random.fold_in(key, iterate.number)
        moving = block or size
        order = jax.random.permutation(own_key, size) if moving < size else jnp.arange(size)
        images = iterate.images[order]
        entries = residuals.entries(images, batch) if moving < size else None
        support = RotatedSupport(images, iterate.labels[order], entries, iterate.damping)

        def of_block(support: RotatedSupport, number: jax.Array) -> tuple[RotatedSupport, Metrics]:
            signs = own_key if moving == size else jax.random.fold_in(own_key, number)
            moved, metrics = _move_first(residuals, iterations, signs, support, batch, moving)
            return _next_first(moved, moving), metrics

        support, metrics = jax.lax.scan(of_block, support, jnp.arange(size // moving))
        number = iterate.number + 1
        images = iterate.images.at[order].set(support.images)
        average = _averaged(iterate.average, images, number)
        # Every trial from a loss that is not finite is refused: the damping tells of it.
        least = jnp.where(jnp.isfinite(metrics["loss"]).all(), support.least, jnp.nan)
        moved = Iterate(number, images, iterate.labels, least, average)
        return moved, _summary(metrics)

    return jax.jit(step, donate_argnums=0)


def _move_first(
    residuals: Residuals,
    iterations: int,
    signs: jax.Array,
    support: RotatedSupport,
    batch: Batch,
    moving: int,
) -> tuple[RotatedSupport, Metrics]:
    """The support after a step of its first `moving` images, and the metrics of the step."""
    images, labels, known, least = support
    now, model, entries, evaluate = residuals.linearize(images, labels, batch, moving, known)
    first = images[:moving]
    path, noise = damping.paths(model, now.residuals, signs, iterations)
    mean = jnp.mean(model.diagonal())

    def attempt(carry: Attempt) -> Attempt:
        choice = damping.choose(path, noise, mean, carry.least)
        way = choice.length * path.solution(choice.damping * mean)
        moved = first + way.reshape(first.shape)
        loss, with_moved = evaluate(moved)
        gain = 1 - damping.gcv_loss(loss / now.loss, choice.noise)
        hopeless = 1 - choice.predicted_loss < _LEAST_GAIN
        taken = (gain > 0) & ~hopeless  # False if the gain is not finite.
        ratio = jnp.where(taken, gain / (1 - choice.predicted_loss), 0)
        least = _next_least(carry.least, choice.damping, ratio, taken, hopeless)
        moved = jnp.where(taken, moved, first)
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), with_moved, entries)
        number = jnp.where(hopeless, _TRIALS, carry.number + 1)
        return Attempt(moved, after, ratio, choice.damping, choice.length, least, number)

    def refused(carry: Attempt) -> jax.Array:
        may_rise = carry.damping < damping.DAMPINGS[-1]
        return (carry.ratio <= 0) & (carry.number < _TRIALS) & may_rise

    none = jnp.zeros_like(now.loss)
    start = Attempt(first, entries, none, none, none, least, jnp.int32(0))
    end = jax.lax.while_loop(refused, attempt, start)
    metrics = {
        "loss": now.loss,
        "accuracy": now.accuracy,
        "grad_norm": jnp.linalg.norm(path.parts) / (jnp.sum(batch.weights) * batch.y.shape[1]),
        "damping": end.damping,
        "length": end.length,
        "gain_ratio": end.ratio,
    }
    images = images.at[:moving].set(end.images)
    known = None if known is None else end.entries
    return RotatedSupport(images, labels, known, end.least), metrics


def _next_first(support: RotatedSupport, moving: int) -> RotatedSupport:
    """The support rotated by `moving` images, so that the next block comes first."""

    def turned(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        return jnp.roll(array, (-moving,) * len(axes), axes)

    images, labels, entries, least = support
    if entries is not None:
        ss = None if entries.ss is None else turned(entries.ss, (0, 1))
        entries = Entries(turned(entries.ts, (1,)), ss)
    return RotatedSupport(turned(images, (0,)), turned(labels, (0,)), entries, least)


def _summary(metrics: Metrics) -> Metrics:
    """The metrics of a step from those (blocks,) of its blocks; loss and accuracy of the first."""
    found = {name: jnp.mean(value) for name, value in metrics.items()}
    found["grad_norm"] = jnp.linalg.norm(metrics["grad_norm"])
    return found | {name: metrics[name][0] for name in ("loss", "accuracy")}


def _averaged(average: jax.Array, images: jax.Array, number: jax.Array) -> jax.Array:
    """The average updated with the images after step `number` (from 1); step 1 replaces it."""
    return average + (_POWER + 1) / (number + _POWER) * (images - average)


def _next_least(
    least: jax.Array, tried: jax.Array, ratio: jax.Array, taken: jax.Array, hopeless: jax.Array
) -> jax.Array:
    """Lower the damping floor after a good gain ratio, raise it above `tried` after a poor one."""
    lowered = jnp.maximum(_GOOD * least, damping.DAMPINGS[0])
    raised = tried * jnp.where(taken, _POOR, _REFUSED)
    raised = jnp.minimum(raised, damping.DAMPINGS[-1])
    kept = jnp.where((ratio < 0.4) & ~hopeless, raised, least)
    return jnp.where(ratio > 0.75, lowered, kept)
