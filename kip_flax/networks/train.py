"""Training of finite networks on a few images, one network on each device, in parts of any length.

`Trainer.advance` takes the state of a training from one step to a later one. All randomness follows
from the key and the number of the step, so the result does not depend on where the parts end. The
numbers of steps, the rate and L2 are arguments; the rest of a recipe is compiled in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from kip_flax.data import augment
from kip_flax.networks import ntk
from kip_flax.networks.build import Functions, Tree
from kip_flax.networks.recipe import Recipe
from kip_flax.runtime import batching
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.precision import product


class Trainings(NamedTuple):
    """R trainings side by side, one on each device.

    Attributes:
        keys: (R,), of batches and augmentations.
        images: (R, n, H, W, C), preprocessed and scaled.
        labels: (R, n, classes), see `training_labels`.
        rates: (R,), absolute learning rates at their peak.
        l2s: (R,), see `Recipe.l2s`.
    """

    keys: jax.Array
    images: ArrayLike
    labels: ArrayLike
    rates: ArrayLike
    l2s: ArrayLike


@dataclass(frozen=True)
class Trainer:
    """Compiled functions of R trainings, R being the number of devices.

    Attributes:
        start: keys (R,) -> initial states.
        largest_rate: (states, images (n, H, W, C)) -> the largest learning rates (R,) of gradient
            descent that the tangent kernels on these images allow.
        advance: (states, trainings, recipe, first, last) -> the states after the steps `first` + 1
            to `last`; only the recipe's `num_steps` and `warmup_steps` are read.
        count_right: (states, images (b, k, H, W, C), labels (b, k), first, last) -> right answers
            (R,) on the batches `first` to `last` - 1; NaN where the training diverged. Images with
            the label -1 do not count.
    """

    start: Callable[..., Tree]
    largest_rate: Callable[..., jax.Array]
    advance: Callable[..., Tree]
    count_right: Callable[..., jax.Array]


def make_trainer(net: Functions, recipe: Recipe, mesh: Mesh) -> Trainer:
    """A trainer of `net`.

    Args:
        net: of images (n, H, W, C).
        recipe: how it is trained.
        mesh: the devices; each trains a network of its own.

    Raises:
        UserError: the recipe is centred and the network normalises over batches.
    """
    if recipe.centred and net.keeps_averages:
        raise UserError(
            "transfer.centred subtracts the untrained network, which has no averages for its batch "
            "normalisation: set it to False, or name networks with another normalisation."
        )
    one = _Training(net, recipe, _optimizer(recipe))
    spread_advance = _on_each_device(one.advance, mesh, shared=4)
    spread_count = _on_each_device(one.count_right, mesh, shared=4)

    def advance_all(
        states: Tree, trainings: Trainings, recipe: Recipe, first: int, last: int
    ) -> Tree:
        numbers = (recipe.num_steps, recipe.warmup_steps, first, last)
        return spread_advance((states, *trainings), *map(np.int32, numbers))

    def count_all(states: Tree, images: Any, labels: Any, first: int, last: int) -> jax.Array:
        return spread_count(states, images, labels, np.int32(first), np.int32(last))

    return Trainer(
        _on_each_device(one.start, mesh, shared=0),
        _on_each_device(one.largest_rate, mesh, shared=1),
        advance_all,
        count_all,
    )


@dataclass(frozen=True, eq=False)
class _Training:
    """One training; its functions are pure, and make those of `Trainer`.

    Attributes:
        net: the network.
        recipe: how it is trained.
        tx: the recipe's optimiser, without the rate.
    """

    net: Functions
    recipe: Recipe
    tx: optax.GradientTransformation

    def start(self, key: jax.Array) -> Tree:
        """The state before the first step."""
        params, other = self.net.init(key)
        state = {"params": params, "other": other, "optimizer": self.tx.init(params)}
        if self.recipe.average:
            state["average"] = jax.tree.map(jnp.zeros_like, (params, other))
        if self.recipe.centred:
            state["first"] = (params, other)
        return state

    def advance(
        self, own: tuple, num_steps: jax.Array, warmup: jax.Array, first: jax.Array, last: jax.Array
    ) -> Tree:
        """The state after the steps `first` + 1 to `last`; `own`: state, then as in `Trainings`."""
        state, key, images, labels, rate, l2 = own

        def step(number: jax.Array, state: Tree) -> Tree:
            share = share_of_rate(self.recipe, number, num_steps, warmup)
            x, y = batch(self.recipe, images, labels, jax.random.fold_in(key, number))
            after = self._moved(state, *self._gradient(state, x, y), rate * share, l2)
            if self.recipe.average:
                weights = (after["params"], after["other"])
                after["average"] = _averaged(self.recipe.average, state["average"], weights, number)
            return after

        return jax.lax.fori_loop(first, last, step, state)

    def largest_rate(self, state: Tree, images: jax.Array) -> jax.Array:
        """See `Trainer`."""

        def outputs(params: Tree, x: jax.Array) -> jax.Array:
            return self.net.apply_train(params, state["other"], x)[0]

        return ntk.max_learning_rate(outputs, state["params"], images)

    def count_right(
        self,
        state: Tree,
        images: jax.Array,
        labels: jax.Array,
        first: jax.Array,
        last: jax.Array,
    ) -> jax.Array:
        """See `Trainer`."""
        averaged = self.recipe.average
        params, other = state["average"] if averaged else (state["params"], state["other"])

        def add(number: jax.Array, total: jax.Array) -> jax.Array:
            x = images[number]
            found = self.net.apply(params, other, x)
            if self.recipe.centred:
                first_params, first_other = state["first"]
                found = found - self.net.apply(first_params, first_other, x)
            return total + jnp.sum(jnp.argmax(found, axis=1) == labels[number], dtype=jnp.float32)

        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((params, other))]
        total = jax.lax.fori_loop(first, last, add, jnp.float32(0))
        return jnp.where(jnp.array(finite).all(), total, jnp.nan)

    def _moved(
        self, state: Tree, grads: Tree, other: Tree, height: jax.Array, l2: jax.Array
    ) -> dict[str, Any]:
        """The state after a step of the optimiser, without the mean of the weights."""
        pulled = params = state["params"]
        if self.recipe.centred:  # RFAD's L2 pulls to the start.
            pulled = jax.tree.map(jnp.subtract, params, state["first"][0])
        grads = jax.tree.map(lambda g, p: g + l2 * p, grads, pulled)
        updates, optimizer = self.tx.update(grads, state["optimizer"], params)
        params = jax.tree.map(lambda p, u: p + height * u, params, updates)
        return state | {"params": params, "other": other, "optimizer": optimizer}

    def _gradient(self, state: Tree, x: jax.Array, y: jax.Array) -> tuple[Tree, Tree]:
        """The gradient of the loss on a batch, and the new running averages."""
        other = state["other"]

        def loss(p: Tree, x: jax.Array, y: jax.Array, weights: jax.Array) -> tuple[jax.Array, Tree]:
            found, after = self._outputs(state, p, other, x)
            return product(weights, _LOSSES[self.recipe.loss](found, y)), after

        whole = (x, y, jnp.full(len(x), 1 / len(x), jnp.float32))
        if jax.tree.leaves(other):  # Batch normalisation needs the whole batch.
            return jax.grad(loss, has_aux=True)(state["params"], *whole)
        grads = batching.gradient_in_passes(lambda *a: loss(*a)[0], state["params"], *whole)
        return grads, other

    def _outputs(
        self, state: Tree, params: Tree, other: Tree, x: jax.Array
    ) -> tuple[jax.Array, Tree]:
        found, after = self.net.apply_train(params, other, x)
        if self.recipe.centred:
            first, first_other = state["first"]
            found = found - self.net.apply_train(first, first_other, x)[0]
        return found, after


def weights_of(recipe: Recipe, states: Tree, place: int) -> tuple[tuple[Tree, Tree], ...]:
    """The weights with which one of the networks is tested, in the host's memory.

    Args:
        recipe: how it was trained.
        states: of all networks.
        place: index of the network.

    Returns:
        Its parameters and running averages; if `recipe.centred`, also the initial ones.
    """
    used = states["average"] if recipe.average else (states["params"], states["other"])
    parts = [used, states["first"]] if recipe.centred else [used]
    return tuple(jax.device_get(jax.tree.map(lambda leaf: leaf[place], part)) for part in parts)


def share_of_rate(
    recipe: Recipe, step: ArrayLike, num_steps: ArrayLike, warmup: ArrayLike
) -> jax.Array:
    """The rate of a step (from 0) as a share of its peak, see `Recipe.schedule`; float32.

    From step `num_steps` on it is that of the end.
    """
    step, num_steps, warmup = (jnp.asarray(v, jnp.float32) for v in (step, num_steps, warmup))
    done = jnp.minimum((step - warmup) / (num_steps - warmup), 1)
    if recipe.schedule == "drop":
        falling = jnp.where(step < num_steps / 2, 1, recipe.end_rate)
    else:
        falling = recipe.end_rate + (1 - recipe.end_rate) * (1 + jnp.cos(jnp.pi * done)) / 2
    return jnp.where(step < warmup, step / jnp.maximum(warmup, 1), falling).astype(jnp.float32)


def put_each(mesh: Mesh, tree: Tree) -> Tree:
    """Puts one row of the arrays (R, ...) on each device."""
    return jax.device_put(tree, NamedSharding(mesh, P(mesh.axis_names)))


def put_all(mesh: Mesh, tree: Tree) -> Tree:
    """Puts the whole arrays on each device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def _on_each_device(function: Callable, mesh: Mesh, shared: int) -> Callable:
    """Compiles `function(own, *shared)` to run on each device with its row of `own`."""

    def of_device(own: Any, *rest: Any) -> Any:
        one = jax.tree.map(lambda leaf: leaf[0], own)
        return jax.tree.map(lambda leaf: leaf[None], function(one, *rest))

    each = P(mesh.axis_names)
    specs = (each, *(P(),) * shared)
    return jax.jit(
        jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False)
    )


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """The optimiser at a rate of 1; every step scales its updates."""
    if recipe.optimizer == "sgd":
        return optax.sgd(1.0, recipe.momentum)
    makers = {"adam": optax.adam, "adabelief": optax.adabelief, "lamb": optax.lamb}
    return makers[recipe.optimizer](1.0)


