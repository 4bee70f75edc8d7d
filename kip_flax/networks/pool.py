"""A pool of networks of all ages, each trained a step at a time and drawn anew after its life.

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
    """A network under training: parameters, running averages, the optimiser's state."""

    params: Tree
    other: Tree
    optimizer: Any


class Pool(flax.struct.PyTreeNode):
    """N networks.

    Attributes:
        networks: the leaves of `Network`, each with a first axis of N.
        ages: (N,) int32, steps that count towards the end of each life.
        lives: (N,) int32, how often each was drawn anew.
    """

    networks: Leaves
    ages: jax.Array
    lives: jax.Array


@dataclass(frozen=True, eq=False)
class Pooling:
    """How the networks of a pool are drawn and trained.

    Attributes:
        net: their functions.
        tx: the optimiser of each.
        size: networks of the pool.
        life: steps until a network is drawn anew.
        key: of the weights: network i of life j has those of `key`, i and j.
    """

    net: Functions
    tx: optax.GradientTransformation
    size: int
    life: int
    key: jax.Array

    def start(self) -> Pool:
        """Untrained networks, which end their first lives one after the other."""
        numbers = jnp.arange(self.size, dtype=jnp.int32)
        # One after the other: `vmap` would make other bits of the same keys.
        networks = jax.lax.map(lambda i: self._leaves(self._drawn(i, 0)), numbers)
        return Pool(networks, numbers * (self.life // self.size), jnp.zeros_like(numbers))

    def network(self, pool: Pool, number: jax.Array) -> Network:
        """Network `number` of the pool."""
        return jax.tree.unflatten(self._structure(), [leaf[number] for leaf in pool.networks])

    def put(self, pool: Pool, number: jax.Array, network: Network, steps: int = 1) -> Pool:
        """The pool with `network`, `steps` older, in the place of the one called `number`."""
        ended = pool.ages[number] + steps >= self.life
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
        """`network` after a step; `gradient` returns that of its parameters and its averages."""
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
