"""The KIP step (Nguyen et al., ICLR 2021, Algorithm 1): one optimiser step on the support.

The loss is that of kernel ridge regression from the support to a batch of targets; its gradient
goes through the kernel to the support images and, where they are learned, the support labels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from kip_flax import krr
from kip_flax.algorithms._state import KipState
from kip_flax.kernels import Kernel
from kip_flax.krr import label_solve

Metrics = dict[str, jax.Array]
Step = Callable[[KipState, jax.Array, jax.Array, jax.Array], tuple[KipState, Metrics]]


def init(
    images: jax.Array, labels: jax.Array, tx: optax.GradientTransformation, learn_labels: bool
) -> KipState:
    """State before the first step: support images (S, H, W, C) and labels (S, classes)."""
    params = {"images": jnp.asarray(images, jnp.float32)}
    labels = jnp.asarray(labels, jnp.float32)
    if learn_labels:
        params["labels"] = jnp.array(labels)  # A copy: a step takes over the memory of its state.
    return KipState(jnp.zeros((), jnp.int32), params, labels, tx.init(params))


def make_step(kernel: Kernel, tx: optax.GradientTransformation, reg: float) -> Step:
    """`step(state, x_t, y_t, weights) -> (state, metrics)`, compiled.

    Args:
        kernel: `kernel(x1, x2) -> (n1, n2)`, on a mesh where wanted (`kernels.sharded`).
        tx: optimiser of the support.
        reg: ridge, relative to the mean of the diagonal of K_ss.

    The step takes targets x_t (T, H, W, C), their labels y_t (T, classes) and weights (T,), 0 where
    a target is padding. Its metrics are the loss, accuracy and gradient norm before the update.
    """

    def loss_fn(
        params: dict[str, jax.Array],
        fixed_labels: jax.Array,
        x_t: jax.Array,
        y_t: jax.Array,
        weights: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        x_s, y_s = params["images"], params.get("labels", fixed_labels)
        alpha = krr.solve(kernel(x_s, x_s), y_s, reg)
        pred = krr.predict(kernel(x_t, x_s), alpha)
        return krr.loss(pred, y_t, weights), pred

    return _stepper(loss_fn, tx)


def make_solved_step(kernel: Kernel, tx: optax.GradientTransformation, reg: float) -> Step:
    """As `make_step`, with the labels that fit each batch best in the place of learned ones.

    Variable projection (Golub and Pereyra, SIAM J. Numer. Anal. 1973): at the best labels the loss
    does not change with them to first order, so its gradient in the images takes them as fixed.
    The best predictions that a support can give are K_ts alpha* (`label_solve.solution`), whatever
    its labels: K_ss is not needed.

    Args:
        kernel, tx: as in `make_step`.
        reg: absolute ridge of the labels' solution, as in `label_solve`.
    """

    def loss_fn(
        params: dict[str, jax.Array],
        fixed_labels: jax.Array,
        x_t: jax.Array,
        y_t: jax.Array,
        weights: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        del fixed_labels
        k_ts = kernel(x_t, params["images"])
        gram, cross = label_solve.sums(jax.lax.stop_gradient(k_ts), y_t, weights)
        pred = krr.predict(k_ts, label_solve.solution(gram, cross, reg))
        return krr.loss(pred, y_t, weights), pred

    return _stepper(loss_fn, tx)


def _stepper(
    loss_fn: Callable[..., tuple[jax.Array, jax.Array]], tx: optax.GradientTransformation
) -> Step:
    def step(
        state: KipState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[KipState, Metrics]:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, pred), grads = grad_fn(state.params, state.labels, x_t, y_t, weights)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "accuracy": krr.accuracy(pred, jnp.argmax(y_t, axis=-1), weights),
            "grad_norm": optax.tree.norm(grads),
        }
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return jax.jit(step, donate_argnums=0)
