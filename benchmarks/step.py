"""A whole KIP step against the kernel alone: time, pairs per second, peak memory.

    python -m benchmarks.step [--support 10 100] [--targets=1000] [--repeats=3] [--json=FILE]

Support and targets are standard normal pixels, labels random. 'kernel' is one value and gradient of
K_ts and K_ss with the cotangents given; what a step takes beyond that is the solve, the optimiser,
and a second look at nearly equal pairs. Peak memory is that of the process beyond what it had when
the data was there; for a clean figure measure one size a process. Where a step takes many minutes,
--repeats=0 measures its first call alone, compilation included, and no kernel beside it.
"""

import argparse
import functools
import os
import resource

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import output
from benchmarks.turns import medians
from kip_flax import architectures, kernels, krr
from kip_flax.algorithms import base, kip
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runtime import hardware, sharding
from kip_flax.runtime.errors import in_one_line


def main() -> None:
    """Measures, prints a table, writes JSON where asked."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", hardware.usable_cores())
    jax.config.update("jax_enable_x64", True)
    network = f"{args.architecture} {args.depth}, {args.size}x{args.size}x{args.channels}"
    taken = kernels.resolve(args.implementation)
    print(f"{network}, T = {args.targets}, {taken}; {hardware.hardware()}")
    rows = [_measure(args, size) for size in args.support]
    for row in rows:
        print(_line(row))
    output.write(args.json, rows)


def _line(row: dict[str, float]) -> str:
    beside = ""
    if "kernel_s" in row:
        ratio = row["step_s"] / row["kernel_s"]
        beside = f"kernel {row['kernel_s']:8.3f} s   ratio {ratio:.2f}   "
    return (
        f"S = {row['support']:4.0f}  step {row['step_s']:8.3f} s   {beside}"
        f"{row['pairs_per_s']:8.0f} pairs/s   {row['memory_mib']:6.0f} MiB"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="convnet")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--support", type=int, nargs="+", default=[10])
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--implementation", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", default="")
    return parser.parse_args()


def _measure(args: argparse.Namespace, size: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    shape = (args.size, args.size, args.channels)
    x_s, x_t = (rng.standard_normal((n, *shape), np.float32) for n in (size, args.targets))
    y_s, y_t = (krr.centered_one_hot(rng.integers(10, size=n), 10) for n in (size, args.targets))
    mesh = sharding.make_mesh()
    spec = architectures.build(args.architecture, args.depth)
    kernel = shard_kernel(kernels.make_kernel(spec, implementation=args.implementation), mesh)
    tx = optax.adam(0.0)
    state = sharding.replicate(mesh, kip.first_state(jnp.asarray(x_s), y_s, tx, True))
    batch = sharding.put_targets(mesh, x_t, np.asarray(y_t))
    update = kip.make_update(functools.partial(kip.kip_loss, kernel=kernel, reg=1e-6), tx)
    step = base.pinned(update, mesh)  # As in a run.
    own = jax.jit(jax.value_and_grad(lambda s, t: kernel(t, s).sum() + kernel(s, s).sum()))
    images = sharding.replicate(mesh, jnp.asarray(x_s))

    before, peaks = _peak(), dict[str, float]()
    contenders = {
        "step": lambda: step(jax.tree.map(jnp.copy, state), *batch),
        "kernel": lambda: own(images, batch[0]),
    }
    if not args.repeats:
        del contenders["kernel"]
    times = medians(
        contenders, args.repeats, on_first=lambda name, _: peaks.update({name: _peak()})
    )
    pairs = size * (args.targets + size)
    return {
        "support": size,
        **{f"{name}_s": seconds for name, seconds in times.items()},
        "pairs_per_s": pairs / times["step"],
        "memory_mib": peaks["step"] - before,  # It is the first, so the kernel's is not in it.
    }


def _peak() -> float:
    """Peak memory of the process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with in_one_line():
        main()
