"""A pool of networks of all ages, each trained step by step and redrawn at the end of its life.

Source: Zhou, Nezhadarya, Ba, *Dataset Distillation using Neural Feature Regression* (NeurIPS 2022,
arXiv 2206.00719), section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from kip_flax.networks.build import Functions, Tree

Leaves = tuple[jax.Array, ...]


class Network(NamedTuple):
    """A network in training: its parameters, running averages and optimiser state."""

    params: Tree
    other: Tree
    optimizer: Any


class Pool(flax.struct.PyTreeNode):
    """The state of N networks.

    Attributes:
        networks: the leaves of `Network`, each with a first axis of N.
        ages: (N,) int32, steps of each present life; `start` staggers those of the first lives.
        lives: (N,) int32, how often each network was redrawn.
    """

    networks: Leaves
    ages: jax.Array
    lives: jax.Array


@dataclass(frozen=True, eq=False)
class Pooling:
    """How the networks of a pool are drawn and trained.

    Attributes:
        net: the functions of a network.
        tx: the optimiser of each network.
        size: the number of networks.
        life: steps until a network is redrawn.
        key: of the weights, which follow from it, the network's number and the number of its life.
    """

    net: Functions
    tx: optax.GradientTransformation
    size: int
    life: int
    key: jax.Array

    def start(self) -> Pool:
        """Untrained networks whose first lives end one after the other."""
        numbers = jnp.arange(self.size, dtype=jnp.int32)
        # `map` draws one after the other; `vmap` would draw other bits from the same keys.
        networks = jax.lax.map(lambda i: self._leaves(self._drawn(i, 0)), numbers)
        return Pool(networks, numbers * (self.life // self.size), jnp.zeros_like(numbers))

    def network(self, pool: Pool, number: jax.Array) -> Network:
        """Network `number` of the pool."""
        return jax.tree.unflatten(self._structure(), [leaf[number] for leaf in pool.networks])

    def put(
        self,
        pool: Pool,
        number: jax.Array,
        network: Network,
        steps: int = 1,
        learns: jax.Array | bool = True,
    ) -> Pool:
        """The pool with `network`, `steps` older, at `number`; redrawn if its life has ended.

        A life ends after `life` steps, or when the network diverges or does not learn.
        """
        fine = (
            learns & jnp.array([jnp.isfinite(leaf).all() for leaf in self._leaves(network)]).all()
        )
        ended = (pool.ages[number] + steps >= self.life) | ~fine
        lives = pool.lives.at[number].add(ended)
        leaves = jax.lax.cond(
            ended,
            lambda: self._leaves(self._drawn(number, lives[number])),
            lambda: self._leaves(network),
        )
        return Pool(
            tuple(old.at[number].set(new) for old, new in zip(pool.networks, leaves, strict=True)),
            jnp.where(jnp.arange(self.size) == number, (pool.ages + steps) * ~ended, pool.ages),
            lives,
        )

    def updated(
        self, network: Network, gradient: Callable[[Network], tuple[Tree, Tree]]
    ) -> Network:
        """`network` after a step; `gradient` returns that of the parameters, and new averages."""
        grads, other = gradient(network)
        updates, optimizer = self.tx.update(grads, network.optimizer, network.params)
        return Network(optax.apply_updates(network.params, updates), other, optimizer)

    def _drawn(self, number: jax.Array | int, life: jax.Array | int) -> Network:
        key = jax.random.fold_in(jax.random.fold_in(self.key, number), life)
        params, other = self.net.init(key)
        return Network(params, other, self.tx.init(params))

    def _leaves(self, network: Network) -> Leaves:
        return tuple(jax.tree.leaves(network))

    def _structure(self) -> Any:
        return jax.tree.structure(jax.eval_shape(lambda: self._drawn(0, 0)))
