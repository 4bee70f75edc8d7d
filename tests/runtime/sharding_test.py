"""Meshes, what lies on them, and devices that wait for one another."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
T = 10  # Does not divide by 4.


def test_padding_is_zeros_of_no_weight():
    rng = np.random.default_rng(0)
    x_t, y_t = rng.normal(size=(T, 8, 8, 1)).astype(np.float32), rng.normal(size=(T, 3))
    mesh = sharding.make_mesh(4)
    images, labels, weights = sharding.put_targets(mesh, x_t, y_t)
    assert len(images) == len(labels) == len(weights) == 12
    np.testing.assert_array_equal(weights, [1] * T + [0, 0])
    np.testing.assert_array_equal(images[:T], x_t)
    np.testing.assert_array_equal(labels[:T], y_t)
    assert not np.asarray(images[T:]).any()
    assert not np.asarray(labels[T:]).any()
    assert {shard.data.shape for shard in images.addressable_shards} == {(3, 8, 8, 1)}
    assert len(sharding.put_targets(sharding.make_mesh(2), x_t, y_t)[0]) == T


def test_replicate_puts_everything_everywhere():
    mesh = sharding.make_mesh(2, 2)
    tree = sharding.replicate(mesh, {"a": np.arange(3.0), "b": (np.ones((2, 2)),)})
    for array in jax.tree.leaves(tree):
        assert array.sharding.is_fully_replicated
        assert len(array.addressable_shards) == 4
    np.testing.assert_array_equal(tree["a"], [0, 1, 2])


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((), (4, 1)), ((-1, 2), (2, 2)), ((2, -1), (2, 2)), ((3, 1), (3, 1)), ((-1, 3), (1, 3))],
    ids=str,
)
def test_mesh_shapes(sizes, shape):
    mesh = sharding.make_mesh(*sizes)
    assert mesh.axis_names == ("data", "support")
    assert mesh.devices.shape == shape


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"


@pytest.mark.parametrize(("sizes", "shape"), [((), (4, 1)), ((-1, 2), (2, 2)), ((3,), (3, 1))])
def test_hosts_and_slices_make_one_mesh(monkeypatch, sizes, shape):
    """`jax.make_mesh` refuses devices of several slices, as hosts of GPUs are to XLA."""
    made = [Device(id=n, process_index=n // 2, slice_index=n // 2) for n in range(4)]
    with pytest.raises(ValueError, match="multi-slice"):
        jax.make_mesh((4,), ("data",), devices=made)
    monkeypatch.setattr(jax, "devices", lambda: made)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    mesh = sharding.make_mesh(*sizes)
    assert mesh.devices.tolist() == np.array(made)[: math.prod(shape)].reshape(shape).tolist()
    with pytest.raises(UserError, match="leaves 1 of 2 processes"):
        sharding.make_mesh(2)


def test_programs_are_kept_where_that_is_possible(monkeypatch, tmp_path):
    kept = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        sharding.keep_programs()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "kip_flax")
        # XLA's own files on a GPU would end a process that cannot write them.
        assert jax.config.jax_persistent_cache_enable_xla_caches == "none"
        (tmp_path / "file").write_text("")  # No folder can be made below a file, even by root.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        sharding.keep_programs()
        own = tmp_path / f"kip_flax-{os.getuid()}"
        assert jax.config.jax_compilation_cache_dir == str(own)
        own.rmdir()
        own.write_text("")
        sharding.keep_programs()  # It is a start that compiles, and no error.
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)


@pytest.mark.parametrize("sizes", [(8, 1), (4, 2), (-1, 5), (1, 6)], ids=str)
def test_a_mesh_larger_than_the_devices(sizes):
    with pytest.raises(UserError, match=r"needs \d devices and there are 4"):
        sharding.make_mesh(*sizes)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("around", [False, True])
def test_float64_is_that_of_the_devices_and_not_of_the_caller(wide, around, monkeypatch):
    monkeypatch.setattr(sharding, "takes_float64", lambda: wide)
    found = sharding.with_float64(lambda values: jnp.asarray(values).dtype)
    with jax.enable_x64(around):
        assert found([1.5]) == (np.float64 if wide else np.float32)
        assert jnp.asarray([1.5]).dtype == (np.float64 if around else np.float32)


@pytest.mark.parametrize("sizes", [(0, 1), (-2, 1), (1, 0), (-1, -1)], ids=str)
def test_sizes_that_mean_nothing(sizes):
    with pytest.raises(UserError, match="take positive sizes, or -1 for one of them"):
        sharding.make_mesh(*sizes)


LATE = """
import sys, time
from kip_flax.runtime import sharding
sharding.prepare_cpu_devices()
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
jax.config.update("jax_num_cpu_devices", 2)
mesh = sharding.make_mesh()

def late(x):
    time.sleep(float(sys.argv[1]) * float(x[0]))
    return x

def total(x):
    return jax.lax.psum(jax.pure_callback(late, x, x), "data")

summed = jax.jit(jax.shard_map(total, mesh=mesh, in_specs=P("data"), out_specs=P()))
print(float(summed(jnp.arange(2.0))[0]))
"""

# What the user has set stays.
HASTY = " ".join(
    f"--xla_cpu_collective_call_{name}_timeout_seconds=2" for name in ("warn_stuck", "terminate")
)


@pytest.mark.parametrize(
    ("seconds", "flags", "outcome"),
    [
        (9, HASTY, "aborted"),
        pytest.param(9, "", "1.0", marks=pytest.mark.slow),
        pytest.param(50, "", "1.0", marks=pytest.mark.slow),
    ],
)
def test_a_device_that_is_late_is_waited_for(seconds, flags, outcome):
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(seconds)],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    aborted = done.returncode == -signal.SIGABRT
    assert outcome == ("aborted" if aborted else done.stdout.strip()), done.stderr
