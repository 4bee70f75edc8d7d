"""All pairs of two image sets in NumPy arrays, as tasks for threads; near-duplicates in float64.

Results do not depend on the number of threads: sums are cut into tasks by the sizes only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kip_flax.architectures import Relu
from kip_flax.kernels.cpu import threads
from kip_flax.kernels.cpu.distances import squared_distances
from kip_flax.kernels.cpu.program import Program, assemble
from kip_flax.kernels.cpu.tiles import pairs_backward, pairs_forward, tiles_backward, tiles_forward
from kip_flax.kernels.cpu.variances import variances_backward, variances_forward
from kip_flax.kernels.cpu.vectors import LANES
from kip_flax.kernels.plan import KernelPlan, variance_plan

_ROWS = 8  # Fixed images per task; they share the layout of the moving ones.
_TASKS = 64  # At least this many tasks, if there is enough to do.
_NEAR = 1e-2  # |x1 - x2|^2 relative to |x1|^2 + |x2|^2
_NEAR_PAIRS = 512  # Most pairs that are float64 at a time.


@dataclass(frozen=True)
class Programs:
    """A kernel as compiled code reads it.

    Attributes:
        pair, variance: programs of a pair, and of an image with itself.
        tangent: whether T is needed ('ntk') or only K ('nngp').
        plan: the plan of the kernel.
        ends_rectified: whether a ReLU follows the end of the planes; near-duplicates then need its
            variances in float64.
    """

    pair: Program
    variance: Program
    tangent: bool
    plan: KernelPlan
    ends_rectified: bool


def make_programs(plan: KernelPlan, channels: int, tangent: bool) -> Programs:
    """Programs for images of `channels` channels."""
    rectified = any(isinstance(op, Relu) for op in plan.head)
    pair, variance = assemble(plan, channels), assemble(variance_plan(plan), channels)
    return Programs(pair, variance, tangent, plan, rectified)


def variances(
    programs: Programs, x: np.ndarray, precision: np.typing.DTypeLike = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Variances (n, maps) before each ReLU of the planes, and (n,) at their end.

    Args:
        x: images (n, pixels * channels).
        precision: float32 is a third of the work, and enough for images without a gradient.
            `programs.ends_rectified` overrides it with float64.
    """
    dtype = np.float64 if programs.ends_rectified else precision
    x = as_input(x, dtype)
    found, ends = np.zeros((len(x), programs.variance.maps), dtype), np.zeros(len(x), dtype)

    def task(a: int, b: int) -> None:
        variances_forward(programs.variance, x[a:b], found[a:b], ends[a:b])

    threads.run(task, _groups(len(x)))
    return found, ends


def variances_gradient(
    programs: Programs, x: np.ndarray, found: np.ndarray, g: np.ndarray, g_ends: np.ndarray
) -> np.ndarray:
    """float64 gradient of the images x, given the cotangents of the result of `variances`."""
    x, found, g, g_ends = (as_input(a, np.float64) for a in (x, found, g, g_ends))
    grad = np.zeros_like(x)

    def task(a: int, b: int) -> None:
        variances_backward(programs.variance, x[a:b], found[a:b], g[a:b], g_ends[a:b], grad[a:b])

    threads.run(task, _groups(len(x)))
    return grad


def kernel(
    programs: Programs, x1: np.ndarray, s1: np.ndarray, x2: np.ndarray, s2: np.ndarray, same: bool
) -> np.ndarray:
    """K and T (2, n1, n2), float64, at the end of the planes.

    Args:
        x1, x2: images (n, pixels * channels). s1, s2: deviations (n, maps).
            All are cast to the precision of x1.
        same: whether x1 and x2 are the same images; then the upper triangle is enough.
    """
    x1, s1, x2, s2 = (as_input(a, x1.dtype) for a in (x1, s1, x2, s2))
    out = np.zeros((2, len(x1), len(x2)), x1.dtype)

    def task(rows: tuple[int, int], groups: tuple[int, int]) -> None:
        tiles_forward(programs.pair, x1, s1, x2, s2, rows, groups, same, programs.tangent, out)

    threads.run(task, blocks_of(len(x1), len(x2)))
    out = out.astype(np.float64)
    nearly_equal = near(x1, x2)
    i, j = np.nonzero(np.triu(nearly_equal) if same else nearly_equal)
    for part, sides in near_parts(programs, i, j, x1, x2):
        out[:, i[part], j[part]] = near_values(programs, sides)
    return np.triu(out) + np.triu(out, 1).swapaxes(1, 2) if same else out


