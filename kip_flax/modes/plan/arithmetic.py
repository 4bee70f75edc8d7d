"""The cost of a run's steps by arithmetic: pairs, operations, memory, published peaks."""

import contextlib
import os
from dataclasses import dataclass

import jax
import numpy as np

from kip_flax import architectures as arch
from kip_flax.algorithms.base import KeptGradients
from kip_flax.data import Dataset
from kip_flax.kernels import KernelOptions
from kip_flax.kernels.plan import KernelPlan, make_plan
from kip_flax.kernels.xla import tiles

# Operations of float32 numbers, a multiply-add counted as two, on one pixel pair: sums over a
# window; from B to K and T after the ReLU (correlation, square root, arccos of degree 7, both).
_WINDOW, _RELU = 4, 33
# A gradient computes the planes twice more, once to the pooled ones, and has about as much to do
# for their transpose.
_WITH_GRADIENT = 4
# float32 peaks of the makers' data sheets, operations a second, without tensor cores.
_PEAKS = {
    "NVIDIA T4": 8.1e12,
    "NVIDIA A100": 19.5e12,
    "NVIDIA L4": 30.3e12,
    "NVIDIA H100 (SXM)": 67e12,
}


@dataclass(frozen=True)
class Cost:
    """Of one step: kernel entries that are computed, and the operations of each."""

    pairs: int
    flops_per_pair: float


@dataclass(frozen=True)
class Memory:
    """Bytes: data on the host, and what each device holds."""

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
    """Of one step: `support` x `targets` pairs and, with `gradient`, half of support x support.

    `blocks`: the images move block by block, which takes all entries without gradient first.
    """
    flops = pair_flops(make_plan(KernelOptions(spec), image_shape), image_shape[2])
    if not gradient:
        return Cost(support * targets, flops)
    flops *= _WITH_GRADIENT + blocks
    return Cost(support * targets + support * (support + 1) // 2, flops)


def pair_flops(plan: KernelPlan, channels: int) -> float:
    """Forward, of one pair: every pixel pair in the band through every stage."""
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
            kernels = 1 if i == 0 and number == 0 else 2  # T is not there before the first.
            each += kernels * (_WINDOW if op.size > 1 else 1) + (_RELU if rectified else 0)
        total += pixel_pairs * (each + 2)  # The end of the level, K and T.
    return float(total)


def memory(
    spec: arch.Spec,
    dataset: Dataset,
    support: int,
    targets: int,
    devices: int,
    kept: KeptGradients,
) -> Memory:
    """The data set twice, as bytes and preprocessed; what a device holds in a step.

    `kept`: of a Gauss-Newton step, which keeps the gradients of all pairs, and of its directions
    two bases, each with its rotation; zeros where only the sum of gradients is kept.
    """
    image = int(np.prod(dataset.image_shape))
    train, test = len(dataset.train_labels), len(dataset.test_labels)
    share = -(-targets // devices)
    plan = make_plan(KernelOptions(spec), dataset.image_shape)
    tile = tiles.bytes_per_lane(plan) * tiles.lanes_for(plan, share) if plan.convolutional else 0
    state = 4 * 4 * support * image  # Images, gradient, and the optimiser's two.
    held = state + 4 * share * image + 4 * 8 * share * support + 8 * support**2
    apart = 4 * (share + 4 * kept.directions) * kept.images * image
    return Memory(5 * (train + test) * image, held + tile + apart)


def warnings(needed: Memory) -> list[str]:
    """A line for each memory, of the host or of a device, that is too small."""
    found = []
    host = free_memory()
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        total = needed.host + needed.device * jax.local_device_count()
        if total > host:
            found.append(
                f"  WARNING    {total >> 20} MiB are needed and {host >> 20} are free: lower "
                f"batch_size or support.size."
            )
        return found
    limit = (device.memory_stats() or {}).get("bytes_limit", needed.device)
    if needed.device > limit:
        found.append(
            f"  WARNING    a device has {limit >> 20} MiB: lower batch_size, or take more devices."
        )
    if needed.host > host:
        found.append(f"  WARNING    the host has {host >> 20} MiB free for the data.")
    return found


def free_memory() -> int:
    """Bytes that the host can still give."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def at_peak(flops: float) -> list[tuple[str, float]]:
    """Accelerators by name, and the seconds that `flops` take at their published float32 peak."""
    return [(name, flops / peak) for name, peak in _PEAKS.items()]
