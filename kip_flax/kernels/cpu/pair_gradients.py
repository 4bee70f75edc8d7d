"""The gradient of each pair of two image sets, kept apart, in NumPy arrays.

A gradient reaches an image in two ways, through its pixels and through its deviations. The second
is a sparse matrix that is the same for all pairs of an image, so it is computed once per image.
"""

import numpy as np

from kip_flax.kernels.cpu import pairs, reach, threads
from kip_flax.kernels.cpu.pairs import Programs
from kip_flax.kernels.cpu.reach import Reach
from kip_flax.kernels.cpu.tiles import tiles_jacobian


def pair_gradients(
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
        s2: deviations (n2, maps). g: (2,), cotangents, the same for all pairs.
    """
    s1 = np.sqrt(v1)
    pattern = reach.make_reach(programs.plan, programs.pair.channels)
    through = _through_deviations(programs, pattern, x1, v1)
    x1, s1, x2, s2, g, through = (pairs.as_input(a, x1.dtype) for a in (x1, s1, x2, s2, g, through))
    n1, n2 = len(x1), len(x2)
    out = np.zeros((2, n1, n2), x1.dtype)
    gradients = np.zeros((n1, n2, x1.shape[1]), x1.dtype)

    def task(rows: tuple[int, int], groups: tuple[int, int]) -> None:
        tiles_jacobian(
            programs.pair, x1, s1, x2, s2, g, rows, groups, programs.tangent, out,
            pattern.starts, pattern.numbers, through, gradients,
        )  # fmt: skip

    threads.run(task, pairs.blocks_of(n1, n2))
    i, j = np.nonzero(pairs.near(x1, x2))
    out = out.astype(np.float64)
    for part, sides in pairs.near_parts(programs, i, j, x1, x2):
        out[:, i[part], j[part]] = pairs.near_values(programs, sides)
        weights = np.repeat(np.asarray(g, np.float64)[:, None], len(sides.x1), axis=1)
        gradients[i[part], j[part]] = pairs.near_gradient(programs, sides, weights)
    return out, gradients


def _through_deviations(
    programs: Programs, pattern: Reach, x: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """The derivatives (n, entries) of the images' deviations, with the factors of the program."""
    cotangents, none = reach.seeds(pattern), np.zeros(pattern.passes)
    scale = np.where(v > 0, 0.5 / np.sqrt(np.where(v > 0, v, 1)), 0)
    scale = scale * programs.pair.deviation_factors
    found = np.zeros((len(x), len(pattern.maps)), x.dtype)
    for row in range(len(x)):
        image, variances = (np.repeat(a[row][None], pattern.passes, axis=0) for a in (x, v))
        each = pairs.variances_gradient(programs, image, variances, cotangents, none)
        found[row] = reach.entries(pattern, each) * scale[row, pattern.maps]
    return found
