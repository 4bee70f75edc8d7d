"""Unrolled training: differentiate the loss of networks that were trained on the support.

Feng, Vedantam, Kempe, *Embarrassingly Simple Dataset Distillation* (ICLR 2024, arXiv 2311.07025),
train a network on the support for a random number of steps, and differentiate its loss on real
images through the last of them. Here, as in FRePo, the networks come from a pool: a step draws
some, trains each for a window of steps, and puts them back. So no step is spent on reaching the
window. All begin untrained; their ages spread as they are drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from kip_flax.algorithms import _averaged, _pooled, base, kip
from kip_flax.algorithms._pooled import PooledState
from kip_flax.algorithms.interface import Facts, Problem, Step
from kip_flax.data import Dataset, augment
from kip_flax.networks import named
from kip_flax.networks import recipe as recipes
from kip_flax.networks.recipe import Recipe
from kip_flax.runtime import batching, sharding
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section
from kip_flax.runtime.precision import product

if TYPE_CHECKING:
    from kip_flax.networks.build import Functions, Make, Tree
    from kip_flax.networks.pool import Network, Pool, Pooling

# Adam divides by sqrt(v + this): without it a gradient of zero has no derivative.
_EPS_ROOT = 1e-10
_NETWORKS = 31  # Keeps the networks' key apart from the run's keys, which share the seed.
_BIBTEX = """@inproceedings{feng2024embarrassingly,
  title     = {Embarrassingly Simple Dataset Distillation},
  author    = {Feng, Yunzhen and Vedantam, Shanmukha Ramakrishna and Kempe, Julia},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
  note      = {arXiv:2311.07025}
}"""


def _published_recipe(images_per_class: int) -> str:
    return (
        f"{images_per_class} per class: a fresh network for every step, a random window of its "
        f"training"
    )


FACTS = Facts(
    title="BPTT",
    spelled_out="Truncated backpropagation through time (BPTT)",
    for_networks=True,
    tag="unrolled-training",
    bibtex=_BIBTEX,
    sections=("bptt", "optimizer"),
    if_not_finite="lower optimizer.learning_rate or bptt.learning_rate",
    published_recipe=_published_recipe,
)


def _check_fields(fields: Any) -> None:
    augment.parse(fields["bptt.augment"], "bptt.augment")
    if fields["bptt.networks"] > fields["bptt.pool"]:
        raise UserError(
            f"bptt.networks is {fields['bptt.networks']} of a pool of {fields['bptt.pool']}: draw "
            f"fewer, or take a larger bptt.pool."
        )
    if fields["bptt.window"] > fields["bptt.life"]:
        raise UserError(
            f"bptt.window is {fields['bptt.window']} and networks live for {fields['bptt.life']} "
            f"steps: take a shorter window, or a longer bptt.life."
        )
    _averaged.check_average("bptt.average", fields["bptt.average"])
    named.check_network("bptt.network", fields["bptt.network"], "fc", 1)


SECTION = Section(
    {
        "bptt.network": str,
        "bptt.width": int,
        "bptt.pool": int,
        "bptt.networks": int,
        "bptt.window": int,
        "bptt.life": int,
        "bptt.learning_rate": float,
        "bptt.label_scale": float,
        "bptt.augment": str,
        "bptt.augment_draw": str,
        "bptt.average": float,
    },
    choices={"bptt.augment_draw": ("all", "one")},
    minima={
        "bptt.width": 1,
        "bptt.pool": 1,
        "bptt.networks": 1,
        "bptt.window": 1,
        "bptt.life": 1,
    },
    above_zero=("bptt.learning_rate", "bptt.label_scale"),
    check=_check_fields,
)


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> PooledState:
    """State before the first step: support images (S, H, W, C) and labels (S, classes)."""
    labels = jnp.asarray(labels, jnp.float32)
    pool = _pooling(config, images.shape[1:], labels.shape[1]).start()
    pool = pool.replace(ages=jnp.zeros_like(pool.ages))  # Schedules start at age 0.
    return _pooled.start(config, images, labels, config.bptt.average, pool)


def make_step(problem: Problem) -> Step:
    """A step that updates the support and some networks, on a freshly drawn batch of targets."""
    config, targets = problem.config, problem.targets
    method = _BpttStep(
        pooling=_pooling(config, targets.images.shape[1:], targets.num_classes),
        recipe=_recipe(config),
        tx=base.make_optimizer(config),
        networks=config.bptt.networks,
        window=config.bptt.window,
        average=config.bptt.average,
        scale=1 / _deviation(targets.images),
        key=jax.random.fold_in(problem.key, 2),
    )
    return kip.on_batches(problem, base.over_targets(method.step, problem.mesh))


def _deviation(images: np.ndarray) -> float:
    """The standard deviation of all numbers, in float64 without a copy of the images in it.

    Raises:
        UserError: it is 0.
    """
    mean = images.mean(dtype=np.float64)
    found = math.sqrt(sum(np.square(image - mean).sum() for image in images) / images.size)
    if not found:
        raise UserError(
            "the training images are one constant, and BPTT divides by their deviation: look at "
            "the data."
        )
    return found


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError on a batch larger than the training set, images that do not fit, or networks
    with running averages, which the gradient would leave out.
    """
    from kip_flax.networks import build

    kip.check_data(config, dataset)
    names = augment.parse(config.bptt.augment)
    augment.check_effect(names, dataset.image_shape, "bptt.augment")
    if "flip" in names:
        others = "--config.bptt.augment=scale,rotate --config.bptt.augment_draw=one"
        base.check_mirrorable(dataset, "bptt.augment", others)
    make = _make(config, dataset.image_shape, dataset.num_classes)
    if build.functions(make).keeps_averages:
        raise UserError(
            f"bptt.network={config.bptt.network!r} keeps averages over batches, through which "
            "nothing is differentiated: take one without batch normalisation."
        )


