"""KIP by Gauss-Newton steps, the labels solved for: few steps, each worth many of descent's."""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from kip_flax import gauss_newton, sharding
from kip_flax.algorithms import kip
from kip_flax.algorithms.kip import check_data
from kip_flax.algorithms.kip_solve import check, make_support
from kip_flax.algorithms.ls import pairs
from kip_flax.kernels import jacobian
from kip_flax.state import KipState
from kip_flax.tasks import Problem, Step, kernel_options

__all__ = ["check", "check_data", "init", "make_step", "make_support", "pairs", "prepare"]


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> KipState:
    """State before the first step: images (S, H, W, C); the labels (S, classes) are not used."""
    return gauss_newton.init(images, labels, config.newton.damping)


def prepare(config: ConfigDict, say: Callable[[str], None]) -> None:
    """Compiles ahead what the steps need besides the kernel."""
    jacobian.warm_up(**kernel_options(config), say=say)


def make_step(problem: Problem) -> Step:
    """One step on a batch that is drawn anew, evenly over the classes."""
    config = problem.config
    of_pairs = jacobian.make_jacobian(**kernel_options(config))
    of_pairs = sharding.shard_jacobian(of_pairs, problem.mesh)
    update = gauss_newton.make_step(problem.kernel, of_pairs, config.reg, config.newton.iterations)
    return kip.on_batches(problem, update)
