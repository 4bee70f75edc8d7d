"""The calculated cost of a run's steps: pairs, operations, memory, time at published peaks."""

from dataclasses import dataclass

import jax
import numpy as np

from kip_flax import architectures as arch
from kip_flax.algorithms.interface import KeptRows
from kip_flax.data import Dataset
from kip_flax.kernels import KernelOptions
from kip_flax.kernels.plan import KernelPlan, make_plan
from kip_flax.kernels.xla import tiles
from kip_flax.runtime.hardware import free_memory

# float32 operations on one pixel pair, a multiply-add counted as two: for sums over a window, and
# from B to K and T after the ReLU (correlation, square root, arccos of degree 7, both).
_WINDOW, _RELU = 4, 33
# A gradient computes the planes twice more (once up to the pooled ones), and their transpose costs
# about as much as one pass.
_WITH_GRADIENT = 4
# float32 peaks in the makers' data sheets, operations per second, without tensor cores.
_PEAKS = {
    "NVIDIA T4": 8.1e12,
    "NVIDIA A100": 19.5e12,
    "NVIDIA L4": 30.3e12,
    "NVIDIA H100 (SXM)": 67e12,
}


@dataclass(frozen=True)
class Cost:
    """Kernel entries (`pairs`) that one step computes, and the operations of each."""

    pairs: int
    flops_per_pair: float


@dataclass(frozen=True)
class Memory:
    """Bytes that a run needs: data on the host, and a step on each device."""

    host: int
    device: int


def cost(
    spec: arch.Spec,
    image_shape: tuple[int, int, int],
    support: int,
    targets: int,
    gradient: bool,
    blocks: bool = False,
) -> Cost:
    """The cost of one step on images (H, W, C): support x targets pairs.

    With `gradient`, half of support x support is added, and each pair costs more. `blocks`: the
    step moves the images block by block, and first computes all entries without gradient.
    """
    flops = pair_flops(make_plan(KernelOptions(spec), image_shape), image_shape[2])
    if not gradient:
        return Cost(support * targets, flops)
    flops *= _WITH_GRADIENT + blocks
    return Cost(support * targets + support * (support + 1) // 2, flops)


def pair_flops(plan: KernelPlan, channels: int) -> float:
    """Forward operations of one kernel entry: each pixel pair in the band, through each stage."""
    height, width = plan.levels[0].height, plan.levels[0].width
    if not plan.convolutional:
        return 2 * height * width * channels + _RELU * len(plan.head)
    total = 0
    for i, level in enumerate(plan.levels):
        offsets = level.offsets()
        size = np.array([level.height, level.width])
        pixel_pairs = int(np.prod(size - np.abs(offsets), axis=1).sum())
        each = 2 * channels if i == 0 else 0
        for number, (op, rectified) in enumerate(level.stages()):
            kernels = 1 if i == 0 and number == 0 else 2  # There is no T before the first stage.
            each += kernels * (_WINDOW if op.size > 1 else 1) + (_RELU if rectified else 0)
        total += pixel_pairs * (each + 2)  # Pooling of K and T at the end of the level.
    return float(total)


def memory(
    spec: arch.Spec,
    dataset: Dataset,
    support: int,
    targets: int,
    devices: int,
    kept: int,
) -> Memory:
    """The host holds the data set twice, as uint8 and preprocessed; a device holds one step.

    `devices`: those that share the targets (the mesh's 'data').
    `kept`: bytes of the gradients of pairs; 0 if a step keeps only their sum.
    """
    image = int(np.prod(dataset.image_shape))
    share = -(-targets // devices)
    plan = make_plan(KernelOptions(spec), dataset.image_shape)
    tile = tiles.bytes_per_lane(plan) * tiles.lanes_for(plan, share) if plan.convolutional else 0
    state = 4 * 4 * support * image  # Images, gradient, two moments of the optimiser.
    held = state + 4 * share * image + 4 * 8 * share * support + 8 * support**2
    return Memory(host_bytes(dataset), held + tile + kept)


def host_bytes(dataset: Dataset) -> int:
    """Bytes of the data set on the host: as uint8, and preprocessed as float32."""
    images = len(dataset.train_labels) + len(dataset.test_labels)
    return 5 * images * int(np.prod(dataset.image_shape))


def rows_memory(rows: KeptRows, support: int) -> Memory:
    """Bytes of the kernel's rows: float32, copied once, and at the end twice float64 on the host.

    The copy is that of a checkpoint of the state, or of the rows as one array on the host.
    """
    entries = rows.targets * support
    kept, solved = 2 * 4 * entries, 2 * 8 * entries
    return Memory(solved, kept) if rows.in_state else Memory(solved + kept, 0)


def warnings(needed: Memory, devices: int) -> list[str]:
    """A line for the host, and one for a device, if its memory is too small.

    `devices`: those of this host that take part in a step.
    """
    found = []
    host = free_memory()
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        total = needed.host + needed.device * devices
        if total > host:
            found.append(
                f"  WARNING    {total >> 20} MiB are needed and {host >> 20} are free: lower "
                f"batch_size or support.size."
            )
        return found
    limit = (device.memory_stats() or {}).get("bytes_limit", needed.device)
    if needed.device > limit:
        found.append(
            f"  WARNING    a device needs {needed.device >> 20} MiB and has {limit >> 20}: lower "
            f"batch_size or support.size, or take more devices."
        )
    if needed.host > host:
        found.append(
            f"  WARNING    the host needs {needed.host >> 20} MiB and {host >> 20} are free: take "
            f"smaller images (dataset.image_size), or a machine with more memory."
        )
    return found


def at_peak(flops: float) -> list[tuple[str, float]]:
    """Names of accelerators, and their seconds for `flops` at the published float32 peak."""
    return [(name, flops / peak) for name, peak in _PEAKS.items()]
