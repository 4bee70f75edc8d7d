"""Gradient steps of a ConvNet-3 on a CPU: our convolution beside XLA's own, in turns.

    python -m benchmarks.convolution [--sizes 32 28] [--images=4] [--width=128] [--json=FILE]

Peer: `jax.lax.conv_general_dilated` with the gradients that JAX derives, at its default (in a
compiled loop over the steps) and at its best (a call for each step). Ours runs in the loop. Pixels
are standard normal; compiling is left out. Printed are medians, and the peer's over ours.
"""

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import output
from benchmarks.turns import medians
from kip_flax.networks import layers
from kip_flax.networks.convolution import convolve
from kip_flax.runtime import hardware, sharding

Convolution = Callable[[jax.Array, jax.Array], jax.Array]
_CHANNELS = {28: 1}  # MNIST's; other sizes have three.


def main() -> None:
    """Measures, prints a table, writes JSON where asked."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    print(f"{args.images} images, width {args.width}; {hardware.hardware()}")
    print(f"{'size':>6}{'ours, ms an image':>20}{'XLA, loop':>22}{'XLA, calls':>22}")
    rows = []
    for size in args.sizes:
        rows.append({"size": size} | measure(size, args.images, args.width, args.steps))
        ours, loop, calls = (rows[-1][name] for name in ("ours", "xla_loop", "xla_calls"))
        peers = "".join(f"{f'{ms:.2f} ({ms / ours:.2f} x)':>22}" for ms in (loop, calls))
        print(f"{size:6d}{ours:20.2f}{peers}", flush=True)
    output.write(args.json, rows, options=vars(args))


def measure(size: int, images: int, width: int, steps: int, turns: int = 5) -> dict[str, float]:
    """Median milliseconds an image and step over `turns`, by 'ours', 'xla_loop', 'xla_calls'."""
    channels = _CHANNELS.get(size, 3)
    keys = iter(jax.random.split(jax.random.key(0), 4))
    x = jax.random.normal(next(keys), (images, size, size, channels))
    params = [
        jax.random.normal(next(keys), (3, 3, below, width)) * (9 * below) ** -0.5
        for below in (channels, width, width)
    ]
    ours, peer = (functools.partial(_step, convolution, x) for convolution in (convolve, _xlas))
    one = jax.jit(peer)

    def looped(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return jax.jit(lambda p: jax.lax.fori_loop(0, steps, lambda _, p: step(p), p))

    ways = {
        "ours": looped(ours),
        "xla_loop": looped(peer),
        "xla_calls": lambda p: functools.reduce(lambda p, _: one(p), range(steps), p),
    }
    found = medians({name: functools.partial(way, params) for name, way in ways.items()}, turns)
    return {name: seconds / steps / images * 1000 for name, seconds in found.items()}


def _step(convolution: Convolution, x: jax.Array, params: list[jax.Array]) -> list[jax.Array]:
    """One step of gradient descent on the mean square of the last block's outputs."""

    def loss(params: list[jax.Array]) -> jax.Array:
        outputs = x
        for kernel in params:
            outputs = layers.avg_pool(jax.nn.relu(convolution(outputs, kernel)))
        return jnp.mean(outputs**2)

    return jax.tree.map(lambda p, g: p - 1e-3 * g, params, jax.grad(loss)(params))


def _xlas(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 28])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", default="")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