def after_window(
    net: Functions,
    recipe: Recipe,
    network: Network,
    ages: jax.Array,
    support: tuple[jax.Array, jax.Array],
    key: jax.Array,
) -> tuple[Tree, tuple[Tree, Any]]:
    """The network after the training steps at `ages` on a support; it is differentiable.

    Args:
        net, recipe: its functions and its training: Adam on the squared error, see `Recipe`.
        network: the network before these steps.
        ages: (M,) int32, the number of steps taken before each of these.
        support: images (S, H, W, C), scaled, and labels (S, classes) as they are learned.
        key: random key of batches and augmentations; each age derives its own from it.

    Returns:
        The parameters, and (running averages, the optimiser's state).
    """
    from kip_flax.networks import train

    tx, (images, labels) = _adam(), support

    @jax.checkpoint
    def step(network: Network, age: jax.Array) -> tuple[Network, None]:
        x, y = train.batch(recipe, images, labels, jax.random.fold_in(key, age))

        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            outputs, other = net.apply_train(params, network.other, x)
            return jnp.mean(optax.l2_loss(outputs, recipe.label_scale * y)), other

        grads, other = jax.grad(loss, has_aux=True)(network.params)
        updates, optimizer = tx.update(grads, network.optimizer, network.params)
        share = train.share_of_rate(recipe, age, recipe.num_steps, recipe.warmup_steps)
        height = recipe.rates[0] * share
        params = jax.tree.map(lambda p, u: p - height * u, network.params, updates)
        return network._replace(params=params, other=other, optimizer=optimizer), None

    after, _ = jax.lax.scan(step, network, ages)
    return after.params, (after.other, after.optimizer)


class _Unrolled(NamedTuple):
    """A network after its window. If it diverged, all but `leaves` is 0.

    Attributes:
        leaves: of its `Network`.
        learns: (), 1, or 0 if it diverged.
        grads: of the support, 'images' (S, H, W, C) and 'labels' (S, classes).
        loss, accuracy: (), on the targets.
    """

    leaves: tuple[jax.Array, ...]
    learns: jax.Array
    grads: dict[str, jax.Array]
    loss: jax.Array
    accuracy: jax.Array


