"""Steps of an algorithm on random pixels, for the benchmarks that time them in turns."""

from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data
from kip_flax.algorithms.interface import Problem
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runs import setup
from kip_flax.runtime import sharding
from kip_flax.runtime.console import Console

SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
CLASSES = 10


def stepper(config: ConfigDict, shape: tuple[int, int, int]) -> Callable[[int], None]:
    """A function step(number) that takes that step on images of `shape` and waits for it.

    It keeps the state between calls. Only 'kip' gets a kernel.
    """
    rng = np.random.default_rng(0)
    count = max(config.batch_size, config.support.size)
    images = rng.standard_normal((count, *shape), np.float32)
    targets = data.Targets(images, np.arange(count) % CLASSES, CLASSES)
    mesh = sharding.make_mesh()
    kernel: Kernel = _no_kernel
    if config.algorithm == "kip":
        kernel = shard_kernel(setup.make_kernel(config, Console()), mesh)
    support = setup.first_support(config, targets, jax.random.key(0))
    problem = Problem(config, targets, kernel, mesh, jax.random.key(1))
    task = setup.make_distillation(problem, support)
    kept = [task.start()]

    def step(number: int) -> None:
        kept[0] = jax.block_until_ready(task.step(kept[0], number)[0])

    return step


def _no_kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
    raise AssertionError("the algorithm asks for no kernel entry")
