"""Gauss-Newton steps on the support images, with the labels solved for.

With the best labels a support predicts `K_ts alpha*`, which is linear in alpha and, over a small
step, nearly linear in the images. So the loss is a least-squares problem whose curvature is known
from first derivatives: those of every pair, `dk`, cost no more than their sum, the gradient that a
step of descent takes. Levenberg and Marquardt's damping says how far the linear model is trusted.

The method: Golub and Pereyra (SIAM J. Numer. Anal. 1973) for the separation of the labels, in the
form of Kaufman (BIT 1975), which leaves out the second derivative's part; More (1978) for the
ratio of gains. Shapes: S support images, T targets, C classes, P numbers an image.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from kip_flax import krr, label_solve
from kip_flax.kernels.jacobian import Jacobian
from kip_flax.state import KipState

Kernel = Callable[[jax.Array, jax.Array], jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[KipState, jax.Array, jax.Array, jax.Array], tuple[KipState, Metrics]]

_TRIALS = 6  # Steps of a batch that may be refused, each with more damping.
_REFUSED, _POOR, _GOOD = 4.0, 2.5, 1 / 3  # What the damping is multiplied by.
_TOLERANCE = 1e-6  # Conjugate gradients end where the squared residual has fallen to this share.


def init(images: jax.Array, labels: jax.Array, damping: float) -> KipState:
    """State before the first step: images (S, H, W, C), the labels (S, classes) not used."""
    params = {"images": jnp.asarray(images, jnp.float32)}
    state = {"damping": jnp.asarray(damping, jnp.float32)}
    return KipState(jnp.zeros((), jnp.int32), params, jnp.asarray(labels, jnp.float32), state)


class Fit(NamedTuple):
    """The best predictions that a support can give its targets.

    Attributes:
        alpha: (S, C), float64: predictions are K_ts alpha.
        residuals: (T, C), predictions less labels; 0 where a target is padding.
        basis: (T, S), orthonormal columns that span those of K_ts.
        loss: the KIP loss; accuracy: share of targets.
    """

    alpha: jax.Array
    residuals: jax.Array
    basis: jax.Array
    loss: jax.Array
    accuracy: jax.Array


def fit(k_ts: jax.Array, y_t: jax.Array, weights: jax.Array, reg: float) -> Fit:
    """Solves for alpha; `weights` (T,) are 0 where a target is padding, `reg` is absolute."""
    gram, cross = label_solve.sums(k_ts, y_t, weights)
    alpha = label_solve.solution(gram, cross, reg)
    pred = krr.predict(k_ts, alpha)
    weighted = k_ts.astype(gram.dtype) * weights[:, None]
    factor = jnp.linalg.cholesky(krr.add_ridge((gram + gram.T) / 2, reg / len(gram)))
    basis = jax.scipy.linalg.solve_triangular(factor, weighted.T, lower=True).T
    return Fit(
        alpha,
        (pred - y_t) * weights[:, None],
        basis.astype(jnp.float32),
        krr.loss(pred, y_t, weights),
        krr.accuracy(pred, jnp.argmax(y_t, axis=-1), weights),
    )


class Model(NamedTuple):
    """The residuals as a linear function of the images, the labels following at their best.

    Attributes:
        dk: (S, T, P), the derivative of K_ts in the images.
        alpha: (S, C). basis: (T, S), see `Fit`. weights: (T,).
    """

    dk: jax.Array
    alpha: jax.Array
    basis: jax.Array
    weights: jax.Array

    def forward(self, direction: jax.Array) -> jax.Array:
        """How the residuals (T, C) change along a direction (S, P)."""
        moved = _product("stp,sp->ts", self.dk, direction) * self.weights[:, None]
        return self._free(_product("ts,sc->tc", moved, self.alpha))

    def transpose(self, residuals: jax.Array) -> jax.Array:
        """(S, P) of (T, C)."""
        back = _product("tc,sc->st", self._free(residuals), self.alpha) * self.weights
        return _product("st,stp->sp", back, self.dk)

    def diagonal(self) -> jax.Array:
        """That of `transpose` after `forward` (S, P), as if no label followed."""
        # A sum, not a product of arrays: XLA squares as it reads, and writes no second dk down.
        squares = jnp.sum(self.weights[:, None] * jnp.square(self.dk), axis=1)
        return squares * jnp.sum(self.alpha**2, axis=1)[:, None]

    def _free(self, residuals: jax.Array) -> jax.Array:
        """What labels cannot take away: the part of (T, C) that K_ts does not span."""
        spanned = _product("ts,tc->sc", self.basis, residuals)
        return residuals - _product("ts,sc->tc", self.basis, spanned)


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


def make_step(kernel: Kernel, jacobian: Jacobian, reg: float, iterations: int) -> Step:
    """`step(state, x_t, y_t, weights) -> (state, metrics)`.

    Args:
        kernel, jacobian: K_ts (T, S), and the same with its derivative; on a mesh where wanted.
        reg: absolute ridge of the labels' solution, as in `label_solve`.
        iterations: of conjugate gradients, at most.

    A step that would not lower the loss of its batch is tried again with more damping, and after
    six trials left out. Metrics are the loss and accuracy before it, the norm of the gradient, the
    damping, and the gain as a share of what the model had foretold (0 where no step was taken).
    """

    def step(
        state: KipState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[KipState, Metrics]:
        images = state.params["images"]
        k_ts, dk = jacobian(x_t, images)
        now = fit(k_ts, y_t, weights, reg)
        alpha = now.alpha.astype(jnp.float32)
        model = Model(dk.reshape(*dk.shape[:2], -1), alpha, now.basis, weights)

        def attempt(carry: tuple) -> tuple:
            _, _, damping, trials = carry
            way = direction(model, now.residuals, damping, iterations)
            foretold = krr.loss(now.residuals + model.forward(way), jnp.zeros_like(y_t), weights)
            moved = images + way.reshape(images.shape)
            gain = now.loss - fit(kernel(x_t, moved), y_t, weights, reg).loss
            taken = gain > 0  # False where it is not finite.
            ratio = jnp.where(taken, gain / (now.loss - foretold), 0)
            factor = jnp.where(ratio > 0.75, _GOOD, jnp.where(ratio < 0.4, _POOR, 1.0))
            factor = jnp.where(taken, factor, _REFUSED)
            return jnp.where(taken, moved, images), ratio, damping * factor, trials + 1

        def refused(carry: tuple) -> jax.Array:
            return (carry[1] <= 0) & (carry[3] < _TRIALS)

        damping = state.opt_state["damping"]
        start = (images, jnp.zeros_like(now.loss), damping, 0)
        images, ratio, damping, _ = jax.lax.while_loop(refused, attempt, start)
        gradient = model.transpose(now.residuals) / (jnp.sum(weights) * y_t.shape[1])
        metrics = {
            "loss": now.loss,
            "accuracy": now.accuracy,
            "grad_norm": jnp.linalg.norm(gradient),
            "damping": damping,
            "gain_ratio": ratio,
        }
        state = state.replace(
            step=state.step + 1, params={"images": images}, opt_state={"damping": damping}
        )
        return state, metrics

    return jax.jit(step, donate_argnums=0)


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, a, b, precision=jax.lax.Precision.HIGHEST)
