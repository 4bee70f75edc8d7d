"""The plan of a kernel: the pixel pairs that it needs, level by level, and their operations.

A pixel pair is given by its offset (oh, ow) = (h' - h, w' - w) and its pixel (h, w). Convolutions
and ReLUs keep the offset. For offset d, `size` x `size` pooling reads the offsets
size*d - (size-1) ... size*d + (size-1). A convolution of stride s is one of stride 1 that keeps
every s-th pixel: it reads offset s*d. Flattening reads offset 0 only; global pooling reads all.
Walking the description backwards gives the offsets that each level needs. Nothing is approximated.
"""

from dataclasses import dataclass, replace

import numpy as np

from kip_flax import architectures as arch
from kip_flax.kernels.options import KernelOptions
from kip_flax.runtime.errors import UserError


@dataclass(frozen=True)
class LinearOp:
    """The action of a convolution, or of a dense layer (size 1, in the head), on covariances.

    `B = weight * mean over the window(K) + bias`;
    `T' = alpha * B + beta + weight * mean over the window(T)` with T the tangent kernel. In the
    'ntk' parameterisation alpha, beta = 1, 0; in 'standard' the tangent kernel of the layer's own
    weights is fan_in * mean(K) + 1 (Sohl-Dickstein et al. 2020, arXiv 2001.07301).
    """

    size: int
    weight: float
    bias: float
    alpha: float
    beta: float


Op = LinearOp | arch.Relu


@dataclass(frozen=True)
class KernelLevel:
    """The layers between two pools or strides, which share one resolution and one set of offsets.

    Attributes:
        height, width: pixels.
        ops: the layers, in order.
        pool: window of the average pooling that ends the level, 1 for a stride; 0 for the last
            level.
        step: pixels from one window to the next.
        start: first row and column of the first window.
        band: largest |row offset| and |column offset| needed.
        needed: the row offsets and the column offsets needed, within the band.
    """

    height: int
    width: int
    ops: tuple[Op, ...]
    pool: int
    step: int = 0
    start: tuple[int, int] = (0, 0)
    band: tuple[int, int] = (0, 0)
    needed: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), (0,))

    @property
    def margin(self) -> int:
        """Rows and columns of zeros around an image that the level's convolutions use up."""
        return sum(op.size // 2 for op in self.ops if isinstance(op, LinearOp))

    def offsets(self) -> np.ndarray:
        """All offsets that the level needs, (offsets, 2) int32, rows outermost."""
        axes = [np.array(needed, np.int32) for needed in self.needed]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)

    def places_in_band(self) -> np.ndarray | None:
        """Indices of `offsets` in the whole band, rows outermost; None if they are all of it."""
        if all(len(n) == 2 * b + 1 for n, b in zip(self.needed, self.band, strict=True)):
            return None
        rows, columns = (self.offsets() + np.array(self.band)).T
        return rows * (2 * self.band[1] + 1) + columns

    def stages(self) -> list[tuple[LinearOp, bool]]:
        """Each convolution and whether a ReLU follows; a lone ReLU gets an identity convolution."""
        found: list[tuple[LinearOp, bool]] = []
        for op in self.ops:
            if isinstance(op, LinearOp):
                found.append((op, False))
            elif found and not found[-1][1]:
                found[-1] = (found[-1][0], True)
            else:
                found.append((LinearOp(1, 1.0, 0.0, 0.0, 0.0), True))
        return found


@dataclass(frozen=True)
class KernelPlan:
    """A network's levels of planes, whether a global pool ends them, and the head on vectors."""

    levels: tuple[KernelLevel, ...]
    global_pool: bool
    head: tuple[Op, ...]

    @property
    def convolutional(self) -> bool:
        """False where the network flattens the image before anything else."""
        return any(level.ops or level.pool for level in self.levels) or self.global_pool

    @property
    def rectified_head(self) -> bool:
        """Whether there is a ReLU after the planes."""
        return any(isinstance(op, arch.Relu) for op in self.head)


