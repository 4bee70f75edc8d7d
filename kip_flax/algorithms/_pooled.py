"""What algorithms share that learn a support beside a pool of networks trained on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp

from kip_flax.algorithms.base import Support

if TYPE_CHECKING:
    from kip_flax.networks.pool import Pool


class PooledState(flax.struct.PyTreeNode):
    """The learned support and the networks.

    Attributes:
        step: () int32, steps taken.
        params: {'images': (S, H, W, C)} and, where labels are learned, 'labels': (S, classes).
        labels: (S, classes), those in use unless they are learned.
        opt_state: optax state of `params`.
        average: like `params`: the exponential mean of the last sets, which is what there is to
            use; () without one.
        pool: the networks.
    """

    step: jax.Array
    params: dict[str, jax.Array]
    labels: jax.Array
    opt_state: Any
    average: Any
    pool: Pool

    @property
    def support(self) -> Support:
        """Support images (S, H, W, C) and labels (S, classes)."""
        used = self.average or self.params
        return used["images"], used.get("labels", self.labels)

    @property
    def current(self) -> Support:
        """The same without the mean over the last sets: what networks train on."""
        return self.params["images"], self.params.get("labels", self.labels)

    def mean_with(self, params: dict[str, jax.Array], decay: float) -> Any:
        """`average` after `params`; over the first steps it forgets faster."""
        if not self.average:
            return ()
        steps = self.step.astype(jnp.float32)
        share = 1 - jnp.minimum(decay, (1 + steps) / (10 + steps))
        return jax.tree.map(lambda old, new: old + share * (new - old), self.average, params)
