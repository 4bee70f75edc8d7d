"""Dataset condensation by gradient matching: the step of DC and DSA.

Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching* (ICLR 2021, arXiv 2006.05929),
Algorithm 1: a randomly drawn network is trained on the synthetic images; before each part of that
training, the images of every class move so that their gradient resembles that of real images of
the class. DSA augments both alike (see `augment.siamese`). Constants that the paper leaves open are
those of the published code, VICO-UoE/DatasetCondensation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from kip_flax.algorithms.interface import Support
from kip_flax.data import augment
from kip_flax.runtime import batching
from kip_flax.runtime.fields import Section
from kip_flax.runtime.precision import product

if TYPE_CHECKING:
    from kip_flax.networks.build import Functions

Metrics = dict[str, jax.Array]
Leaves = tuple[jax.Array, ...]

# Images per class: (outer_loops, inner_loops), those of the published code.
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
_EPSILON = 1e-6


def _check(fields: Mapping[str, Any]) -> None:
    augment.parse(fields["matching.augment"], "matching.augment")


SECTION = Section(
    {
        "matching.network": str,
        "matching.outer_loops": int,
        "matching.inner_loops": int,
        "matching.learning_rate": float,
        "matching.batch_train": int,
        "matching.augment": str,
    },
    # Networks without running averages, which a few images of one class would ruin.
    choices={
        "matching.network": (
            *("mlp", "convnet_in", "convnet2_in", "lenet", "alexnet", "vgg11_in", "resnet18_in"),
        ),
    },
    minima={"matching.outer_loops": 1, "matching.inner_loops": 0, "matching.batch_train": 1},
    above_zero=("matching.learning_rate",),
    check=_check,
)


def published_recipe(images_per_class: int) -> str:
    """The recipe of the published numbers, in words, for `images_per_class` images per class."""
    outer, inner = LOOPS[images_per_class]
    epochs = "1 epoch" if inner == 1 else f"{inner} epochs"
    return (
        f"{images_per_class} per class: {1000 * outer:,} steps, 256 real images of a class each, "
        f"{epochs} between them"
    )


class MatchingState(flax.struct.PyTreeNode):
    """The learned images, and the network that they are matched on.

    Attributes:
        step: () int32, updates of the images.
        images: (S, H, W, C), ordered by class, the same number per class.
        labels: (S, classes), one-hot minus 1/classes; never changed.
        opt_state: optax state of `images`.
        network: leaves of the network's parameters, as trained so far.
    """

    step: jax.Array
    images: jax.Array
    labels: jax.Array
    opt_state: Any
    network: tuple[jax.Array, ...]

    @property
    def support(self) -> Support:
        """Support images (S, H, W, C) and labels (S, classes)."""
        return self.images, self.labels


@dataclass(frozen=True)
class InnerTraining:
    """How networks are trained between the updates of the images.

    Attributes:
        outer_loops: updates of the images before another network is drawn.
        inner_loops: epochs on the synthetic images after each of these updates but the last.
        learning_rate: of the network's plain gradient descent.
        batch_train: synthetic images per step of that descent.
        augments: names that `augment.one_of` draws from; () for DC.
    """

    outer_loops: int
    inner_loops: int
    learning_rate: float
    batch_train: int
    augments: tuple[str, ...] = ()


Step = Callable[[MatchingState, jax.Array, jax.Array], tuple[MatchingState, Metrics]]


def init(
    images: jax.Array, labels: jax.Array, net: Functions, tx: optax.GradientTransformation
) -> MatchingState:
    """State before the first step: images (S, H, W, C) and labels (S, classes), by class."""
    images = jnp.asarray(images, jnp.float32)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0))[0])
    network = tuple(jnp.zeros(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shapes))
    labels = jnp.asarray(labels, jnp.float32)
    return MatchingState(jnp.zeros((), jnp.int32), images, labels, tx.init(images), network)


def distance(synthetic: Sequence[jax.Array], real: Sequence[jax.Array]) -> jax.Array:
    """Layer-wise distance of two gradients (section 3.3, equation 8).

    The sum, over the outputs of all layers, of 1 minus the cosine between the gradients of an
    output's weights. Vectors (biases; scale and shift of a normalisation) are left out, as in the
    published code.

    Args:
        synthetic, real: gradients, leaf by leaf; the last axis of a leaf is the layer's output.
    """
    total = jnp.float32(0)
    for ours, theirs in zip(synthetic, real, strict=True):
        if ours.ndim == 1:
            continue
        ours, theirs = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (ours, theirs))
        products = jnp.sum(ours * theirs, axis=0)
        total += jnp.sum(1 - products / (_norms(ours) * _norms(theirs) + _EPSILON))
    return total


def _norms(columns: jax.Array) -> jax.Array:
    """The length of every column, with gradient 0 at 0, as in PyTorch, instead of NaN."""
    squares = jnp.sum(columns**2, axis=0)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def make_step(
    net: Functions,
    tx: optax.GradientTransformation,
    training: InnerTraining,
    mesh: Mesh,
    key: jax.Array,
) -> Step:
    """`step(state, real, weights) -> (state, metrics)`: one update of the images; not jitted yet.

    Args:
        net: the network; its normalisations keep no running averages.
        tx: optimiser of the images.
        training: how the network is trained.
        mesh: its axis 'data' shards the real images, and the synthetic ones of a training step.
        key: of networks, batches and augmentations; each follows from it and `state.step`.

    The step takes real images (B, classes, H, W, C), B of every class, and weights (B,), 0 where
    images are padding, both sharded over 'data'. Its metrics are the mean distance over the classes
    and the norm of the gradient of their sum, before the update.
    """
    key_network, key_batch, key_augment = (jax.random.fold_in(key, i) for i in range(3))
    structure = jax.tree.structure(jax.eval_shape(lambda: net.init(key_network)[0]))
    other = net.init(key_network)[1]
    lives = training.outer_loops > 1  # Otherwise every network is drawn, matched and dropped.

    def loss(network: Leaves, x: jax.Array, y: jax.Array, weights: jax.Array) -> jax.Array:
        outputs = net.apply_train(jax.tree.unflatten(structure, network), other, x)[0]
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
        return product(weights, losses)

    def local(
        state: MatchingState, real: jax.Array, weights: jax.Array
    ) -> tuple[MatchingState, Metrics]:
        network_number, loop = jnp.divmod(state.step, training.outer_loops)

        def drawn() -> Leaves:
            return tuple(
                jax.tree.leaves(net.init(jax.random.fold_in(key_network, network_number))[0])
            )

        network = jax.lax.cond(loop == 0, drawn, lambda: state.network) if lives else drawn()
        augment_key = jax.random.fold_in(key_augment, state.step)
        distances, grads = _match(loss, training, network, state, real, weights, augment_key)
        updates, opt_state = tx.update(grads, state.opt_state, state.images)
        images = optax.apply_updates(state.images, updates)
        if lives:
            labels = jnp.argmax(state.labels, axis=1)
            train = _make_training(loss, training, mesh.shape["data"], images, labels)
            train_key = jax.random.fold_in(key_batch, state.step)
            last = loop == training.outer_loops - 1
            network = jax.lax.cond(
                last, lambda old: old, lambda old: train(old, train_key), network
            )
        metrics = {"loss": jnp.mean(distances), "grad_norm": jnp.linalg.norm(grads.ravel())}
        new = state.replace(
            step=state.step + 1, images=images, opt_state=opt_state, network=network
        )
        return new, metrics

    specs = (P(), P("data"), P("data"))
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)


def _match(
    loss: batching.Loss,
    training: InnerTraining,
    network: Leaves,
    state: MatchingState,
    real: jax.Array,
    weights: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Distances (classes,), and the gradient (S, H, W, C) of their sum.

    In a round all devices share the real images of each of some classes, as many as there are
    devices at most. Then each device matches one of these classes.
    """
    classes, devices = real.shape[1], jax.lax.axis_size("data")
    rounds = -(-classes // devices)
    each = -(-classes // rounds)  # Classes of a round: 5, for ten classes and eight devices.
    own = jax.lax.axis_index("data") % each
    by_class = state.images.reshape(classes, -1, *state.images.shape[1:])
    images_per_class = by_class.shape[1]

    def seen(images: jax.Array, number: jax.Array) -> jax.Array:
        return augment.siamese(training.augments, images, jax.random.fold_in(key, number))

    def real_gradient(number: jax.Array) -> Leaves:
        return _real_gradient(loss, network, seen(real[:, number], number), number, weights)

    def of_classes(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Distance and gradient of this device's one of the classes `numbers` (each,)."""
        number = numbers[own]

        def keep(i: jax.Array, kept: Leaves) -> Leaves:
            found = real_gradient(numbers[i])
            return jax.tree.map(lambda old, new: jnp.where(i == own, new, old), kept, found)

        wanted = jax.lax.fori_loop(0, each, keep, jax.tree.map(jnp.zeros_like, network))

        def apart(images: jax.Array) -> jax.Array:
            labels = jnp.full(images_per_class, number)
            share = jnp.full(images_per_class, 1 / images_per_class, jnp.float32)
            return distance(jax.grad(loss)(network, seen(images, number), labels, share), wanted)

        return jax.value_and_grad(apart)(by_class[number])

    numbers = jnp.arange(rounds * each).reshape(rounds, each) % classes
    found = jax.lax.all_gather(jax.lax.map(of_classes, numbers), "data", axis=1)
    distances, grads = (x[:, :each].reshape(-1, *x.shape[2:])[:classes] for x in found)
    return distances, grads.reshape(state.images.shape)


def _real_gradient(
    loss: batching.Loss, network: Leaves, images: jax.Array, number: jax.Array, weights: jax.Array
) -> Leaves:
    """Gradient of the mean loss over the real images of a class, on all devices."""
    total = batching.gradient_in_passes(
        loss, network, images, jnp.full(len(images), number), weights
    )
    return _mean_over_devices(total, weights)


def _mean_over_devices(total: Leaves, weights: jax.Array) -> Leaves:
    total, count = jax.lax.psum((total, jnp.sum(weights)), "data")
    return jax.tree.map(lambda leaf: leaf / count, total)


def _make_training(
    loss: batching.Loss, training: InnerTraining, devices: int, images: jax.Array, labels: jax.Array
) -> Callable[[Leaves, jax.Array], Leaves]:
    """`train(network, key) -> network` after `inner_loops` epochs on the synthetic images."""
    size = min(training.batch_train, len(images))
    batches = -(-len(images) // size)
    share = -(-size // devices)  # This device's part of a batch; surplus rows have weight 0.

    def train(network: Leaves, key: jax.Array) -> Leaves:
        def step(number: jax.Array, network: Leaves) -> Leaves:
            epoch, batch = jnp.divmod(number, batches)
            epoch_key = jax.random.fold_in(key, epoch)
            order = jnp.arange(len(images))
            if batches > 1:
                order = jax.random.permutation(epoch_key, len(images))
            own = jax.lax.axis_index("data") * share + jnp.arange(share)
            places = batch * size + own
            real = (own < size) & (places < len(images))
            rows = order[jnp.where(real, places, 0)]
            batch_key = jax.random.fold_in(epoch_key, batch)
            x = augment.one_of(training.augments, images[rows], batch_key, places)
            weights = real.astype(jnp.float32)
            total = batching.gradient_in_passes(loss, network, x, labels[rows], weights)
            grads = _mean_over_devices(total, weights)
            return jax.tree.map(lambda old, g: old - training.learning_rate * g, network, grads)

        return jax.lax.fori_loop(0, training.inner_loops * batches, step, network)

    return train
