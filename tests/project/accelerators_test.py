"""Every program as a GPU and a TPU would get it, from `jax.export` on a machine without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import Program, exporting

from configs import default
from kip_flax import algorithms, kernels
from kip_flax.algorithms import base
from kip_flax.data import Targets
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.kernels.xla import tiles
from kip_flax.networks import build, named, recipe, train
from kip_flax.runs import evaluate, setup
from kip_flax.runtime import sharding

IMAGE, CLASSES, SUPPORT = (32, 32, 3), 10, 20
# Their steps consist of kernel entries and of linear algebra: bfloat16 would spoil either.
KERNEL_PROGRAMS = ("kip", "kip_solve", "kip_newton", "dp_kip", "ls", "evaluation")


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
    problem = base.Problem(config, targets(count), kernel, mesh, jax.random.key(0))
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
    like = named.Described("convnet_plain", 3, 128, build.Weights(2**0.5, 0.1), build.Blocks())
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


def accelerators():
    """Platform, devices, depth of the kernel's network: the quickest always, the others `slow`."""
    yield "tpu", 4, 1
    for platform, devices in (("tpu", 1), ("tpu", 4), ("cuda", 1), ("cuda", 4)):
        yield pytest.param(platform, devices, 3, marks=pytest.mark.slow)


@pytest.mark.parametrize(("platform", "devices", "depth"), list(accelerators()))
@pytest.mark.parametrize("name", [*algorithms.NAMES, *MODES])
def test_programs_of_an_accelerator(name, platform, devices, depth, monkeypatch):
    """They call no host, name no float64 on a TPU, fit the tile budget, and round no product."""
    found = programs(name, platform, devices, monkeypatch, depth=depth)
    if name not in KERNEL_PROGRAMS:
        assert any(program.operations("stablehlo.convolution") for program in found)
    for program in found:
        assert program.devices == devices
        assert platform != "tpu" or "f64" not in program.text
        assert program.largest_tensor() < tiles._TILE_BYTES
        if name in KERNEL_PROGRAMS:
            rounded = [
                line
                for line in program.operations("stablehlo.dot_general", "stablehlo.convolution")
                if "HIGHEST" not in line
            ]
            assert rounded == []


@pytest.mark.slow
@pytest.mark.parametrize("name", algorithms.NAMES)
def test_bytes_between_devices_do_not_grow_with_the_targets(name, monkeypatch):
    """Those of BPTT do: every device needs all targets, which are few beside a training."""
    few, many = (
        [program.collectives() for program in programs(name, "tpu", 4, monkeypatch, batch)]
        for batch in (400, 800)
    )
    assert (few == many) == (name != "bptt")


def test_what_the_checks_would_find(monkeypatch):
    """Float64, a large array, a rounded product, a gathered batch."""
    mesh = sharding.make_mesh(4)

    def step(state, x, y, weights):
        everyone = jax.lax.all_gather(x.astype(jnp.float64), "data", tiled=True)
        return jax.lax.psum(state @ everyone.astype(jnp.float32), "data")

    with exporting(monkeypatch, "tpu") as found:
        mapped = jax.jit(base.over_targets(step, mesh))
        mapped(jnp.ones((2, 8), jnp.float32), *sharding.put_targets(mesh, *np.ones((2, 8, 3))))
    (program,) = found
    assert isinstance(program, Program)
    assert "f64" in program.text
    assert program.collectives() == [("all_gather", 8 * 3 * 8), ("all_reduce", 2 * 3 * 4)]
    assert program.largest_tensor() == 8 * 3 * 8
    assert all("HIGHEST" not in line for line in program.operations("stablehlo.dot_general"))


def test_no_program_that_calls_the_host_is_exported(monkeypatch):
    def step(x):
        jax.debug.print("{}", x)
        return x

    with exporting(monkeypatch, "tpu"), pytest.raises(ValueError, match="platform"):
        jax.jit(step)(jnp.ones(3))
