"""The residuals of kernel ridge regression as a function of the support images, and its derivative.

Labels are either solved (the best ones for the images, which change with them) or fixed. Both kinds
give the loss at given images, and the linear model of the residuals that a Gauss-Newton step needs.

Solved labels: Golub and Pereyra (SIAM J. Numer. Anal. 1973), in the form of Kaufman (BIT 1975),
which drops the second term of the derivative.

The first B of the support images move. The others need only their kernel entries, so the memory of
gradients grows with B, not S. Labels are solved for with all images.
Shapes: S support images, T targets, C classes, P numbers per image.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from kip_flax import krr
from kip_flax.kernels import Kernel
from kip_flax.kernels.jacobian import Jacobian
from kip_flax.krr import label_solve
from kip_flax.runtime.precision import product


class Batch(NamedTuple):
    """Targets: images (T, H, W, C), labels (T, C), weights (T,), 0 where a target is padding."""

    x: jax.Array
    y: jax.Array
    weights: jax.Array


class Fit(NamedTuple):
    """The fit of a support to a batch of targets.

    Attributes:
        residuals: (T, C), predictions minus labels; 0 where a target is padding.
        loss: (), the KIP loss.
        accuracy: (), share of targets predicted right (0 to 1).
    """

    residuals: jax.Array
    loss: jax.Array
    accuracy: jax.Array


class Model(Protocol):
    """The residuals as a linear function of the images that move."""

    def forward(self, direction: jax.Array) -> jax.Array:
        """The change (T, C) of the residuals along a direction (B, P)."""

    def transpose(self, residuals: jax.Array) -> jax.Array:
        """The transpose of `forward`: (T, C) to (B, P)."""

    def diagonal(self) -> jax.Array:
        """The approximate diagonal (B,) of `transpose` after `forward`, with alpha held fixed.

        Each entry is the mean over an image's numbers.
        """

    def unfitted(self, residuals: jax.Array) -> jax.Array:
        """The part of residuals (T, C) that no labels can remove."""


class Entries(NamedTuple):
    """Kernel entries: K_ts (T, S), and K_ss (S, S) where the residuals need it."""

    ts: jax.Array
    ss: jax.Array | None


class Linearized(NamedTuple):
    """The residuals around given images.

    Attributes:
        fit: the fit of the images.
        model: how the residuals change as the first B images move.
        entries: the kernel entries of the images.
        evaluate: images (B, H, W, C) -> the KIP loss () and the entries, with them in the place of
            the first B.
    """

    fit: Fit
    model: Model
    entries: Entries
    evaluate: Callable[[jax.Array], tuple[jax.Array, Entries]]


class Residuals(NamedTuple):
    """Functions of support images (S, H, W, C) and a batch.

    Attributes:
        entries: (images, batch) -> the kernel entries alone.
        linearize: (images, labels (S, C), batch, B, entries) -> the residuals around the images.
            The entries are those of the images; None if all images move.
    """

    entries: Callable[[jax.Array, Batch], Entries]
    linearize: Callable[[jax.Array, jax.Array, Batch, int, Entries | None], Linearized]


def with_solved_labels(kernel: Kernel, jacobian: Jacobian, reg: float) -> Residuals:
    """Residuals with the labels that fit the batch best; `linearize` ignores those given to it.

    `reg` is absolute, as in `label_solve`.
    """

    def best(k_ts: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array, Fit]:
        sums = label_solve.sum_targets(k_ts, batch.y, batch.weights)
        alpha = label_solve.solution(sums, reg)
        return sums.gram, alpha, _fit(k_ts, alpha, batch)

    def entries(images: jax.Array, batch: Batch) -> Entries:
        return Entries(kernel(batch.x, images), None)

    def linearize(
        images: jax.Array, labels: jax.Array, batch: Batch, moving: int, known: Entries | None
    ) -> Linearized:
        del labels
        columns, dk = jacobian(batch.x, images[:moving])
        stay = None if known is None else known.ts[:, moving:]
        k_ts = _beside(columns, stay)
        gram, alpha, fit = best(k_ts, batch)
        weighted = k_ts.astype(gram.dtype) * batch.weights[:, None]
        # Factor (S, S) only: a solve with T columns would gather the targets from all devices.
        ridge = label_solve.ridge_of(gram, reg)
        basis = product(weighted, krr.inverse_factor(krr.add_ridge(gram, ridge)).T)
        model = SolvedModel(dk, _single(alpha[:moving]), _single(basis), batch.weights)

        def evaluate(others: jax.Array) -> tuple[jax.Array, Entries]:
            k_ts = _beside(kernel(batch.x, others), stay)
            return best(k_ts, batch)[2].loss, Entries(k_ts, None)

        return Linearized(fit, model, Entries(k_ts, None), evaluate)

    return Residuals(entries, linearize)


def with_fixed_labels(kernel: Kernel, jacobian: Jacobian, reg: float) -> Residuals:
    """Residuals with the given labels. `reg` is relative to the mean of the diagonal of K_ss."""

    def entries(images: jax.Array, batch: Batch) -> Entries:
        return Entries(kernel(batch.x, images), kernel(images, images))

    def linearize(
        images: jax.Array, labels: jax.Array, batch: Batch, moving: int, known: Entries | None
    ) -> Linearized:
        resting = images[moving:]
        columns_ts, dk_ts = jacobian(batch.x, images[:moving])
        columns_ss, dk_ss = jacobian(images, images[:moving])
        known_ts, known_ss = (None, None) if known is None else known
        stay_ts = None if known_ts is None else known_ts[:, moving:]
        stay_ss = None if known_ss is None else known_ss[moving:, moving:]
        k_ts, k_ss = _beside(columns_ts, stay_ts), _bordered(columns_ss, stay_ss)
        alpha = krr.solve(k_ss, labels, reg)
        inverse = krr.solve(k_ss, jnp.eye(len(k_ss)), reg)
        smoother = product(k_ts, inverse) * batch.weights[:, None]
        share = jnp.float32(reg / len(k_ss))
        model = FixedModel(dk_ts, dk_ss, _single(alpha), _single(smoother), batch.weights, share)

        def evaluate(others: jax.Array) -> tuple[jax.Array, Entries]:
            own = kernel(others, others)
            columns = jnp.concatenate([own, kernel(resting, others)]) if len(resting) else own
            k_ss = _bordered(columns, stay_ss)
            k_ts = _beside(kernel(batch.x, others), stay_ts)
            alpha = krr.solve(k_ss, labels, reg)
            return _fit(k_ts, alpha, batch).loss, Entries(k_ts, k_ss)

        return Linearized(_fit(k_ts, alpha, batch), model, Entries(k_ts, k_ss), evaluate)

    return Residuals(entries, linearize)


class SolvedModel(NamedTuple):
    """The linear model with solved labels.

    Attributes:
        dk: (B, T, P), the derivative of K_ts in the images that move.
        alpha: (B, C), the rows of alpha for those images; predictions are K_ts alpha.
        basis: (T, S), columns that span those of K_ts, orthonormal up to the ridge.
        weights: (T,), 0 where a target is padding.
    """

    dk: jax.Array
    alpha: jax.Array
    basis: jax.Array
    weights: jax.Array

    def forward(self, direction: jax.Array) -> jax.Array:
        moved = _product("stp,sp->ts", self.dk, direction) * self.weights[:, None]
        return self.unfitted(_product("ts,sc->tc", moved, self.alpha))

    def transpose(self, residuals: jax.Array) -> jax.Array:
        back = _product("tc,sc->st", self.unfitted(residuals), self.alpha) * self.weights
        return _product("st,stp->sp", back, self.dk)

    def diagonal(self) -> jax.Array:
        return _diagonal(self.dk, self.alpha, self.weights)

    def unfitted(self, residuals: jax.Array) -> jax.Array:
        """The part of (T, C) that K_ts does not span."""
        spanned = _product("ts,tc->sc", self.basis, residuals)
        return residuals - _product("ts,sc->tc", self.basis, spanned)


class FixedModel(NamedTuple):
    """The linear model with fixed labels: K_ss and its ridge move with the images.

    Attributes:
        dk: (B, T, P), the derivative of K_ts in the images that move.
        dk_ss: (B, S, P); [s, i] is the derivative of k(x_i, x_s) in x_s, with x_i held.
        alpha: (S, C): predictions are K_ts alpha.
        smoother: (T, S), K_ts K_ss^-1 with the ridge in K_ss; 0 for padding.
        weights: (T,), 0 where a target is padding.
        share: (), the ridge as a share of the trace of K_ss.
    """

    dk: jax.Array
    dk_ss: jax.Array
    alpha: jax.Array
    smoother: jax.Array
    weights: jax.Array
    share: jax.Array

    def forward(self, direction: jax.Array) -> jax.Array:
        moved = _product("stp,sp->ts", self.dk, direction) * self.weights[:, None]
        half = _product("sip,sp->is", self.dk_ss, direction)
        half = jnp.pad(half, ((0, 0), (0, len(half) - len(self.dk))))
        bent = _product("ti,is->ts", self.smoother, self._whole(half))
        moved = _product("ts,sc->tc", moved, self.alpha[: len(self.dk)])
        return moved - _product("ts,sc->tc", bent, self.alpha)

    def transpose(self, residuals: jax.Array) -> jax.Array:
        moving = len(self.dk)
        back = _product("tc,sc->st", residuals, self.alpha)
        half = _product("st,ti->si", back, self.smoother)
        moved = _product("st,stp->sp", back[:moving] * self.weights, self.dk)
        return moved - _product("si,sip->sp", self._whole(half)[:moving], self.dk_ss)

    def diagonal(self) -> jax.Array:
        return _diagonal(self.dk, self.alpha[: len(self.dk)], self.weights)

    def unfitted(self, residuals: jax.Array) -> jax.Array:
        return residuals

    def _whole(self, half: jax.Array) -> jax.Array:
        """Symmetrise `half` (S, S), where one image of a pair moves, and add the ridge's part."""
        both = half + half.T
        return both + self.share * jnp.trace(both) * jnp.eye(len(both), dtype=both.dtype)


