"""Weak and strong scaling of the KIP step from one device to two, and an estimate for more.

Each device has one core: in one process ('devices'), or one process each ('processes', over gloo).
The estimate for many devices is arithmetic, not a measurement: pairs of a device at the measured
time a pair, what no device shares (the solve, the optimiser, the call), and the collectives of
`benchmarks.collectives` at the speed of a link.

Run: python -m benchmarks.scaling --targets=200
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax

from kip_flax import architectures, distill, kernels, multihost, sharding, tasks

# Links between devices, as their makers state them: bytes a second, and an assumed latency a hop.
LINKS = {
    "Ethernet, 10 Gbit/s": (1.25e9, 30e-6),
    "InfiniBand HDR, 200 Gbit/s": (25e9, 5e-6),
    "TPU v5e, 1,600 Gbit/s a chip": (200e9, 1e-6),
}


def main() -> None:
    """Measures in processes of their own, prints two tables."""
    options = _arguments()
    if options.worker is not None:
        return _work(options)
    alone = {}
    print("| | targets | 1 device, s a step | 2 devices, s a step | efficiency |")
    print("|---|---|---|---|---|")
    for kind in ("devices", "processes"):
        times = {
            (count, targets): _measured(options, kind, count, targets)
            for count, targets in (
                (1, options.targets),
                (2, options.targets),
                (2, 2 * options.targets),
            )
        }
        one = times[1, options.targets]
        for name, targets, share in (
            ("strong", options.targets, 2),
            ("weak", 2 * options.targets, 1),
        ):
            two = times[2, targets]
            per = f"{options.targets} / {targets}"
            print(f"| {kind}, {name} | {per} | {one:.3f} | {two:.3f} | {one / two / share:.0%} |")
        alone[kind] = one
    _estimate(options, alone["devices"])
    return None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=200)
    parser.add_argument("--images", type=int, default=10, help="support images")
    parser.add_argument("--size", type=int, default=32, help="height and width of images")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--bytes", type=int, default=271_632, help="see benchmarks.collectives")
    parser.add_argument("--run-targets", type=int, default=50_000, help="targets of the estimate")
    for name in ("worker", "count", "process", "port"):
        parser.add_argument(f"--{name}", default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(options: argparse.Namespace, kind: str, count: int, targets: int) -> float:
    """Shortest step in seconds on `count` devices with one core each."""
    processes = count if kind == "processes" else 1
    cores = sorted(os.sched_getaffinity(0))[:count]
    if len(cores) < count:
        raise SystemExit(
            f"{count} devices with a core each need as many cores: here are {len(cores)}"
        )
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = []
    for number in range(processes):
        mine = cores if processes == 1 else [cores[number]]
        command = [sys.executable, "-m", "benchmarks.scaling", f"--worker={processes}"]
        command += [f"--count={len(mine)}", f"--process={number}", f"--port={port}"]
        command += [f"--targets={targets}", f"--images={options.images}", f"--size={options.size}"]
        command += [f"--steps={options.steps}"]
        started.append(
            subprocess.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, mine)), *command],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    told = [process.communicate()[0] for process in started]
    return min(json.loads(told[0].splitlines()[-1]))


def _work(options: argparse.Namespace) -> None:
    """One process: seconds of each step, as JSON."""
    processes, devices = int(options.worker), int(options.count)
    sharding.prepare_cpu_devices()
    if processes > 1:
        multihost.start(f"localhost:{options.port}", processes, int(options.process))
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    image = (options.size, options.size, 3)
    x_s, x_t = (
        rng.standard_normal((n, *image), np.float32) for n in (options.images, options.targets)
    )
    y_s, y_t = (rng.standard_normal((len(x), 10), np.float32) for x in (x_s, x_t))
    mesh = sharding.make_mesh()
    spec, tx = architectures.convnet(3), optax.adam(0.01)
    kernels.warm_up(spec, "auto", lambda text: None)
    step = tasks.pinned(
        distill.make_step(sharding.shard_kernel(kernels.make_kernel(spec), mesh), tx, 1e-6), mesh
    )
    first = jax.tree.map(
        np.array, distill.init(jax.numpy.array(x_s), jax.numpy.array(y_s), tx, True)
    )
    state = sharding.replicate(mesh, first)
    targets = sharding.put_targets(mesh, x_t, y_t)
    seconds = []
    for _ in range(options.steps + 1):
        begin = time.perf_counter()
        state, _ = step(state, *targets)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps(seconds[1:]))


def _estimate(options: argparse.Namespace, one: float) -> None:
    """Speed-up on up to 512 such devices, by arithmetic."""
    pairs = options.images * (options.targets + options.images)
    a_pair = one / pairs
    print("\nEstimated, not measured: speed-up over one device.")
    print(f"{a_pair * 1e3:.3f} ms a pair and device, {options.run_targets:,} targets a step,")
    print(f"{options.bytes:,} bytes a step in 5 exchanges.\n")
    counts = (2, 8, 32, 128, 512)
    print(f"| link | {' | '.join(map(str, counts))} |\n|---|{'---|' * len(counts)}")
    for name, (speed, latency) in LINKS.items():
        alone = _step_seconds(options, a_pair, 1, speed, latency)
        ups = [alone / _step_seconds(options, a_pair, n, speed, latency) for n in counts]
        print(f"| {name} | {' | '.join(f'{up:.4g}' for up in ups)} |")


def _step_seconds(
    options: argparse.Namespace, a_pair: float, devices: int, speed: float, latency: float
) -> float:
    """Rows of K_ts and K_ss of one device, then rings: twice the bytes, a hop for each device."""
    rows = math.ceil(options.run_targets / devices) + math.ceil(options.images / devices)
    exchange = 0.0
    if devices > 1:
        exchange = 2 * options.bytes / speed + 5 * 2 * math.log2(devices) * latency
    return rows * options.images * a_pair + exchange


if __name__ == "__main__":
    main()
