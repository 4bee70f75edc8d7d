"""Every program as a GPU and a TPU would get it, from `jax.export` on a machine without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accelerator_programs import MODES, programs
from exported import Program, exporting

from kip_flax import algorithms
from kip_flax.algorithms import base
from kip_flax.kernels.xla import tiles
from kip_flax.runtime import sharding

# Their steps consist of kernel entries and of linear algebra: bfloat16 would spoil either.
KERNEL_PROGRAMS = (
    *("kip", "kip_solve", "kip_newton", "dp_kip", "ls", "ls_cross_entropy", "evaluation"),
)
# The longest to compile, and each has the kernels or the networks of another.
AS_ANOTHER = ("dp_kip", "bptt", "kip_solve", "dsa")
# Their exchanges stand in no `shard_map`: only a compiled program has them, as those that
# benchmarks/collectives_test.py reads of `kip_newton` and `ls`.
BY_THE_COMPILER = ("kip_newton", "dp_kip", "ls", "ls_cross_entropy")


def accelerators():
    """Program, platform, devices, depth of the kernel's network; all but the quickest are slow."""
    for name in (*algorithms.NAMES, *MODES):
        marks = [pytest.mark.slow] if name in AS_ANOTHER else []
        yield pytest.param(name, "tpu", 4, 1, marks=marks)
        for platform, devices in (("tpu", 1), ("tpu", 4), ("cuda", 1), ("cuda", 4)):
            yield pytest.param(name, platform, devices, 3, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "platform", "devices", "depth"), list(accelerators()))
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
@pytest.mark.parametrize("name", [n for n in algorithms.NAMES if n not in BY_THE_COMPILER])
def test_bytes_between_devices_do_not_grow_with_the_targets(name, monkeypatch):
    """Those of BPTT do: every device needs all targets, which are few beside a training."""
    few, many = (
        [program.collectives() for program in programs(name, "tpu", 4, monkeypatch, batch)]
        for batch in (400, 800)
    )
    assert (few == many) == (name != "bptt")
    assert any(few)


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
