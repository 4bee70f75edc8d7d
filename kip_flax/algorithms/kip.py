"""KIP (Nguyen et al., ICLR 2021, Algorithm 1): one optimiser step on the support.

The loss is that of kernel ridge regression from the support to a batch of targets; its gradient
goes through the kernel to the support images and, where they are learned, the support labels.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kip_flax import data, krr
from kip_flax.algorithms import _krr_papers
from kip_flax.algorithms.base import make_optimizer, pinned
from kip_flax.algorithms.interface import Facts, Problem, Step, Support
from kip_flax.data import Dataset, augment, frozen
from kip_flax.kernels import Kernel
from kip_flax.krr.residuals import Batch
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

FACTS = Facts(
    title="KIP",
    spelled_out="Kernel Inducing Points (KIP)",
    tag="kernel-ridge-regression",
    bibtex=_krr_papers.BIBTEX,
    published_recipe=_krr_papers.published_recipe,
    krr_loss=True,
    uses_kernel=True,
    freezes_pixels=True,
)

Metrics = dict[str, jax.Array]
# (support, batch) -> the loss and the predictions (T, classes) for the batch.
Loss = Callable[[Support, Batch], tuple[jax.Array, jax.Array]]
# (labels, batch size, classes, key, number of the step) -> the indices of its targets.
Draw = Callable[[np.ndarray, int, int, jax.Array, int], np.ndarray]


class KipState(flax.struct.PyTreeNode):
    """The learned support and its optimiser.

    Attributes:
        step: () int32, steps taken.
        params: {'images': (S, H, W, C)} and, where the labels are learned, 'labels': (S, classes).
        labels: (S, classes), the initial labels, used unless labels are learned.
        opt_state: optax state of `params`; with Gauss-Newton steps {'damping': (), 'average':
            (S, H, W, C)}.
    """

    step: jax.Array
    params: dict[str, jax.Array]
    labels: jax.Array
    opt_state: Any

    @property
    def support(self) -> Support:
        """Support images (S, H, W, C) and labels (S, classes)."""
        return self.params["images"], self.params.get("labels", self.labels)


# (state, targets, their labels, weights) -> the state after the step, and its metrics.
Update = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[Any, Metrics]]


def kip_loss(
    support: Support, batch: Batch, kernel: Kernel, reg: float
) -> tuple[jax.Array, jax.Array]:
    """The KIP loss (equation 1), and the predictions (T, classes).

    `reg` is relative to the mean of the diagonal of K_ss.
    """
    x_s, y_s = support
    k_ss = kernel(x_s, x_s)
    k_ts = kernel(batch.x, x_s)
    alpha = krr.solve(k_ss, y_s, reg)
    predictions = krr.predict(k_ts, alpha)
    return krr.loss(predictions, batch.y, batch.weights), predictions


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> KipState:
    """State before the first step: support images (S, H, W, C) and labels (S, classes)."""
    return first_state(images, labels, optimizer(config), config.support.learn_labels)


def first_state(
    images: jax.Array, labels: jax.Array, tx: optax.GradientTransformation, learn_labels: bool
) -> KipState:
    """State before the first step of the optimiser `tx`."""
    params = {"images": jnp.asarray(images, jnp.float32)}
    labels = jnp.asarray(labels, jnp.float32)
    if learn_labels:
        params["labels"] = jnp.array(labels)  # A copy: a step reuses the memory of its state.
    return KipState(jnp.zeros((), jnp.int32), params, labels, tx.init(params))


def make_step(problem: Problem) -> Step:
    """One step of the optimiser on a freshly drawn batch, balanced over the classes."""
    config = problem.config
    loss = functools.partial(kip_loss, kernel=problem.kernel, reg=config.reg)
    return on_batches(problem, make_update(loss, optimizer(config)))


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The optimiser of `config.optimizer`, with the frozen pixels held."""
    return frozen.held(make_optimizer(config), config.support.frozen, config.seed)


def make_update(loss: Loss, tx: optax.GradientTransformation) -> Update:
    """`update(state, x_t, y_t, weights) -> (state, metrics)`, compiled: one step of `tx`.

    It takes targets x_t (T, H, W, C), their labels y_t (T, classes) and weights (T,), 0 where a
    target is padding. Its metrics are the loss, accuracy and gradient norm before the update.
    """

    def loss_of(
        params: dict[str, jax.Array], initial_labels: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        return loss((params["images"], params.get("labels", initial_labels)), batch)

    def update(
        state: KipState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[KipState, Metrics]:
        value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
        batch = Batch(x_t, y_t, weights)
        (value, predictions), grads = value_and_grad(state.params, state.labels, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": value,
            "accuracy": krr.accuracy(predictions, jnp.argmax(y_t, axis=-1), weights),
            "grad_norm": optax.tree.norm(grads),
        }
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return jax.jit(update, donate_argnums=0)


def drawn_anew(
    labels: np.ndarray, size: int, num_classes: int, key: jax.Array, number: int
) -> np.ndarray:
    """A balanced draw of indices for step `number`, independent of the other steps."""
    return data.balanced_draw(labels, size, num_classes, jax.random.fold_in(key, number))


def on_batches(
    problem: Problem, update: Callable[..., tuple[Any, Metrics]], draw: Draw = drawn_anew
) -> Step:
    """A step that calls `update` with a batch of targets, augmented by `config.augment`."""
    config, targets, mesh = problem.config, problem.targets, problem.mesh
    key_draw, key_augment = jax.random.split(problem.key)
    names = augment.parse(config.augment)
    pinned_update = pinned(update, mesh)

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec("data")))
    def augmented(images: jax.Array, number: int) -> jax.Array:
        return augment.augment(names, images, jax.random.fold_in(key_augment, number))

    def step(state: Any, number: int) -> tuple[Any, Metrics]:
        rows = draw(targets.labels, config.batch_size, targets.num_classes, key_draw, number)
        images, *others = sharding.put_targets(mesh, *targets.take(rows))
        if names:
            images = augmented(images, number)
        return pinned_update(state, images, *others)

    return step


def pairs(config: ConfigDict, train_size: int) -> int:
    """Kernel entries of a step."""
    del train_size
    return config.support.size * (config.batch_size + config.support.size)


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError if a batch is larger than the training set."""
    train = len(dataset.train_labels)
    if config.batch_size > train:
        raise UserError(
            f"batch_size is {config.batch_size} and {dataset.name} has {train} training images: "
            f"take no more than that."
        )
