"""Every program by the TPU's own compiler, which needs no TPU: it compiles, and fits the memory."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from accelerator_programs import MODES, programs
from jax.sharding import NamedSharding, PartitionSpec
from own_process import output_of

from benchmarks import tpu_program
from benchmarks.collectives import collectives
from kip_flax import algorithms, architectures
from kip_flax.runtime import float_pairs

pytest.importorskip("libtpu", reason="tests/requirements-tpu.txt is not installed")
pytestmark = pytest.mark.slow

NAMES = [*algorithms.NAMES, *MODES]
# Of a v5e's 16 GiB. Twenty images and 1,000 targets of 32x32x3 have 234 MiB of pairwise gradients.
MOST = 2.5 * 2**30


def compiled(program, mesh):
    """The program, compiled for the TPUs of `mesh`."""
    exported = program.exported
    everywhere = NamedSharding(mesh, PartitionSpec())
    arguments = [
        jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=sharding or everywhere)
        for aval, sharding in zip(exported.in_avals, exported.in_shardings_jax(mesh), strict=True)
    ]
    positional, named = jax.tree.unflatten(exported.in_tree, arguments)
    results = jax.tree.unflatten(exported.out_tree, exported.out_shardings_jax(mesh))
    call = jax.jit(exported.call, out_shardings=results)
    return call.lower(*positional, **named).compile()


def check(name, topology, devices, depth, patch):
    mesh = tpu_program.tpu_mesh(topology, devices)
    for program in programs(name, "tpu", devices, patch, depth=depth):
        made = compiled(program, mesh)
        memory = made.memory_analysis()
        assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < MOST


@pytest.mark.parametrize(("devices", "depth"), [(1, 3), (4, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_the_compiler_takes_the_program(name, devices, depth, monkeypatch):
    check(name, "v5e:2x2", devices, depth, monkeypatch)


@pytest.mark.parametrize("name", ["kip", "kip_newton", "ls", "evaluation"])
def test_the_compiler_adds_no_exchange_that_grows_with_the_targets(name, monkeypatch):
    mesh = tpu_program.tpu_mesh("v5e:2x2", 4)
    few, many = (
        [
            collectives(compiled(program, mesh).as_text())
            for program in programs(name, "tpu", 4, monkeypatch, batch)
        ]
        for batch in (400, 800)
    )
    assert few == many
    assert all(few)


@pytest.mark.parametrize("operation", ["add", "multiply", "divide"])
def test_the_compiler_keeps_the_sums_that_make_rounding_errors(operation):
    """None of them changes a result in real numbers."""
    own = NamedSharding(tpu_program.tpu_mesh("v5e:2x2"), PartitionSpec())
    x = jax.ShapeDtypeStruct((1024, 128), np.float32, sharding=own)

    def fn(high, low):
        one = float_pairs.constant(1.0, float_pairs.one(high[0, 0]))
        return getattr(float_pairs, operation)((high, low), one)

    lowered = jax.jit(fn, out_shardings=own).lower(x, x)
    made, exported = lowered.compile().as_text(), lowered.as_text()
    for kind in ("add", "subtract"):
        assert made.count(f" {kind}(") >= exported.count(f"stablehlo.{kind} ") > 3


EIGHT = """
import sys
sys.path[:0] = {path!r}
import jax
from kip_flax.runtime import sharding
sharding.prepare_cpu_devices()
jax.config.update("jax_num_cpu_devices", 8)
import pytest
import tpu_compiler_test
with pytest.MonkeyPatch.context() as patch:
    tpu_compiler_test.check({name!r}, "v5e:2x4", 8, 1, patch)
print("compiled")
"""


@pytest.mark.parametrize("name", NAMES)
def test_the_compiler_takes_the_program_of_eight_devices(name):
    folders = [str(Path(__file__).parent), *filter(None, sys.path)]
    assert output_of(EIGHT.format(path=folders, name=name)).endswith("compiled\n")


def test_cycles_and_bytes_of_a_tile(monkeypatch, tmp_path, capsys):
    """More targets a tile need fewer cycles a pair; a small tile hardly leaves the core."""
    report = tmp_path / "tile.json"
    flags = ["--lanes=128,512", "--size=8", "--channels=1", f"--json={report}"]
    monkeypatch.setattr("sys.argv", ["tpu_program", "--architecture=convnet", "--depth=2", *flags])
    tpu_program.main()
    few, _, many, _ = json.loads(report.read_text())["pairs"]
    assert few["cycles"] > many["cycles"] > 0
    assert capsys.readouterr().out.count("cycles") == 4
    mesh = tpu_program.tpu_mesh("v5e:2x2")
    made = tpu_program.compiled_tile(mesh, (8, 8, 1), architectures.convnet(2), 128, False)
    cost = tpu_program.program_cost(made.as_text())
    np.testing.assert_allclose(cost.cycles, 128 * few["cycles"])
