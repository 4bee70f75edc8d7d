"""Squared distances between images, in compiled code.

NumPy's matrix product would do, but the threads of its BLAS keep spinning for a while afterwards
and take cores from the kernel's own, which costs a quarter of the time of a small batch.
"""

from typing import Any

from kip_flax.kernels.cpu.compiled import entry_in_any_order


@entry_in_any_order
def squared_distances(x1: Any, x2: Any, rows: tuple[int, int], out: Any) -> None:
    """Writes |a - b|^2 for some `rows` a of x1 (n1, size) and all rows b of x2 (n2, size)."""
    for i in range(rows[0], rows[1]):
        for j in range(len(x2)):
            total = x1[i, 0] * 0
            for p in range(x1.shape[1]):
                total += (x1[i, p] - x2[j, p]) ** 2
            out[i, j] = total
