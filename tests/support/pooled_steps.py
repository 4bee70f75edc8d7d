"""Steps of an algorithm with a pool of networks, on a few images of noise."""

import jax
import jax.numpy as jnp
import numpy as np

from kip_flax.algorithms.interface import Problem
from kip_flax.data import Targets
from kip_flax.runtime import sharding

S, T, CLASSES, SHAPE = 6, 10, 3, (4, 4, 3)


def changed(config, fields, changes):
    """`config` with `fields` by dotted name, and `changes` by keywords such as frepo__pool."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(fields | changes)
    return config


def targets(scale=1):
    rng = np.random.default_rng(0)
    images = scale * rng.normal(size=(T, *SHAPE)).astype(np.float32)
    return Targets(images, np.arange(T) % CLASSES, CLASSES)


def run(algorithm, config, data, steps, devices=1, first=None, step=None):
    """States after 0, 1, ... steps from the state `first`, and what each step measured.

    `step`: of `make_step`, if several runs share it.
    """
    mesh = sharding.make_mesh(devices, 1)
    step = step or make_step(algorithm, config, data, mesh)
    states, history = [first or _first(algorithm, config, mesh)], []
    for number in range(1, steps + 1):
        state, metrics = step(jax.tree.map(jnp.copy, states[-1]), number)
        states.append(state)
        history.append(metrics)
    return states, history


def make_step(algorithm, config, data, mesh):
    """A step, compiled once for all runs that get it."""
    return algorithm.make_step(Problem(config, data, None, mesh, jax.random.key(3)))


def _first(algorithm, config, mesh):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(S, *SHAPE)).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(S) % CLASSES] - 1 / CLASSES
    state = algorithm.init(config, jnp.asarray(images), jnp.asarray(labels))
    return sharding.replicate(mesh, jax.tree.map(np.array, state))