def _averaged(decay: float, mean: Tree, new: Tree, step: jax.Array) -> Tree:
    """The debiased exponential mean: its weights sum to 1 at every step."""
    # 1 - decay^(step + 1), also for a decay that float32 rounds to 1.
    left = -jnp.expm1((step + 1).astype(jnp.float32) * math.log(decay))
    share = (1 - decay) / left
    return jax.tree.map(lambda a, b: a + (share * (b - a)).astype(a.dtype), mean, new)


def batch(
    recipe: Recipe, images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Augmented images and labels of a step: a random draw if the set is larger than a batch."""
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


def training_labels(labels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The labels that a network is trained on, from the labels (S, C) of a distilled set.

    'soft' keeps learned labels, 'hard' only their largest entry. For 'mse', labels are centred
    (one-hot minus 1/C) and multiplied by `label_scale`. For 'cross_entropy' they are probabilities:
    1/C is added to soft labels, negative entries become 0, and the sum is normalised to 1.
    """
    classes = labels.shape[1]
    mse = recipe.loss == "mse"
    if recipe.labels == "hard":
        one_hot = np.eye(classes, dtype=np.float32)[np.argmax(labels, axis=1)]
        labels = one_hot - np.float32(1 / classes) if mse else one_hot
    elif not mse:
        positive = np.maximum(labels + np.float32(1 / classes), 0)
        total = positive.sum(axis=1, keepdims=True)
        share = positive / np.where(total > 0, total, 1)
        labels = np.where(total > 0, share, np.float32(1 / classes))
    return labels * np.float32(recipe.label_scale) if mse else labels


def batches(images: np.ndarray, labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Batches (b, k, ...) of both, k at most `most`; the padding of the last has the label -1."""
    size = min(batching.images_per_pass(images.shape[1:], most), len(images))
    images, labels = batching.pad_rows(images, size), batching.pad_rows(labels, size, value=-1)
    return images.reshape(-1, size, *images.shape[1:]), labels.reshape(-1, size)