def gradient(
    programs: Programs,
    x1: np.ndarray,
    s1: np.ndarray,
    x2: np.ndarray,
    s2: np.ndarray,
    g: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of sum(g * kernel), g (2, n1, n2), in x1 and s1; both in the precision of x1.

    The gradient of near-duplicates is all in x1's: it goes through their own float64 deviations.
    """
    x1, s1, x2, s2 = (as_input(a, x1.dtype) for a in (x1, s1, x2, s2))
    g = np.array(g, np.float64)
    i, j = np.nonzero(near(x1, x2))
    weights = g[:, i, j]
    g[:, i, j] = 0
    blocks = blocks_of(len(x1), len(x2))
    g = as_input(g, x1.dtype)

    def task(rows: tuple[int, int], groups: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        size = rows[1] - rows[0]
        grad_x = np.zeros((size, x1.shape[1]), x1.dtype)
        grad_s = np.zeros((size, s1.shape[1]), x1.dtype)
        tiles_backward(
            programs.pair, x1, s1, x2, s2, g, rows, groups, programs.tangent, grad_x, grad_s
        )
        return grad_x, grad_s

    total_x, total_s = np.zeros(x1.shape), np.zeros(s1.shape)
    for (rows, _), (grad_x, grad_s) in zip(blocks, threads.run(task, blocks), strict=True):
        total_x[slice(*rows)] += grad_x
        total_s[slice(*rows)] += grad_s
    for part, sides in near_parts(programs, i, j, x1, x2):
        np.add.at(total_x, i[part], near_gradient(programs, sides, weights[:, part]))
    return total_x.astype(x1.dtype), total_s.astype(x1.dtype)


def near(x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """Which float32 images are nearly equal, (n1, n2) bool.

    The threshold is wider than that of `kernels.near_duplicates`, because float64 is cheap here.
    """
    if x1.dtype == np.float64:
        return np.zeros((len(x1), len(x2)), bool)
    distances = np.zeros((len(x1), len(x2)), np.float32)

    def task(a: int, b: int) -> None:
        squared_distances(x1, x2, (a, b), distances)

    threads.run(task, _spans(len(x1), _ROWS))
    scale = np.sum(x1 * x1, axis=1)[:, None] + np.sum(x2 * x2, axis=1)[None]
    return distances <= _NEAR * scale


class NearPairs(NamedTuple):
    """float64 images (m, ...) and deviations (m, maps) of both sides of m pairs."""

    x1: np.ndarray
    s1: np.ndarray
    x2: np.ndarray
    s2: np.ndarray


def near_parts(
    programs: Programs, i: np.ndarray, j: np.ndarray, x1: np.ndarray, x2: np.ndarray
) -> Iterator[tuple[slice, NearPairs]]:
    """The pairs (i, j) in parts that fit in memory, each with its place among them.

    A pair takes up to 220 KB with its gradient (ConvNet, 32x32x3). Deviations are computed once
    for each image.
    """
    if not len(i):
        return
    first, second = _float64_side(programs, x1, i), _float64_side(programs, x2, j)
    for start, end in _spans(len(i), _NEAR_PAIRS):
        part = slice(start, end)
        yield part, NearPairs(*first(part), *second(part))


def near_values(programs: Programs, sides: NearPairs) -> np.ndarray:
    """float64 K and T (2, m) of m pairs."""
    one, s1, two, s2 = sides

    def task(a: int, b: int) -> np.ndarray:
        values = np.zeros((2, b - a))
        pairs_forward(programs.pair, one[a:b], s1[a:b], two[a:b], s2[a:b], programs.tangent, values)
        return values

    return np.concatenate(threads.run(task, _spans(len(one), LANES)), axis=1)


def near_gradient(programs: Programs, sides: NearPairs, g: np.ndarray) -> np.ndarray:
    """float64 gradient (m, ...) of m pairs in their first images; g is (2, m)."""
    one, s1, two, s2 = sides
    grad_x, grad_s = np.zeros(one.shape), np.zeros(s1.shape)

    def task(a: int, b: int) -> None:
        pairs_backward(
            programs.pair, one[a:b], s1[a:b], two[a:b], s2[a:b], as_input(g[:, a:b], np.float64),
            programs.tangent, grad_x[a:b], grad_s[a:b],
        )  # fmt: skip

    threads.run(task, _spans(len(one), LANES))
    g_variances = grad_s * np.where(s1 > 0, 0.5 / np.where(s1 > 0, s1, 1), 0)
    return grad_x + variances_gradient(programs, one, s1 * s1, g_variances, np.zeros(len(one)))


def _float64_side(
    programs: Programs, x: np.ndarray, rows: np.ndarray
) -> Callable[[slice], tuple[np.ndarray, np.ndarray]]:
    """A function from a part of `rows`, indices into `x`, to its float64 images and deviations."""
    unique, places = np.unique(rows, return_inverse=True)
    deviations = np.sqrt(variances(programs, x[unique])[0])

    def side(part: slice) -> tuple[np.ndarray, np.ndarray]:
        images, found = x[rows[part]], deviations[places[part]]
        return as_input(images, np.float64), as_input(found, np.float64)

    return side


def as_input(a: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
    """`a` contiguous and read-only, as JAX passes arrays: numba would recompile for others."""
    a = np.ascontiguousarray(a, dtype).view()
    a.flags.writeable = False
    return a


def _spans(size: int, length: int) -> list[tuple[int, int]]:
    return [(a, min(a + length, size)) for a in range(0, size, length)]


def _groups(size: int) -> list[tuple[int, int]]:
    """Spans of one to eight groups of `LANES` images; each span allocates its own work space."""
    return _spans(size, LANES * max(1, min(8, size // (8 * LANES))))


def blocks_of(n1: int, n2: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The rows and the groups of columns of each task."""
    rows = _spans(n1, -(-n1 // -(-n1 // _ROWS)))
    groups = -(-n2 // LANES)
    parts = min(groups, -(-_TASKS // len(rows)))
    return [(r, c) for r in rows for c in _spans(groups, -(-groups // parts))]