@dataclass(frozen=True, eq=False)
class _BpttStep:
    """One step on all devices of a mesh; each device unrolls its share of the networks.

    Attributes:
        pooling: the networks.
        recipe: how they are trained.
        tx: the optimiser of the support.
        networks: networks of a step.
        window: training steps that are differentiated.
        average: decay of the mean of the last sets; 0: there is none.
        scale: factor of the images.
        key: random key, of which each step derives its own.
    """

    pooling: Pooling
    recipe: Recipe
    tx: optax.GradientTransformation
    networks: int
    window: int
    average: float
    scale: float
    key: jax.Array

    def step(
        self, state: PooledState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[PooledState, kip.Metrics]:
        """Unrolls the drawn networks, moves the support by their mean gradient, puts them back.

        Args:
            state: the same on all devices.
            x_t, y_t, weights: this device's targets, (T, H, W, C), (T, classes) and (T,).
        """
        # Every network sees all targets: they cost little beside the steps of its training.
        batch = [jax.lax.all_gather(part, "data", tiled=True) for part in (x_t, y_t, weights)]
        draw_key, train_key = jax.random.split(jax.random.fold_in(self.key, state.step))
        drawn = jax.random.permutation(draw_key, self.pooling.size)[: self.networks]
        is_drawn = sharding.own_share(jnp.ones(self.networks, jnp.float32))  # 0: padding.
        unrolled = self._all_unrolled(
            functools.partial(self._unrolled, state, train_key, batch),
            sharding.own_share(drawn),
            is_drawn,
        )
        of_each = unrolled.grads, unrolled.loss, unrolled.accuracy
        summed = jax.tree.map(lambda each: _summed(is_drawn * unrolled.learns, each), of_each)
        (grads, loss, accuracy), learning = jax.lax.psum(
            (summed, is_drawn @ unrolled.learns), "data"
        )
        loss, accuracy = loss / learning, accuracy / learning  # NaN if all diverged.
        grads = {name: grads[name] / jnp.maximum(learning, 1) for name in state.params}
        new = state.moved(self.tx, grads, self.average)
        # Where no network learns all stays: Adam would go on by what it remembers.
        stays = state.replace(step=new.step)
        new = jax.tree.map(functools.partial(jnp.where, learning > 0), new, stays)
        leaves, learns = jax.tree.map(
            lambda leaf: jax.lax.all_gather(leaf, "data", tiled=True),
            (unrolled.leaves, unrolled.learns),
        )
        pool = self._put(state.pool, drawn, leaves, learns)
        metrics = {"loss": loss, "accuracy": accuracy, "grad_norm": optax.tree.norm(grads)}
        return new.replace(pool=pool), metrics

    def _all_unrolled(
        self, unroll: Callable[[jax.Array], _Unrolled], share: jax.Array, is_drawn: jax.Array
    ) -> _Unrolled:
        """The networks of this device's `share` (n,), one after the other; padding gives zeros."""
        if self.networks % jax.lax.axis_size("data") == 0:
            return jax.lax.map(unroll, share)
        shapes = jax.eval_shape(unroll, share[0])
        nothing = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), shapes)

        def one(own: tuple[jax.Array, jax.Array]) -> _Unrolled:
            number, counts = own
            return jax.lax.cond(counts > 0, unroll, lambda _: nothing, number)

        return jax.lax.map(one, (share, is_drawn))

    def _unrolled(
        self, state: PooledState, key: jax.Array, batch: list[jax.Array], number: jax.Array
    ) -> _Unrolled:
        """The network `number` of the pool after its window."""
        network = self.pooling.network(state.pool, number)
        ages = state.pool.ages[number] + jnp.arange(self.window, dtype=jnp.int32)
        key = jax.random.fold_in(key, number)

        def train(images: jax.Array, labels: jax.Array) -> tuple[Tree, tuple[Tree, Any]]:
            support = (self.scale * images, labels)
            return after_window(self.pooling.net, self.recipe, network, ages, support, key)

        params, pull, (other, optimizer) = jax.vjp(train, *state.current, has_aux=True)
        loss, accuracy, cotangent = self._loss(params, other, *batch)
        g_images, g_labels = pull(cotangent)
        learns = jnp.isfinite(loss) & jnp.isfinite(g_images).all() & jnp.isfinite(g_labels).all()
        of_network = ({"images": g_images, "labels": g_labels}, loss, accuracy)
        of_network = jax.tree.map(
            lambda part: jnp.where(learns, part, 0).astype(jnp.float32), of_network
        )
        after = network._replace(params=params, other=other, optimizer=optimizer)
        leaves = tuple(jax.tree.leaves(after))
        return _Unrolled(leaves, learns.astype(jnp.float32), *of_network)

    def _loss(
        self, params: Tree, other: Tree, x: jax.Array, y: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, jax.Array, Tree]:
        """The cross-entropy on the targets, the accuracy, and the loss's gradient in `params`."""
        classes = y.shape[1]
        apply, scale = self.pooling.net.apply, self.scale

        def of_pass(params: Tree, part: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            x, y, weights = part
            outputs = apply(params, other, scale * x)
            right = jnp.argmax(outputs, axis=1) == jnp.argmax(y, axis=1)
            losses = optax.softmax_cross_entropy(outputs, y + 1 / classes)  # y is centred.
            return product(weights, losses), product(weights, right)

        weights = weights / jnp.sum(weights)
        size = batching.images_per_pass(x.shape[1:], len(x), params)
        parts = batching.split_rows((x, y, weights), size)

        found = functools.partial(jax.value_and_grad(of_pass, has_aux=True), params)
        (value, right), grads = batching.summed(found, parts)
        return value, right, grads

    def _put(
        self, pool: Pool, drawn: jax.Array, leaves: tuple[jax.Array, ...], learns: jax.Array
    ) -> Pool:
        """The pool with the networks `drawn` after their windows; one that diverged starts anew."""
        structure = jax.tree.structure(self.pooling.network(pool, drawn[0]))
        for place in range(self.networks):
            network = jax.tree.unflatten(structure, [leaf[place] for leaf in leaves])
            pool = self.pooling.put(pool, drawn[place], network, self.window, learns[place] > 0)
        return pool


def _adam() -> optax.GradientTransformation:
    return optax.scale_by_adam(eps_root=_EPS_ROOT)


def _recipe(config: ConfigDict) -> Recipe:
    """The training recipe of the pool's networks: 'auto', changed by the configuration."""
    options = config.bptt
    changes = {
        "num_steps": options.life,
        "learning_rate": (options.learning_rate,),
        **{name: options[name] for name in ("label_scale", "augment", "augment_draw")},
    }
    return recipes.make("auto", config.support.size, changes=changes)


def _pooling(config: ConfigDict, shape: tuple[int, ...], classes: int) -> Pooling:
    from kip_flax.networks import build, pool

    height, width, channels = shape
    return pool.Pooling(
        net=build.functions(_make(config, (height, width, channels), classes)),
        tx=_adam(),
        size=config.bptt.pool,
        life=config.bptt.life,
        key=jax.random.fold_in(jax.random.key(config.seed), _NETWORKS),
    )


def _make(config: ConfigDict, shape: tuple[int, int, int], classes: int) -> Make:
    """A function that makes a network of the pool; UserError if images are too small for it."""
    from kip_flax.networks import build

    options, kernel = config.bptt, config.kernel
    weights = build.Weights(kernel.w_std, kernel.b_std)
    like = named.NetworkOptions(kernel.architecture, kernel.depth, options.width, weights)
    return named.maker(options.network, shape, classes, like)


def _summed(weights: jax.Array, each: jax.Array) -> jax.Array:
    """The sum of n arrays `each` (n, ...), weighted."""
    return product(weights, each.reshape(len(each), -1)).reshape(each.shape[1:])