def _fit(k_ts: jax.Array, alpha: jax.Array, batch: Batch) -> Fit:
    pred = krr.predict(k_ts, alpha)
    return Fit(
        (pred - batch.y) * batch.weights[:, None],
        krr.loss(pred, batch.y, batch.weights),
        krr.accuracy(pred, jnp.argmax(batch.y, axis=-1), batch.weights),
    )


def _diagonal(dk: jax.Array, alpha: jax.Array, weights: jax.Array) -> jax.Array:
    # Reduce over an image's numbers first: XLA then squares as it reads. With the targets first,
    # it materialises a second dk (jaxlib 0.10, CPU).
    squares = product(jnp.mean(jnp.square(dk), axis=2), weights)
    return squares * jnp.sum(alpha**2, axis=1)


def _beside(moved: jax.Array, stay: jax.Array | None) -> jax.Array:
    """K_ts (T, S) from the columns of the images that move and of those that stay."""
    return moved if stay is None else jnp.concatenate([moved, stay], axis=1)


def _bordered(moved: jax.Array, stay: jax.Array | None) -> jax.Array:
    """K_ss from the columns (S, B) of the images that move, and the block of those that stay."""
    if stay is None:
        return moved
    moving = moved.shape[1]
    return jnp.block([[moved[:moving], moved[moving:].T], [moved[moving:], stay]])


def _single(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, a, b, precision=jax.lax.Precision.HIGHEST)
