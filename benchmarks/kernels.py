"""The exact kernel against neural_tangents: milliseconds per pair, side by side in one process.

    python -m benchmarks.kernels [--size=32] [--channels=3] [--targets=256] [--json=FILE]

All compute the same numbers (the largest relative difference is printed); 'gradients apart' is what
a Gauss-Newton step needs, the values and the gradient of each pair, against one gradient of the
sum by neural_tangents. 'cpu' uses all cores by itself; 'xla' runs on a mesh of one CPU device a
core, as training does; neural_tangents uses all cores by itself, on the best of some batches that
fit into memory. Times are medians; all take turns, after half a second of rest.
"""

import argparse
import functools
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import output
from benchmarks.turns import medians
from kip_flax import architectures, kernels
from kip_flax.kernels import jacobian
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runtime import hardware, sharding
from kip_flax.runtime.errors import in_one_line

Pairs = tuple[jax.Array, jax.Array]
_PEER = "neural_tangents"
_REST = 0.5  # Seconds in which the previous contender frees its memory and stops its threads.


def main() -> None:
    """Measures, prints a table, writes JSON where asked."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", hardware.usable_cores())
    jax.config.update("jax_enable_x64", True)
    spec = architectures.build(args.architecture, args.depth)
    shape = (args.size, args.size, args.channels)
    mesh = sharding.make_mesh()
    ours = {name: kernels.make_kernel(spec, implementation=name) for name in args.implementations}
    if "xla" in ours:
        ours["xla"] = shard_kernel(ours["xla"], mesh)
    theirs = kernels.make_kernel(spec, implementation="neural_tangents")

    batches = {f"{_PEER} {side} x {side}": _images(side, side, shape) for side in args.peer}
    large = _images(args.support, args.targets, shape)
    rows: dict[str, dict[str, float]] = {}
    for name, wrap in (("forward", _forward), ("value and gradient", _gradient)):
        contenders = {peer: (wrap(theirs), small) for peer, small in batches.items()}
        contenders |= {mine: (wrap(kernel), large) for mine, kernel in ours.items()}
        rows[name] = _race(contenders, args.repeats)
    if "cpu" in ours:
        each = jacobian.make_jacobian(kernels.KernelOptions(spec, implementation="cpu"))
        contenders = {peer: (_gradient(theirs), small) for peer, small in batches.items()}
        contenders["cpu"] = (_forward(each), large)
        rows["gradients apart"] = _race(contenders, args.repeats)
    smallest = _images(min(args.peer), min(args.peer), shape)
    differences = {mine: _difference(kernel, theirs, smallest) for mine, kernel in ours.items()}

    machine = f"{hardware.hardware()}, {platform.system()}, jax {jax.__version__}"
    network = f"{args.architecture} {args.depth}, {args.size}x{args.size}x{args.channels}, NTK"
    print(f"{network}; {machine}")
    print(f"ours: {args.support} x {args.targets} pairs; ratios to the best of {_PEER}")
    for name, times in rows.items():
        print(name)
        best = min(times[peer] for peer in batches)
        for contender, milliseconds in times.items():
            ratio = f"{best / milliseconds:8.0f}x" if contender in ours else ""
            print(f"    {contender:24s}{milliseconds:10.4f} ms/pair{ratio}")
    for mine, difference in differences.items():
        print(f"largest relative difference of the values, float32 {mine}: {difference:.1e}")
    measured = [{"measure": name, "ms_per_pair": times} for name, times in rows.items()]
    output.write(args.json, measured, network=network, relative_difference=differences)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="convnet")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--support", type=int, default=10)
    parser.add_argument("--targets", type=int, default=256)
    parser.add_argument(
        "--peer", type=int, nargs="+", default=[2, 4, 8], help="images a side for neural_tangents"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--implementations", nargs="+", default=["cpu", "xla"])
    parser.add_argument("--json", default="")
    return parser.parse_args()


def _images(n1: int, n2: int, shape: tuple[int, int, int]) -> Pairs:
    """Support and targets of standard normal pixels."""
    rng = np.random.default_rng(0)
    one, two = (rng.standard_normal((n, *shape), np.float32) for n in (n1, n2))
    return jnp.asarray(one), jnp.asarray(two)


def _forward(
    kernel: Callable[[jax.Array, jax.Array], Any],
) -> Callable[[jax.Array, jax.Array], Any]:
    return jax.jit(lambda x_s, x_t: kernel(x_t, x_s))


def _gradient(kernel: kernels.Kernel) -> Callable[[jax.Array, jax.Array], Any]:
    """The value, and the gradient in the support, as a KIP step needs them."""
    return jax.jit(jax.value_and_grad(lambda x_s, x_t: kernel(x_t, x_s).sum()))


def _race(contenders: dict[str, tuple[Callable, Pairs]], repeats: int) -> dict[str, float]:
    """Median milliseconds per pair of each contender; they take turns."""
    found = medians(
        {name: functools.partial(fn, *pairs) for name, (fn, pairs) in contenders.items()},
        repeats,
        _REST,
        lambda name, seconds: print(f"# {name}: first call {seconds:.1f} s", file=sys.stderr),
    )
    counts = {name: len(pairs[0]) * len(pairs[1]) for name, (_, pairs) in contenders.items()}
    return {name: 1e3 * seconds / counts[name] for name, seconds in found.items()}


def _difference(ours: kernels.Kernel, theirs: kernels.Kernel, pairs: Pairs) -> float:
    one, two = (np.asarray(jax.jit(kernel)(*pairs), np.float64) for kernel in (ours, theirs))
    return float(np.max(np.abs(one - two) / np.abs(two)))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with in_one_line():
        main()
