"""FRePo: the KIP loss on the features of networks that are being trained on the support.

Zhou, Nezhadarya, Ba, *Dataset Distillation using Neural Feature Regression* (NeurIPS 2022, arXiv
2206.00719). A step draws a network from a pool and predicts a batch of targets by KRR from the
support, with the inner products of the network's last features as the kernel. It updates images
and labels, and trains the network on them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from kip_flax.algorithms import _averaged, _pooled, base, kip
from kip_flax.algorithms._pooled import PooledState
from kip_flax.algorithms.interface import Facts, Problem, Step, Support
from kip_flax.data import Dataset
from kip_flax.kernels.mirrored import with_mirror_images
from kip_flax.krr import feature_kernel
from kip_flax.networks import named
from kip_flax.runtime import batching, sharding
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section
from kip_flax.runtime.precision import product

if TYPE_CHECKING:
    from kip_flax.networks.build import Make
    from kip_flax.networks.pool import Network, Pooling

_RIDGE = 1e-6  # Relative to the mean diagonal of the feature kernel.
_MOST_IMAGES_PER_FEATURE = 0.4  # In float32: gradients to 1e-3 (measured).
_NETWORKS = 30  # Keeps the networks' key apart from the run's keys, which share the seed.
_MOST_TRAINED = 1000  # The most learned images that a network is trained on in one step.
_BIBTEX = """@inproceedings{zhou2022dataset,
  title     = {Dataset Distillation using Neural Feature Regression},
  author    = {Zhou, Yongchao and Nezhadarya, Ehsan and Ba, Jimmy},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2206.00719}
}"""


def _published_recipe(images_per_class: int) -> str:
    return f"{images_per_class} per class: 500,000 steps of 1,024 training images"


FACTS = Facts(
    title="FRePo",
    spelled_out="Neural Feature Regression with Pooling (FRePo)",
    for_networks=True,
    tag="feature-regression",
    bibtex=_BIBTEX,
    sections=("frepo", "optimizer"),
    scales_labels=True,
    if_not_finite="lower optimizer.learning_rate",
    published_recipe=_published_recipe,
)


def _check_fields(fields: Any) -> None:
    _averaged.check_average("frepo.average", fields["frepo.average"])
    named.check_network("frepo.network", fields["frepo.network"], "fc", 1)


SECTION = Section(
    {
        "frepo.network": str,
        "frepo.width": int,
        "frepo.growth": int,
        "frepo.normalization": str,
        "frepo.pool": int,
        "frepo.life": int,
        "frepo.learning_rate": float,
        "frepo.flip": bool,
        "frepo.margin": bool,
        "frepo.average": float,
    },
    choices={"frepo.normalization": ("none", "batch", "instance")},
    minima={"frepo.width": 1, "frepo.growth": 1, "frepo.pool": 1, "frepo.life": 1},
    above_zero=("frepo.learning_rate",),
    check=_check_fields,
)


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> PooledState:
    """State before the first step: support images (S, H, W, C) and labels (S, classes)."""
    classes = labels.shape[1]
    labels = jnp.asarray(labels, jnp.float32)
    if config.support.learn_labels and config.support.init in base.SUPPORT_DRAWS:
        labels = labels / (classes / 10) ** 0.5  # Fixed ones keep the scale of the targets.
    pool = _pooling(config, images.shape[1:], classes).start()
    return _pooled.start(config, images, labels, config.frepo.average, pool)


def make_step(problem: Problem) -> Step:
    """A step that updates the support and a network, on a freshly drawn batch of targets."""
    config, targets = problem.config, problem.targets
    pooling = _pooling(config, targets.images.shape[1:], targets.num_classes)
    method = _FrepoStep(
        pooling=pooling,
        tx=base.make_optimizer(config),
        flip=config.frepo.flip,
        margin=config.frepo.margin,
        average=config.frepo.average,
        key=jax.random.fold_in(problem.key, 2),
    )
    return kip.on_batches(problem, base.over_targets(method.step, problem.mesh))


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError on a batch larger than the training set, or images that do not fit."""
    kip.check_data(config, dataset)
    if config.frepo.flip:
        base.check_mirrorable(dataset, "frepo.flip", "--config.frepo.flip=False")
    make = _make(config, dataset.image_shape, dataset.num_classes)
    if not sharding.takes_float64():
        _check_features(config, make, dataset.image_shape)


