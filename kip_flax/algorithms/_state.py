"""What a run carries from step to step, each algorithm in one pytree of arrays."""

from typing import Any

import flax.struct
import jax


class KipState(flax.struct.PyTreeNode):
    """KIP: the learned support and its optimiser.

    Attributes:
        step: () int32, steps taken.
        params: {'images': (S, H, W, C)} and, where the labels are learned, 'labels': (S, classes).
        labels: (S, classes), the initial labels: those in use unless they are learned.
        opt_state: optax state of `params`; with Gauss-Newton steps {'damping': (), and 'average':
            images (S, H, W, C)}.
    """

    step: jax.Array
    params: dict[str, jax.Array]
    labels: jax.Array
    opt_state: Any

    @property
    def support(self) -> tuple[jax.Array, jax.Array]:
        """Support images (S, H, W, C) and labels (S, classes)."""
        return self.params["images"], self.params.get("labels", self.labels)


class LsState(flax.struct.PyTreeNode):
    """Label Solve: the sums over the targets seen so far.

    Attributes:
        step: () int32, tiles of targets summed.
        images: (S, H, W, C), the support; never changed.
        labels: (S, classes), the natural labels of the support.
        gram: (S, S) sum over targets of K_st K_ts.
        cross: (S, classes) sum over targets of K_st y_t.
    """

    step: jax.Array
    images: jax.Array
    labels: jax.Array
    gram: jax.Array
    cross: jax.Array

    @property
    def support(self) -> tuple[jax.Array, jax.Array]:
        """Support images (S, H, W, C) and their natural labels (S, classes)."""
        return self.images, self.labels


class MatchingState(flax.struct.PyTreeNode):
    """Gradient matching: the learned images, and the network that they are matched on.

    Attributes:
        step: () int32, updates of the images.
        images: (S, H, W, C), in the order of the classes, as many of each.
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
    def support(self) -> tuple[jax.Array, jax.Array]:
        """Support images (S, H, W, C) and labels (S, classes)."""
        return self.images, self.labels
