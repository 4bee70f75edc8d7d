"""Finite equals infinite: kernels of wide random networks against ours, as a table.

  python -m benchmarks.monte_carlo [--width=512] [--samples=100] [--parameterization=ntk]

The mean over random networks of our nnx modules of their covariance (NNGP) and of their tangent
kernel (NTK) is our infinite-width kernel, up to the statistical error of the mean and to terms of
order 1 / width.
"""

import argparse
import functools
from collections.abc import Callable

import jax
import numpy as np

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.networks import build, ntk

W_STD, B_STD = 2**0.5, 0.1
OUTPUTS = 64
IMAGES = 3  # All pairs of them are compared.
CASES: dict[str, tuple[arch.Spec, tuple[int, int, int]]] = {
    "fc, depth 1": (arch.fc(1), (8, 8, 3)),
    "fc, depth 3": (arch.fc(3), (8, 8, 3)),
    "conv, depth 3": (arch.conv(3), (8, 8, 3)),
    "convnet, depth 3, 9x10": (arch.convnet(3), (9, 10, 3)),  # At 8x8 it is Myrtle-5.
    "convnet, depth 2, 7x9": (arch.convnet(2), (7, 9, 1)),
    "convnet_plain, depth 3": (arch.convnet_plain(3), (8, 8, 3)),
    "myrtle, depth 5": (arch.myrtle(5), (8, 8, 3)),
    "myrtle, depth 7": (arch.myrtle(7), (8, 8, 3)),
    "myrtle, depth 10": (arch.myrtle(10), (8, 8, 3)),
}


def agreement(
    spec: arch.Spec,
    shape: tuple[int, int, int],
    width: int,
    parameterization: str,
    samples: int,
    implementation: str = "xla",
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For 'nngp' and 'ntk': (mean - ours) / ours and its standard error, both (IMAGES, IMAGES).

    All pairs come from the same networks, so most of their deviations have the same sign.
    """
    x = _images(IMAGES, shape)
    sample = jax.jit(_sampler(spec, shape, width, parameterization))
    drawn = [sample(key, x) for key in jax.random.split(jax.random.key(7), samples)]
    found = {}
    for get, values in zip(("nngp", "ntk"), zip(*drawn, strict=True), strict=True):
        stacked = np.stack(values).astype(np.float64)
        kernel = kernels.make_kernel(
            spec,
            w_std=W_STD,
            b_std=B_STD,
            parameterization=parameterization,
            width=width,
            get=get,
            implementation=implementation,
        )
        ours = np.asarray(jax.jit(kernel)(x, x), np.float64)
        error = stacked.std(axis=0, ddof=1) / samples**0.5
        found[get] = (stacked.mean(axis=0) / ours - 1, error / ours)
    return found


def _images(count: int, shape: tuple[int, int, int]) -> jax.Array:
    """Images (count, *shape) of unit variance; any two have a correlation of 0.36."""
    common, own = (
        jax.random.normal(jax.random.key(i), (n, *shape), np.float32)
        for i, n in enumerate((1, count))
    )
    return 0.6 * common + 0.8 * own


def _sampler(
    spec: arch.Spec, shape: tuple[int, int, int], width: int, parameterization: str
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """A function (key, images (n, ...)) -> NNGP and NTK (n, n) of one random network."""
    make = functools.partial(
        build.make_network,
        spec,
        shape,
        OUTPUTS,
        width=width,
        weights=build.Weights(W_STD, B_STD, parameterization),
    )
    net = build.functions(make)

    def sample(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, other = net.init(key)
        values = net.apply(params, other, x)
        tangent = ntk.ntk(lambda p, x: net.apply(p, other, x)[:, 0], params, x, x)
        return values @ values.T / OUTPUTS, tangent

    return sample


def main() -> None:
    """Prints the largest deviation over all pairs, with its standard error, in % of the kernel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--parameterization", default="ntk", choices=kernels.PARAMETERIZATIONS)
    options = parser.parse_args()
    print(f"width {options.width}, {options.samples} networks, {options.parameterization}")
    for name, (spec, shape) in CASES.items():
        found = agreement(spec, shape, options.width, options.parameterization, options.samples)
        figures = []
        for get, (deviation, error) in found.items():
            worst = np.unravel_index(np.abs(deviation / error).argmax(), deviation.shape)
            figures.append(
                f"{get} {100 * deviation[worst]:+.2f} ± {100 * error[worst]:.2f} % "
                f"({deviation[worst] / error[worst]:+.1f})"
            )
        print(f"{name:24s}{'   '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
