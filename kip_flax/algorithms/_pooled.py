"""Shared parts of algorithms that learn a support together with a pool of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
from ml_collections import ConfigDict

from kip_flax.algorithms import _averaged
from kip_flax.algorithms._averaged import AveragedState

if TYPE_CHECKING:
    from kip_flax.networks.pool import Pool


class PooledState(AveragedState):
    """The learned support and the networks.

    Attributes:
        pool: the networks.
    """

    pool: Pool


def start(
    config: ConfigDict, images: jax.Array, labels: jax.Array, average: float, pool: Pool
) -> PooledState:
    """State before the first step: `_averaged.first_fields`, and the networks."""
    return PooledState(**_averaged.first_fields(config, images, labels, average), pool=pool)
