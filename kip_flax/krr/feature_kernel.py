"""Kernels of the features of finite networks, and kernel ridge regression with them.

The features of an image are the inputs of a network's last dense layer. Their inner product
estimates the NNGP kernel (RFAD: Loo et al., NeurIPS 2022, arXiv 2210.12067), or is itself the
kernel of a network that is being trained (FRePo: Zhou, Nezhadarya, Ba, NeurIPS 2022, arXiv
2206.00719). The cost grows with the number of images, not of pairs.

Shapes: n images, F features of a network, N networks; features are (n, F), or (N, n, F) for several
networks. S support images, T targets, C classes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kip_flax import krr
from kip_flax.runtime import batching
from kip_flax.runtime.precision import product

Tree = Any
# (parameters, other state, images (n, H, W, C)) -> (n, F): `networks.build.Functions.features`.
Features = Callable[[Tree, Tree, jax.Array], jax.Array]
# Features of two sets of images -> (n1, n2).
Kernel = Callable[[jax.Array, jax.Array], jax.Array]


class FeatureBatch(NamedTuple):
    """Targets: features (T, F) or (N, T, F), labels (T, C), weights (T,), 0 for padding."""

    features: jax.Array
    y: jax.Array
    weights: jax.Array


def linear(f1: jax.Array, f2: jax.Array) -> jax.Array:
    """The plain inner product (n1, n2), summed over networks: FRePo's kernel."""
    products = product(f1, jnp.swapaxes(f2, -1, -2))
    return products if f1.ndim == 2 else jnp.sum(products, axis=0)


def nngp(f1: jax.Array, f2: jax.Array, w_std: float, b_std: float) -> jax.Array:
    """The estimate w_std^2 mean(f1 f2) + b_std^2 (n1, n2) of the NNGP kernel.

    The mean is over features and networks. With networks drawn with the same `w_std` and
    `b_std`, it converges to the exact kernel in their width, or in the number of wide networks.
    """
    number = f1.shape[-1] * (1 if f1.ndim == 2 else len(f1))
    return w_std**2 / number * linear(f1, f2) + b_std**2


def loss(
    kernel: Kernel, support: tuple[jax.Array, jax.Array], batch: FeatureBatch, reg: float
) -> tuple[jax.Array, jax.Array]:
    """The KIP loss computed from features, and the predictions (T, C).

    Args:
        kernel: `linear`, or `nngp` with `w_std` and `b_std` bound.
        support: features (S, F) or (N, S, F), and labels (S, C).
        batch: the targets; no gradient passes through their features.
        reg: ridge, in units of the mean diagonal of the support's kernel (see `krr.solve`).
    """
    f_s, y_s = support
    alpha = krr.solve(kernel(f_s, f_s), y_s, reg)
    predictions = krr.predict(kernel(jax.lax.stop_gradient(batch.features), f_s), alpha)
    return krr.loss(predictions, batch.y, batch.weights), predictions


def predict(f_s: jax.Array, y_s: jax.Array, f_t: jax.Array, reg: float) -> jax.Array:
    """Predictions (T, C) by the plain inner product of one network's features.

    Products are in `krr.solve_dtype()`: where the images are nearly as many as the features, the
    rounding of a kernel in float32 is larger than a small ridge.

    Args:
        f_s, y_s: features (S, F) and labels (S, C) of the support.
        f_t: features (T, F) of the targets.
        reg: ridge, in units of the mean diagonal of the support's kernel (see `krr.solve`).
    """
    f_s, f_t = (jnp.asarray(features, krr.solve_dtype()) for features in (f_s, f_t))
    alpha = krr.solve(linear(f_s, f_s), y_s, reg)
    return product(f_t, product(f_s.T, alpha)).astype(jnp.float32)


def in_passes(
    features: Features, params: Tree, other: Tree, images: jax.Array, most: int = 500
) -> jax.Array:
    """`features` (n, F) without gradient, in passes of at most `most` images; fewer on a CPU."""
    size = batching.images_per_pass(images.shape[1:], min(most, len(images)), params)
    size = math.ceil(len(images) / math.ceil(len(images) / size))  # Equal passes.
    parts = batching.split_rows(jax.lax.stop_gradient(images), size)
    params, other = jax.lax.stop_gradient((params, other))
    found = jax.lax.map(lambda part: features(params, other, part), parts)
    return found.reshape(-1, found.shape[-1])[: len(images)]


def image_gradient(
    features: Features, params: Tree, other: Tree, images: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """Gradient (n, H, W, C) of sum(cotangent * features(images)) in the images, in passes.

    Args:
        features: of a network; each row depends on its own image alone.
        params, other: the trees of the network.
        images: (n, H, W, C).
        cotangent: (n, F).
    """
    size = batching.images_per_pass(images.shape[1:], len(images), params)
    parts = batching.split_rows((images, cotangent), size)
    of_network = functools.partial(features, params, other)
    grads = jax.lax.map(lambda part: jax.vjp(of_network, part[0])[1](part[1])[0], parts)
    return grads.reshape(-1, *images.shape[1:])[: len(images)]


def of_networks(
    features: Features, params: Tree, other: Tree, images: jax.Array, most: int = 500
) -> jax.Array:
    """`in_passes` for N networks with stacked trees, one after the other: (N, n, F)."""
    return jax.lax.map(
        lambda own: in_passes(features, own[0], own[1], images, most), (params, other)
    )


def image_gradients(
    features: Features, networks: tuple[Tree, Tree], images: jax.Array, cotangents: jax.Array
) -> jax.Array:
    """The sum (n, H, W, C) of `image_gradient` over N stacked networks; cotangents (N, n, F)."""

    def add(total: jax.Array, own: tuple[tuple[Tree, Tree], jax.Array]) -> tuple[jax.Array, None]:
        (params, other), cotangent = own
        return total + image_gradient(features, params, other, images, cotangent), None

    return jax.lax.scan(add, jnp.zeros_like(images), (networks, cotangents))[0]