def _check_features(config: ConfigDict, make: Make, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError if the kernel has so many images that float32 cannot resolve the ridge."""
    from kip_flax.networks import build

    features = build.feature_count(build.functions(make), image_shape)
    size, flip = config.support.size, config.frepo.flip
    if size * (1 + flip) > _MOST_IMAGES_PER_FEATURE * features:
        mirrored, less = (" and their mirror images", "frepo.flip=False or ") if flip else ("", "")
        raise UserError(
            f"the networks have {features} features, too few for {size} images{mirrored} on a "
            f"device without float64: raise frepo.width, or take {less}a smaller support.size."
        )


def mirrored(support: Support) -> Support:
    """Images (2 S, H, W, C) and labels (2 S, classes): the support, and its mirror images."""
    images, labels = support
    return with_mirror_images(images), jnp.concatenate([labels, labels])


def margin_loss(labels: jax.Array) -> jax.Array:
    """Mean of -min(largest - second largest, 1/classes) of labels (S, classes)."""
    first, second = jnp.moveaxis(jax.lax.top_k(labels, 2)[0], 1, 0)
    return -jnp.mean(jnp.minimum(first - second, 1 / labels.shape[1]))


@dataclass(frozen=True, eq=False)
class _FrepoStep:
    """One step on all devices of a mesh, which share the work on the targets and the support.

    Attributes:
        pooling: the networks.
        tx: the optimiser of the support.
        flip: whether mirror images double the support.
        margin: whether the loss has the margin of learned labels.
        average: decay of the mean of the last sets; 0: there is none.
        key: random key, of which each step derives its own.
    """

    pooling: Pooling
    tx: optax.GradientTransformation
    flip: bool
    margin: bool
    average: float
    key: jax.Array

    def step(
        self, state: PooledState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[PooledState, kip.Metrics]:
        """Moves the support by the loss on a drawn network's features, and trains that network.

        Args:
            state: the same on all devices.
            x_t, y_t, weights: this device's targets, (T, H, W, C), (T, classes) and (T,).
        """
        draw_key, train_key = jax.random.split(jax.random.fold_in(self.key, state.step))
        number = jax.random.randint(draw_key, (), 0, self.pooling.size)
        network = self.pooling.network(state.pool, number)
        features = self.pooling.net.features
        f_t = feature_kernel.in_passes(features, network.params, network.other, x_t)
        batch = feature_kernel.FeatureBatch(f_t, y_t, weights)
        grads, metrics = self._gradient(state, network, batch)
        new = state.moved(self.tx, grads, self.average)
        train = functools.partial(self._network_gradient, new, train_key)
        pool = self.pooling.put(state.pool, number, self.pooling.updated(network, train))
        return new.replace(pool=pool), metrics

    def _gradient(
        self, state: PooledState, network: Network, batch: feature_kernel.FeatureBatch
    ) -> tuple[dict[str, jax.Array], kip.Metrics]:
        """The gradient of the loss in `state.params`, and the metrics of the step."""
        support = state.current
        (images, labels), fold = jax.vjp(mirrored if self.flip else lambda same: same, support)
        f_s, pull = self._features(network, images)
        count = jax.lax.psum(jnp.sum(batch.weights), "data")

        def loss(f_s: jax.Array, y_s: jax.Array) -> tuple[jax.Array, jax.Array]:
            predictions = feature_kernel.predict(f_s, y_s, batch.features, _RIDGE)
            errors = jnp.sum(optax.l2_loss(predictions, batch.y), axis=1)
            right = jnp.argmax(predictions, axis=1) == jnp.argmax(batch.y, axis=1)
            errors, right = (product(batch.weights, each) / count for each in (errors, right))
            return errors, right

        found = jax.value_and_grad(loss, (0, 1), has_aux=True)(f_s, labels)
        (value, right), (g_f, g_y) = jax.lax.psum(found, "data")
        ((g_images, g_labels),) = fold((pull(g_f), g_y))
        if self.margin and "labels" in state.params:
            margin, g_margin = jax.value_and_grad(margin_loss)(support[1])
            value, g_labels = value + margin, g_labels + g_margin
        grads = {"images": g_images, "labels": g_labels}
        grads = {name: grads[name] for name in state.params}
        return grads, {"loss": value, "accuracy": right, "grad_norm": optax.tree.norm(grads)}

    def _features(
        self, network: Network, images: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """The features (n, F) of n images, and a function from their gradient to the images'."""
        features = self.pooling.net.features
        own = sharding.own_share(images)
        f_own = feature_kernel.in_passes(features, network.params, network.other, own)

        def pull(cotangent: jax.Array) -> jax.Array:
            share = sharding.own_share(cotangent)
            grads = feature_kernel.image_gradient(
                features, network.params, network.other, own, share
            )
            return jax.lax.all_gather(grads, "data", tiled=True)[: len(images)]

        return jax.lax.all_gather(f_own, "data", tiled=True)[: len(images)], pull

    def _network_gradient(
        self, state: PooledState, key: jax.Array, network: Network
    ) -> tuple[Any, Any]:
        """The gradient of the squared error on the support, and the new running averages."""
        x, y = state.current
        if len(x) > _MOST_TRAINED:
            rows = jax.random.permutation(key, len(x))[:_MOST_TRAINED]
            x, y = x[rows], y[rows]

        def loss(params: Any, x: jax.Array, y: jax.Array, weights: jax.Array) -> Any:
            outputs, other = self.pooling.net.apply_train(params, network.other, x)
            return product(weights, jnp.sum(optax.l2_loss(outputs, y), axis=1)), other

        weights = jnp.full(len(x), 1 / len(x), jnp.float32)
        if jax.tree.leaves(network.other):  # Batch normalisation needs the whole batch.
            return jax.grad(loss, has_aux=True)(network.params, x, y, weights)
        own = [sharding.own_share(rows) for rows in (x, y, weights)]
        grads = batching.gradient_in_passes(lambda *a: loss(*a)[0], network.params, *own)
        return jax.lax.psum(grads, "data"), network.other


def _pooling(config: ConfigDict, shape: tuple[int, ...], classes: int) -> Pooling:
    from kip_flax.networks import build, pool

    height, width, channels = shape
    make = _make(config, (height, width, channels), classes)
    return pool.Pooling(
        net=build.functions(make),
        tx=optax.adam(config.frepo.learning_rate),
        size=config.frepo.pool,
        life=config.frepo.life,
        key=jax.random.fold_in(jax.random.key(config.seed), _NETWORKS),
    )


def _make(config: ConfigDict, shape: tuple[int, int, int], classes: int) -> Make:
    """A function that makes a network of the pool; UserError if images are too small for it."""
    from kip_flax.networks import build

    options, kernel = config.frepo, config.kernel
    like = named.NetworkOptions(
        kernel.architecture,
        kernel.depth,
        options.width,
        build.Weights(kernel.w_std, kernel.b_std),
        build.Blocks(normalization=options.normalization, growth=options.growth),
    )
    return named.maker(options.network, shape, classes, like)
