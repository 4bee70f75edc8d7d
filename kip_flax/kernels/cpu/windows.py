"""The input of the loops over a row: sums over windows, and covariances of the images themselves.

Windows of 3x3 are summed where they are needed: `around` has the rows above, here and below, whose
columns -1 and `count` exist and are zero. The row below may be the images' own covariance, computed
as it is read. Other windows are summed before, by `add_window`, and `around` is one row of sums.
The functions `column` and `windows` hide the difference from the loops.
"""

from typing import Any, NamedTuple

from numba.extending import overload

from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.vectors import Row, fma, load, splat, stay_apart, store


class Grey(NamedTuple):
    """A row of K of one-channel images that is computed as it is read, and stored in `out`.

    It is read from left to right.
    """

    image1: Any
    image2: Any
    out: Any
    width: int


class Colour(NamedTuple):
    """The same for images of three channels."""

    image1: Any
    image2: Any
    out: Any
    width: int


def column(around: Any, i: int) -> Any:
    """Column `i` of a window, summed over its rows."""
    raise NotImplementedError


@overload(column)
def _column(around, i):  # type: ignore[no-untyped-def]
    if len(around) == 3:
        return lambda around, i: load(around[0], i) + load(around[1], i) + read(around[2], i)
    return lambda around, i: load(around[0], i)


def read(row: Any, i: int) -> Any:
    """Vector `i` of a row; in a `Grey` or `Colour` row it is computed first."""
    raise NotImplementedError


@overload(read)
def _read(row, i):  # type: ignore[no-untyped-def]
    if isinstance(row, Row):
        return lambda row, i: load(row, i)
    product = _product3 if row.instance_class is Colour else _product1

    def make(row, i):  # type: ignore[no-untyped-def]
        value = splat(row.out, 0)
        if 0 <= i < row.width:
            value = product(row.image1, row.image2, i)
            store(row.out, i, value)
        return value

    return make


@inlined
def _product1(image1: Any, image2: Any, i: int) -> Any:
    return load(image1, i) * load(image2, i)


@inlined
def _product3(image1: Any, image2: Any, i: int) -> Any:
    j = 3 * i
    two = fma(load(image1, j + 1), load(image2, j + 1), load(image1, j) * load(image2, j))
    return fma(load(image1, j + 2), load(image2, j + 2), two)


def windows(around: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Sums over two neighbouring windows, given their four columns."""
    raise NotImplementedError


@overload(windows)
def _windows(around, a, b, c, d):  # type: ignore[no-untyped-def]
    if len(around) == 3:

        def sums(around, a, b, c, d):  # type: ignore[no-untyped-def]
            middle = b + c
            return a + middle, middle + d

        return sums
    return lambda around, a, b, c, d: (b, c)


@loop
def add_window(source: Any, reach: int, out: Any, count: int) -> None:
    """Adds the sums over windows of 2 reach + 1 columns of the row `source` to `out`."""
    for i in range(count):
        total = load(out, i)
        for j in range(-reach, reach + 1):
            total = total + load(source, i + j)
        store(out, i, total)


@loop
def mean_product(image1: Any, image2: Any, channels: int, out: Any, count: int) -> None:
    """K of the images: the mean over channels, whose weight is already in the fixed image."""
    stay_apart()
    if channels == 1:
        for i in range(count):
            store(out, i, _product1(image1, image2, i))
    elif channels == 3:
        for i in range(count):
            store(out, i, _product3(image1, image2, i))
    else:
        for i in range(count):
            total = splat(out, 0)
            for j in range(i * channels, (i + 1) * channels):
                total = fma(load(image1, j), load(image2, j), total)
            store(out, i, total)
