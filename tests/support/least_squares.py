"""A small problem of least squares, its two kinds of residuals, and their losses in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from kip_flax import krr
from kip_flax.krr import residuals


def _kernel(a, b):
    """A kernel that compiles at once. k(x, x) moves with x, as it does in networks."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    return jnp.exp(jnp.matmul(a, b.T, precision="highest") / a.shape[1])


def _jacobian(x_t, x_s):
    k, rows = _kernel(x_t, x_s), x_t.reshape(len(x_t), -1)
    return k, k.T[:, :, None] * rows / rows.shape[1]


KERNEL, JACOBIAN = jax.jit(_kernel), jax.jit(_jacobian)
REG = 1e-9
KINDS = ("solved", "fixed")


def problem(support=4, targets=30, classes=3, side=3, seed=0):
    """Support images, labels, and a batch that the images are near to."""
    rng = np.random.default_rng(seed)
    x_t = rng.normal(size=(targets, side, side, 1)).astype(np.float32)
    numbers = rng.integers(classes, size=targets)
    y_t = np.asarray(krr.centered_one_hot(numbers, classes))
    batch = residuals.Batch(x_t, y_t, np.ones(targets, np.float32))
    return x_t[:support] + 0.5, y_t[:support], batch


def residuals_of(kind, kernel=KERNEL, jacobian=JACOBIAN, reg=REG):
    """Of solved or of fixed labels."""
    make = {"solved": residuals.with_solved_labels, "fixed": residuals.with_fixed_labels}[kind]
    return make(kernel, jacobian, reg)


def _solved(images, labels, batch):
    k = np.asarray(KERNEL(batch.x.astype(float), images.astype(float)))
    left = k @ np.linalg.lstsq(k, batch.y, rcond=None)[0] - batch.y
    return 0.5 * np.mean(left**2)


def _fixed(images, labels, batch):
    x_s, x_t = images.astype(float), batch.x.astype(float)
    k_ss = np.asarray(KERNEL(x_s, x_s))
    k_ss = k_ss + REG * np.trace(k_ss) / len(k_ss) * np.eye(len(k_ss))
    left = np.asarray(KERNEL(x_t, x_s)) @ np.linalg.solve(k_ss, labels) - batch.y
    return 0.5 * np.mean(left**2)


losses = {"solved": _solved, "fixed": _fixed}


def dense(model, support, size):
    """The model as a matrix (T C, S P), a column for every pixel."""
    columns = np.eye(support * size).reshape(-1, support, size).astype(np.float32)
    return np.asarray(jax.vmap(model.forward)(columns)).reshape(len(columns), -1).T
