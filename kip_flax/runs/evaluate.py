"""Test accuracy and error of kernel ridge regression on a distilled support set."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from kip_flax import data, krr, preprocess
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.preprocess import Preprocess
from kip_flax.runtime import sharding
from kip_flax.runtime.batching import pad_rows
from kip_flax.runtime.errors import UserError

Evaluate = Callable[[ArrayLike, ArrayLike], dict[str, float]]


def make_evaluate(
    kernel: Kernel,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    reg: float,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Evaluate:
    """A function `evaluate(images, labels) -> measures`, compiled once for each support shape.

    Args:
        kernel: kernel(x1, x2) -> (n1, n2), jit-able; already sharded over the mesh, if any.
        test_images: (T, H, W, channels), preprocessed.
        test_labels: (T,) integers.
        reg: regulariser relative to the support kernel's mean diagonal, as in `krr.solve`.
        batch_size: test images per kernel call; the last batch is padded to the same shape.
        mesh: batches are sharded over its 'data' axis; None: JAX's default device.

    Returns:
        A function of support images (S, H, W, channels) and labels (S, C) that returns `accuracy`
        (0 to 1) and `mse`, which is `krr.loss` over the test set: 0.5 * mean((pred - y)^2) with
        one-hot labels minus 1/C as y. It raises UserError if the support's regularised kernel is
        not positive definite, or labels are not finite.
    """
    batch_size = min(batch_size, len(test_images))
    # Every host gets the whole S x S kernel, so that each can check it.
    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    self_kernel = jax.jit(lambda images: kernel(images, images), out_shardings=whole)
    solve = jax.jit(krr.solve)
    measure = make_measure(kernel)

    def evaluate(images: ArrayLike, labels: ArrayLike) -> dict[str, float]:
        k_ss = self_kernel(images)
        krr.check_positive_definite(k_ss, reg)
        if not np.isfinite(labels).all():
            raise UserError(
                "the labels of the support are not finite: where they are solved for, raise reg."
            )
        alpha = solve(k_ss, labels, reg)
        sums = np.zeros(2)
        for start in range(0, len(test_images), batch_size):
            rows = slice(start, start + batch_size)
            count = len(test_labels[rows])
            batch = pad_rows(test_images[rows], batch_size), pad_rows(test_labels[rows], batch_size)
            x, y = batch if mesh is None else sharding.put_targets(mesh, *batch)[:2]
            accuracy, loss = measure(images, alpha, x, y, count)
            sums += count * np.array([float(accuracy), float(loss)])
        accuracy, mse = sums / len(test_images)
        return {"accuracy": float(accuracy), "mse": float(mse)}

    return evaluate


def make_measure(kernel: Kernel) -> jax.stages.Wrapped:
    """A compiled function `measure(images, alpha, x, labels, count) -> (accuracy, loss)`.

    It takes support images (S, H, W, channels) with their solution alpha (S, C), and a batch x (n,
    H, W, channels) with labels (n,). Rows from `count` on are padding.
    """

    @jax.jit
    def measure(
        images: jax.Array, alpha: jax.Array, x: jax.Array, labels: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        pred = krr.predict(kernel(x, images), alpha)
        y = krr.centered_one_hot(labels, alpha.shape[1])
        weights = jnp.arange(len(x)) < count  # all padding is at the end
        return krr.accuracy(pred, labels, weights), krr.loss(pred, y, weights)

    return measure


def on_test_images(
    config: ConfigDict, dataset: Dataset, fitted: Preprocess, kernel: Kernel, mesh: Mesh
) -> Evaluate:
    """`make_evaluate` on the test images of `dataset`, `config.eval.num_test` of them."""
    images, labels = data.test_subset(dataset, config.eval.num_test)
    return make_evaluate(
        kernel,
        preprocess.apply(fitted, images),
        labels,
        reg=config.reg,
        batch_size=config.eval.batch_size,
        mesh=mesh,
    )
