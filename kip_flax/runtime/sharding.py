"""One device mesh for training, Label Solve and evaluation.

Targets are sharded over its axis 'data'. The support is sharded over its axis 'support', or whole
on every device. A kernel matrix K(targets, support) is sharded over both axes (`kernels.sharded`).
Batches that do not divide are padded with zero images of weight 0.
"""

import contextlib
import functools
import math
import os
import platform
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kip_flax.runtime import batching, hardware
from kip_flax.runtime.errors import UserError

Tree = TypeVar("Tree")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_PATIENCE = 7 * 24 * 3600  # Seconds.


def make_mesh(data: int = -1, support: int = 1) -> Mesh:
    """A mesh of `data` x `support` devices; -1: as many of the other devices as the mesh can use.

    Raises:
        UserError: the mesh needs more devices than there are or leaves a process without one, or
            an axis is not -1 or positive.
    """
    devices = jax.device_count()
    if any(size < 1 and size != -1 for size in (data, support)) or (data, support) == (-1, -1):
        raise UserError(
            f"mesh.data={data}, mesh.support={support}: take positive sizes, or -1 for one of them."
        )
    if data == -1:
        data = max(1, devices // support)
    if support == -1:
        support = max(1, devices // data)
    if data * support > devices:
        raise UserError(
            f"a mesh of {data} x {support} needs {data * support} devices and there are {devices}: "
            f"lower mesh.data or mesh.support."
        )
    taken = jax.devices()[: data * support]
    idle = jax.process_count() - len({device.process_index for device in taken})
    if idle:
        raise UserError(
            f"a mesh of {data} x {support} leaves {idle} of {jax.process_count()} processes "
            f"without a device: start fewer, or set mesh.data=-1."
        )
    # `jax.make_mesh` arranges devices by their network, and refuses several hosts of GPUs, several
    # slices of TPUs, and a part of one. A step exchanges too little for the order to matter.
    grid = np.array(taken).reshape(data, support)
    return Mesh(grid, ("data", "support"), axis_types=(AxisType.Auto, AxisType.Auto))


def prepare_cpu_devices() -> None:
    """Sets XLA up for CPU devices. Call it before JAX creates a device.

    - Devices wait for one another for up to a week. By default XLA aborts the process when one is
      40 s behind another, which happens on a busy machine.
    - Code is compiled for AVX2. Code for AVX-512 (jaxlib 0.10.2) reads past its arrays in the
      gradient of neural_tangents on some CPUs, which kills the process, and is no faster elsewhere.
    """
    flags: dict[str, int | str] = {
        "xla_cpu_collective_call_warn_stuck_timeout_seconds": _PATIENCE,
        "xla_cpu_collective_call_terminate_timeout_seconds": _PATIENCE,
    }
    if platform.machine() in ("x86_64", "AMD64"):
        flags["xla_cpu_max_isa"] = "AVX2"
    add_xla_flags(flags)


def configure_jax(cpu_devices: int = 0) -> None:
    """Sets JAX up: one CPU device per core (or `cpu_devices`), float64 except on TPUs.

    Call it after `prepare_cpu_devices`, and after `multihost.start` where there are several
    processes.
    """
    jax.config.update("jax_num_cpu_devices", cpu_devices or hardware.usable_cores())
    jax.config.update("jax_enable_x64", takes_float64())
    keep_programs()


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder: a resumed run starts in seconds.

    Not so what XLA tries out on a GPU: it ends a process that cannot write it, and two processes
    that write it at once.
    """
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    with contextlib.suppress(UserError):  # Nothing can be written: each start compiles.
        jax.config.update("jax_compilation_cache_dir", str(hardware.writable_cache_folder()))


def takes_float64() -> bool:
    """Whether the devices compute in float64; TPUs do not."""
    return jax.default_backend() != "tpu"


def with_float64(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` with float64 in JAX where the devices have it, whatever its caller's setting is.

    `main.py` turns float64 on for its process; a notebook has it off.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with jax.enable_x64(takes_float64()):
            return function(*args, **kwargs)

    return run


def add_xla_flags(flags: Mapping[str, int | str]) -> None:
    """Appends to XLA_FLAGS; existing flags win. Call it before JAX creates a device."""
    given = os.environ.get("XLA_FLAGS", "")
    added = [f"--{name}={value}" for name, value in flags.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *added]).strip()


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """`tree`, which every process passes alike, with every array on every device of the mesh."""
    return jax.tree.map(lambda array: _put(mesh, P(), np.asarray(array)), tree)


def put_targets(
    mesh: Mesh, images: np.ndarray, labels: np.ndarray, multiple: int = 1
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Targets, their labels and weights, sharded over 'data'.

    Every process passes all of them; each device gets its own share.

    Args:
        images: (T, H, W, C).
        labels: (T, ...).
        multiple: T is padded to a multiple of it.

    Returns:
        images, labels and weights (float32: 1 for a target, 0 for padding), each with its first
        axis padded to a multiple of `multiple` and of the 'data' axis.
    """
    padded = math.lcm(multiple, mesh.shape["data"])
    weights = np.ones(len(images), np.float32)

    def put(array: np.ndarray) -> jax.Array:
        return _put(mesh, P("data"), batching.pad_rows(np.asarray(array), padded))

    return put(images), put(labels), put(weights)


def own_share(rows: jax.Array) -> jax.Array:
    """This device's equal share of rows (n, ...) that every device of 'data' has.

    For use inside `shard_map`. The last shares are padded with zeros.
    """
    devices = jax.lax.axis_size("data")
    padded = batching.pad_rows(rows, devices)
    size = len(padded) // devices
    return jax.lax.dynamic_slice_in_dim(padded, jax.lax.axis_index("data") * size, size)


def _put(mesh: Mesh, spec: P, array: np.ndarray) -> jax.Array:
    """`array`, which every process passes, laid out over the mesh: each device gets its part."""
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])
