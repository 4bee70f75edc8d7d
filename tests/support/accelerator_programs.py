"""The programs of every algorithm and mode, as an accelerator would get them."""

import jax
import jax.numpy as jnp
import numpy as np
from exported import exporting

from configs import default
from kip_flax import kernels
from kip_flax.algorithms import base, interface
from kip_flax.data import Targets
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.networks import build, named, recipe, train
from kip_flax.runs import evaluate, setup
from kip_flax.runtime import sharding

IMAGE, CLASSES, SUPPORT = (32, 32, 3), 10, 20


def targets(count):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, *IMAGE), np.float32)
    return Targets(images, np.arange(count) % CLASSES, CLASSES)


def configuration(algorithm, batch, depth):
    config = default.get_config()
    config.kernel.depth = depth
    config.algorithm = algorithm
    config.support.size, config.num_steps, config.batch_size = SUPPORT, 2, batch
    config.kernel.implementation = "xla"
    config.privacy.noise_multiplier = 2.0
    config.privacy.start = "noise"  # Means are NumPy's.
    return config


def run_step(config, mesh, count):
    """The first step of a run."""
    kernel = shard_kernel(kernels.make_kernel(base.kernel_options(config)), mesh)
    problem = interface.Problem(config, targets(count), kernel, mesh, jax.random.key(0))
    support = base.draw_support(problem.targets, SUPPORT, "real", jax.random.key(1))
    distillation = setup.make_distillation(problem, support)
    distillation.step(distillation.start(), 1)


def run_evaluation(config, mesh, batch):
    """The test of a batch by the kernel."""
    kernel = shard_kernel(kernels.make_kernel(base.kernel_options(config)), mesh)
    measure = evaluate.make_measure(kernel)
    images = sharding.replicate(mesh, np.zeros((SUPPORT, *IMAGE), np.float32))
    alpha = sharding.replicate(mesh, np.zeros((SUPPORT, CLASSES), jnp.result_type(float)))
    x = sharding.put_targets(mesh, np.zeros((batch, *IMAGE), np.float32), np.zeros(batch, int))
    measure(images, alpha, x[0], x[1], batch)


def run_transfer(config, mesh, batch):
    """Steps of training on a set, and the test of what was trained."""
    del config
    like = named.NetworkOptions("convnet_plain", 3, 128, build.Weights(2**0.5, 0.1), build.Blocks())
    net = build.functions(named.maker("convnet_plain:3", IMAGE, CLASSES, like))
    chosen = recipe.make("auto", SUPPORT, mirrorable=True)
    trainer = train.make_trainer(net, chosen, mesh)
    keys = jax.random.split(jax.random.key(0), mesh.size)
    states = trainer.start(keys)
    images = np.zeros((mesh.size, SUPPORT, *IMAGE), np.float32)
    labels = np.zeros((mesh.size, SUPPORT, CLASSES), np.float32)
    rates, l2s = np.zeros((2, mesh.size), np.float32)
    of_each = train.put_each(mesh, (images, labels, rates, l2s))
    states = trainer.advance(states, train.Trainings(keys, *of_each), chosen, 0, 2)
    batches = train.put_all(mesh, train.batches(np.zeros((batch, *IMAGE)), np.zeros(batch), 500))
    trainer.count_right(states, *batches, 0, 1)


MODES = {"evaluation": run_evaluation, "transfer": run_transfer}


def programs(name, platform, devices, patch, batch=1000, depth=1):
    """What the first step of algorithm `name`, or that mode, hands over to be compiled."""
    mesh = sharding.make_mesh(devices)
    config = configuration("kip" if name in MODES else name, batch, depth)
    with jax.enable_x64(platform != "tpu"), exporting(patch, platform) as found:
        MODES.get(name, run_step)(config, mesh, batch)
    assert found
    return found
