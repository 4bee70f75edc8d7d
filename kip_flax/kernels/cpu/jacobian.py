"""Each pair's own gradient, of all pairs of two image sets in NumPy arrays.

A gradient goes to an image along two ways, through its pixels and through its deviations. The
second one is the same linear map for all its pairs: it is made once an image.
"""

import itertools

import numpy as np

from kip_flax.kernels.cpu import pairs, threads
from kip_flax.kernels.cpu.pairs import Programs
from kip_flax.kernels.cpu.tiles import tiles_jacobian


def jacobian(
    programs: Programs,
    x1: np.ndarray,
    v1: np.ndarray,
    x2: np.ndarray,
    s2: np.ndarray,
    g: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """K and T (2, n1, n2), float64, and the gradients (n1, n2, size) of g[0] K + g[1] T in x1.

    Args:
        x1, x2: images (n, pixels * channels). v1: variances (n1, maps), float64.
        s2: deviations (n2, maps). g: (2,), the same for all pairs.
    """
    s1 = np.sqrt(v1)
    x1, s1, x2, s2, g = (pairs.as_input(a, x1.dtype) for a in (x1, s1, x2, s2, g))
    n1, n2 = len(x1), len(x2)
    out = np.zeros((2, n1, n2), x1.dtype)
    gradients = np.zeros((n1, n2, x1.shape[1]), x1.dtype)

    def task(
        rows: tuple[int, int], groups: tuple[int, int], in_x1: np.ndarray, in_s1: np.ndarray
    ) -> None:
        tiles_jacobian(
            programs.pair, x1, s1, x2, s2, g, rows, groups, programs.tangent, out, in_x1, in_s1
        )

    for (first, last), of_rows in itertools.groupby(
        pairs.blocks_of(n1, n2), lambda block: block[0]
    ):
        in_x1 = gradients[first:last]
        in_s1 = np.zeros((last - first, n2, s1.shape[1]), x1.dtype)
        threads.run(task, [(*block, in_x1, in_s1) for block in of_rows])
        for row in range(first, last):
            through = _deviations_gradients(programs, x1[row], v1[row])
            gradients[row] += in_s1[row - first] @ through.astype(x1.dtype)
    i, j = np.nonzero(pairs.near(x1, x2))
    out = out.astype(np.float64)
    if len(i):
        out[:, i, j] = pairs.near_values(programs, i, j, x1, x2)
        weights = np.repeat(np.asarray(g, np.float64)[:, None], len(i), axis=1)
        gradients[i, j] = pairs.near_gradient(programs, i, j, x1, x2, weights)
    return out, gradients


def _deviations_gradients(programs: Programs, x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The derivative (maps, size) of one image's deviations, float64."""
    maps = len(v)
    each = pairs.variances_gradient(
        programs, np.repeat(x[None], maps, axis=0), np.repeat(v[None], maps, axis=0),
        np.eye(maps), np.zeros(maps),
    )  # fmt: skip
    return each * np.where(v > 0, 0.5 / np.sqrt(np.where(v > 0, v, 1)), 0)[:, None]