def make_plan(options: KernelOptions, image_shape: tuple[int, int, int]) -> KernelPlan:
    """The plan of the network of `options` on images of `image_shape` (H, W, C).

    Raises:
        UserError: the images are too small for the pools, pixels are left at the end, or a
            convolution or a pool follows Flatten or GlobalAvgPool.
    """
    spec = options.spec
    ends = [i for i, layer in enumerate(spec) if isinstance(layer, _ENDS)]
    if not ends:
        raise UserError(
            "the architecture has neither Flatten nor GlobalAvgPool: put one before its last Dense."
        )
    end = ends[0]
    if any(isinstance(layer, arch.Conv | arch.AvgPool) for layer in spec[end:]):
        raise UserError(
            "the architecture has a convolution or a pool after Flatten or GlobalAvgPool, where no "
            "pixels are left: put it before."
        )
    sizes = arch.spatial_sizes(spec, *image_shape[:2])
    global_pool = isinstance(spec[end], arch.GlobalAvgPool)

    ops: list[Op] = []
    channels, vector = image_shape[2], False
    for layer, (rows, columns) in zip(spec, sizes, strict=True):
        if isinstance(layer, arch.Conv):
            fan_in = channels * layer.size**2
            ops.append(_linear_op(layer.size, fan_in, options))
            channels = options.width
        elif isinstance(layer, arch.Dense):
            ops.append(_linear_op(1, channels, options))
            channels = options.width
        elif isinstance(layer, arch.Relu):
            ops.append(layer)
        elif isinstance(layer, arch.Flatten) and not vector:
            channels *= rows * columns
        vector = vector or isinstance(layer, _ENDS)

    head_size = sum(not isinstance(layer, _ENDS) for layer in spec[end:])
    plane_ops, head = ops[: len(ops) - head_size], ops[len(ops) - head_size :]
    levels = _levels(spec[:end], sizes[: end + 1], plane_ops, global_pool)
    return KernelPlan(levels, global_pool, tuple(head))


def variance_plan(plan: KernelPlan) -> KernelPlan:
    """The plan of an image with itself, up to the last ReLU that needs its variances.

    If the head has a ReLU, this is `plan`. Otherwise nothing after the planes' last ReLU is needed,
    and offset 0 is enough in the level of that ReLU.
    """
    if plan.rectified_head:
        return plan
    rectified = [any(isinstance(op, arch.Relu) for op in level.ops) for level in plan.levels]
    last = max((i for i, some in enumerate(rectified) if some), default=0)
    end = replace(plan.levels[last], pool=0, step=0, start=(0, 0))
    return KernelPlan(_with_bands((*plan.levels[:last], end), False), False, ())


_ENDS = (arch.Flatten, arch.GlobalAvgPool)


def _linear_op(size: int, fan_in: int, options: KernelOptions) -> LinearOp:
    weight, bias = options.w_std**2, options.b_std**2
    if options.parameterization == "ntk":
        return LinearOp(size, weight, bias, 1.0, 0.0)
    return LinearOp(size, weight, bias, fan_in / weight, 1.0 - fan_in / weight * bias)


def _levels(
    layers: arch.Spec, sizes: list[tuple[int, int]], ops: list[Op], global_pool: bool
) -> tuple[KernelLevel, ...]:
    levels: list[KernelLevel] = []
    remaining = iter(ops)
    current: list[Op] = []
    size = sizes[0]
    for layer, after in zip(layers, sizes[1:], strict=True):
        if isinstance(layer, arch.AvgPool):
            levels.append(KernelLevel(*size, tuple(current), layer.size, layer.size))
            current, size = [], after
            continue
        current.append(next(remaining))
        if isinstance(layer, arch.Conv) and layer.stride > 1:
            start = (_first(layer, size[0], after[0]), _first(layer, size[1], after[1]))
            levels.append(KernelLevel(*size, tuple(current), 1, layer.stride, start))
            current, size = [], after
    levels.append(KernelLevel(*size, tuple(current), 0))
    return _with_bands(tuple(levels), global_pool)


def _first(layer: arch.Conv, size: int, after: int) -> int:
    """The centre pixel of a strided convolution's first window, with 'SAME' padding."""
    padding = max(0, (after - 1) * layer.stride + layer.size - size)
    return layer.size // 2 - padding // 2


def _with_bands(levels: tuple[KernelLevel, ...], global_pool: bool) -> tuple[KernelLevel, ...]:
    last = levels[-1]
    needed = tuple(
        tuple(range(1 - size, size)) if global_pool else (0,) for size in (last.height, last.width)
    )
    found = []
    for level in reversed(levels):
        if level.pool:
            needed = tuple(
                _read(level, size, coarse)
                for size, coarse in zip((level.height, level.width), needed, strict=True)
            )
        band = (max(needed[0]), max(needed[1]))
        found.append(replace(level, band=band, needed=(needed[0], needed[1])))
    return tuple(reversed(found))


def _read(level: KernelLevel, size: int, coarse: tuple[int, ...]) -> tuple[int, ...]:
    """The offsets that the pool or stride at a level's end reads, on an axis of `size` pixels."""
    window = range(level.pool)
    read = {level.step * d + b - a for d in coarse for a in window for b in window}
    return tuple(sorted(offset for offset in read if abs(offset) < size))
