"""The state of an algorithm that learns a support and exports the mean of its last sets."""

from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from kip_flax.algorithms import base
from kip_flax.algorithms.interface import Support
from kip_flax.runtime.errors import UserError


class AveragedState(flax.struct.PyTreeNode):
    """The learned support and its optimiser. Algorithms add their own fields.

    Attributes:
        step: () int32, steps taken.
        params: {'images': (S, H, W, C)} and, where labels are learned, 'labels': (S, classes).
        labels: (S, classes), used unless labels are learned.
        opt_state: optax state of `params`.
        average: like `params`: the exponential mean of the last sets, which is exported; () if
            there is none.
    """

    step: jax.Array
    params: dict[str, jax.Array]
    labels: jax.Array
    opt_state: Any
    average: Any

    @property
    def support(self) -> Support:
        """Support images (S, H, W, C) and labels (S, classes)."""
        used = self.average or self.params
        return used["images"], used.get("labels", self.labels)

    @property
    def current(self) -> Support:
        """The support that steps move, without the mean over the last sets."""
        return self.params["images"], self.params.get("labels", self.labels)

    def moved(
        self, tx: optax.GradientTransformation, grads: dict[str, jax.Array], decay: float
    ) -> Self:
        """The state after one update by `tx`; fields that an algorithm adds stay the same.

        Args:
            tx: the optimiser of `params`.
            grads: like `params`.
            decay: as in `stepped`.
        """
        updates, opt_state = tx.update(grads, self.opt_state, self.params)
        return self.stepped(updates, opt_state, decay)

    def stepped(self, updates: Any, opt_state: Any, decay: float) -> Self:
        """The state after one step; fields that an algorithm adds stay the same.

        Args:
            updates: like `params`: what is added to them.
            opt_state: the optimiser's state after the step.
            decay: of the mean of the last sets, if there is one; at most (1 + n) / (10 + n) in
                step n (from 0).
        """
        params, average = optax.apply_updates(self.params, updates), ()
        if self.average:
            steps = self.step.astype(jnp.float32)
            share = 1 - jnp.minimum(decay, (1 + steps) / (10 + steps))
            average = jax.tree.map(lambda old, new: old + share * (new - old), self.average, params)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, average=average)


def first_fields(
    config: ConfigDict, images: jax.Array, labels: jax.Array, average: float
) -> dict[str, Any]:
    """The fields of `AveragedState` before the first step, for the optimiser of `config`.

    Args:
        config: a valid configuration.
        images, labels: the support (S, H, W, C), (S, classes).
        average: decay of the mean of the last sets; 0 for no mean.
    """
    params = {"images": jnp.asarray(images, jnp.float32)}
    if config.support.learn_labels:
        params["labels"] = labels
    return fields_of(params, labels, base.make_optimizer(config), average)


def fields_of(
    params: dict[str, jax.Array],
    labels: jax.Array,
    tx: optax.GradientTransformation,
    average: float,
) -> dict[str, Any]:
    """The fields of `AveragedState` before the first step.

    Args:
        params: as in `AveragedState`.
        labels: (S, classes), used unless labels are learned.
        tx: the optimiser of `params`.
        average: decay of the mean of the last sets; 0 for no mean.
    """
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "labels": labels,
        "opt_state": tx.init(params),
        "average": dict(params) if average else (),
    }


def check_average(name: str, decay: float) -> None:
    """Raises UserError unless `decay`, the value of the field `name`, is in [0, 1)."""
    if not 0 <= decay < 1:
        raise UserError(f"{name} is {decay}: it must be at least 0 and below 1.")
