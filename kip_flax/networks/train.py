"""Training of finite networks on a few images: all steps and all seeds in one compiled program.

The recipe is that of Nguyen et al., NeurIPS 2021 (section 4 and the published notebook, after Lee
et al., NeurIPS 2020): stochastic gradient descent with momentum, the rate cosine to 0, L2 on all
parameters, squared error to the learned labels; the rate is a factor times the largest that the
network's tangent kernel bears at initialisation. R seeds are trained at once: the devices share
them. Every seed has its own images, so that baselines can draw anew for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from kip_flax.data import augment
from kip_flax.networks import ntk
from kip_flax.networks.build import Functions, Tree
from kip_flax.networks.recipe import Recipe
from kip_flax.runtime import batching


class Trainings(NamedTuple):
    """R trainings side by side.

    Attributes:
        keys: (R,), of batches and augmentations.
        images: (R, n, H, W, C), what each is trained on.
        labels: (R, n, classes).
        rates: (R,), learning rates.
    """

    keys: jax.Array
    images: ArrayLike
    labels: ArrayLike
    rates: jax.Array


@dataclass(frozen=True)
class Trainer:
    """Compiled functions of R seeds, which the devices share; R is a multiple of them.

    Attributes:
        start: (keys (R,), images (n, H, W, C)) -> states, and the largest learning rates (R,) that
            the tangent kernels on these images bear.
        advance: (states, trainings, L2, first, last) -> the states after the steps `first` + 1 to
            `last`.
        accuracy: (states, images (m, H, W, C), labels (m,)) -> shares of right answers (R,); NaN
            where the training diverged.
    """

    start: Callable[..., tuple[Tree, jax.Array]]
    advance: Callable[..., Tree]
    accuracy: Callable[..., jax.Array]


def make_trainer(net: Functions, recipe: Recipe, mesh: Mesh, eval_batch: int = 100) -> Trainer:
    """A trainer of `net` with its seeds spread over all devices of `mesh`.

    Args:
        net: of images (n, H, W, C).
        recipe: how it is trained.
        mesh: the devices.
        eval_batch: images that one pass of the network evaluates, at most (see `passes`).
    """

    def optimizer(rate: ArrayLike, l2: ArrayLike) -> optax.GradientTransformation:
        cosine = optax.cosine_decay_schedule(rate, recipe.num_steps)
        return optax.chain(optax.add_decayed_weights(l2), optax.sgd(cosine, recipe.momentum))

    def start(key: jax.Array, images: jax.Array) -> tuple[Tree, jax.Array]:
        params, other = net.init(key)
        state = {"params": params, "other": other, "optimizer": optimizer(0.0, 0.0).init(params)}
        largest = ntk.max_learning_rate(
            lambda p, x: net.apply_train(p, other, x)[0], params, images
        )
        return state, largest

    def gradient(params: Tree, other: Tree, x: jax.Array, y: jax.Array) -> tuple[Tree, Tree]:
        def loss(p: Tree, x: jax.Array, y: jax.Array, weights: jax.Array) -> tuple[jax.Array, Tree]:
            outputs, after = net.apply_train(p, other, x)
            return weights @ _LOSSES[recipe.loss](outputs, y), after

        batch = (x, y, jnp.full(len(x), 1 / len(x), jnp.float32))
        if jax.tree.leaves(other):  # It normalises over the batch.
            return jax.grad(loss, has_aux=True)(params, *batch)
        return batching.gradient_in_passes(lambda *a: loss(*a)[0], params, *batch), other

    def advance(own: tuple, l2: jax.Array, first: jax.Array, last: jax.Array) -> Tree:
        state, key, images, labels, rate = own
        tx = optimizer(rate, l2)

        def step(number: jax.Array, state: Tree) -> Tree:
            x, y = _batch(recipe, images, labels, jax.random.fold_in(key, number))
            grads, other = gradient(state["params"], state["other"], x, y)
            updates, optimizer = tx.update(grads, state["optimizer"], state["params"])
            params = optax.apply_updates(state["params"], updates)
            return {"params": params, "other": other, "optimizer": optimizer}

        return jax.lax.fori_loop(first, last, step, state)

    def accuracy(state: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
        def right(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
            outputs = net.apply(state["params"], state["other"], batch[0])
            return jnp.sum(jnp.argmax(outputs, axis=1) == batch[1])

        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state["params"])]
        share = jnp.sum(jax.lax.map(right, (images, labels))) / jnp.sum(labels >= 0)
        return jnp.where(jnp.array(finite).all(), share, jnp.nan)

    spread_start = _over_seeds(start, mesh, shared=1)
    spread_advance = _over_seeds(advance, mesh, shared=3)
    spread_accuracy = _over_seeds(accuracy, mesh, shared=2)

    def advance_all(states: Tree, trainings: Trainings, l2: float, first: int, last: int) -> Tree:
        own = (states, *trainings)
        return spread_advance(own, jnp.float32(l2), jnp.int32(first), jnp.int32(last))

    def accuracy_all(states: Tree, images: np.ndarray, labels: np.ndarray) -> jax.Array:
        size = batching.images_per_pass(images.shape[1:], eval_batch)
        return spread_accuracy(states, *_batches(images, labels, size))

    return Trainer(spread_start, advance_all, accuracy_all)


def _over_seeds(function: Callable, mesh: Mesh, shared: int) -> Callable:
    """`function(own, *shared)` over the first axis of all arrays in `own`, compiled.

    The devices share the seeds; each takes its own one after the other, which on CPUs is faster
    than side by side.
    """

    def of_device(own: Any, *rest: Any) -> Any:
        return jax.lax.map(lambda one: function(one, *rest), own)

    seeds = P(mesh.axis_names)
    specs = (seeds, *(P(),) * shared)
    return jax.jit(
        jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=seeds, check_vma=False)
    )


def _batch(
    recipe: Recipe, images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    draw_key, augment_key = jax.random.split(key)
    if len(images) > recipe.batch_size:
        rows = jax.random.permutation(draw_key, len(images))[: recipe.batch_size]
        images, labels = images[rows], labels[rows]
    if recipe.augment_draw == "one":
        rows = jnp.arange(len(images))
        return augment.one_of(recipe.augments, images, augment_key, rows), labels
    return augment.augment(recipe.augments, images, augment_key), labels


def _squares(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(optax.l2_loss(outputs, y), axis=1)


# (outputs (n, classes), labels (n, classes)) -> (n,)
_LOSSES: dict[str, Callable[..., jax.Array]] = {
    "mse": _squares,
    "cross_entropy": optax.softmax_cross_entropy,
}


def training_labels(labels: np.ndarray, loss: str, kind: str) -> np.ndarray:
    """What a network is trained on, from the labels (S, C) of a distilled set.

    'soft' keeps what was learned, 'hard' the largest entry alone. For 'mse' labels are centred
    (one-hot minus 1/C); for 'cross_entropy' they are probabilities: soft labels get the 1/C back,
    lose what is negative, and are divided by their sum.
    """
    classes = labels.shape[1]
    if kind == "hard":
        one_hot = np.eye(classes, dtype=np.float32)[np.argmax(labels, axis=1)]
        return one_hot - np.float32(1 / classes) if loss == "mse" else one_hot
    if loss == "mse":
        return labels
    positive = np.maximum(labels + np.float32(1 / classes), 0)
    total = positive.sum(axis=1, keepdims=True)
    return np.where(total > 0, positive / np.where(total > 0, total, 1), np.float32(1 / classes))


def _batches(images: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(batches, size, ...) each; what fills up the last batch has the label -1."""
    size = min(size, len(images))
    images, labels = batching.pad_rows(images, size), batching.pad_rows(labels, size, value=-1)
    return images.reshape(-1, size, *images.shape[1:]), labels.reshape(-1, size)
