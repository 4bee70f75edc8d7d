"""Weak and strong scaling of the KIP step from one device to two, and an estimate for more.

Each device has one core: in one process ('devices'), or one process each ('processes', over gloo).
The estimate for many devices is arithmetic, not a measurement: rows of a device, in tiles of 16, at
the measured time a pair, and the collectives of `benchmarks.collectives` at the speed of a link;
for devices as fast as the measured core, and a thousand times as fast.

Run: python -m benchmarks.scaling --targets=960 --picture=docs/scaling.png
"""

import argparse
import functools
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
from matplotlib.figure import Figure

from kip_flax import architectures, kernels
from kip_flax.algorithms import base, kip
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.figures.draw import rendered
from kip_flax.runtime import files, multihost, sharding

# Links between devices: bytes per second as the makers state them, and an assumed latency per hop.
LINKS = {
    "Ethernet, 10 Gbit/s": (1.25e9, 30e-6),
    "InfiniBand HDR, 200 Gbit/s": (25e9, 5e-6),
    "TPU v5e, 1,600 Gbit/s a chip": (200e9, 1e-6),
}


COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FASTER = {"this core": 1, "1,000 times as fast": 1000}
SpeedUps = dict[tuple[str, str], list[float]]  # By device and link, one for each of COUNTS.
TILE = 16  # Targets that the compiled kernel takes at once.


def main() -> None:
    """Measures in separate processes, prints two tables and draws a picture."""
    options = _arguments()
    if options.worker is not None:
        return _work(options)
    one = options.one or _measure(options)
    speed_ups = _estimate(options, one / _pairs(options, options.targets, 1))
    _print(options, one, speed_ups)
    if options.picture:
        _draw(speed_ups, options.run_targets, options.picture)
    return None


def _measure(options: argparse.Namespace) -> float:
    """Prints the measured table; returns the seconds of a step on one device."""
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
    return alone["devices"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=200)
    parser.add_argument("--images", type=int, default=10, help="support images")
    parser.add_argument("--size", type=int, default=32, help="height and width of images")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--bytes", type=int, help="of a step, by benchmarks.collectives")
    parser.add_argument("--one", type=float, help="seconds of a step on one device: do not measure")
    parser.add_argument("--picture", help="file for a picture of the estimate")
    parser.add_argument("--run-targets", type=int, default=50_000, help="targets of the estimate")
    for name in ("worker", "count", "process", "port"):
        parser.add_argument(f"--{name}", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bytes is None and options.worker is None:
        if (options.images, options.size) != (10, 32):
            parser.error("--images and --size need --bytes: benchmarks.collectives prints them.")
        options.bytes = 271_632
    return options


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
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process failed: its message is above.")
    return min(json.loads(outputs[0].splitlines()[-1]))


def _work(options: argparse.Namespace) -> None:
    """Runs one of the processes, which prints the seconds of its steps as JSON."""
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
    kernels.warm_up(kernels.KernelOptions(spec), lambda text: None)
    kernel = shard_kernel(kernels.make_kernel(spec), mesh)
    loss = functools.partial(kip.kip_loss, kernel=kernel, reg=1e-6)
    step = base.pinned(kip.make_update(loss, tx), mesh)
    first = jax.tree.map(
        np.array, kip.first_state(jax.numpy.array(x_s), jax.numpy.array(y_s), tx, True)
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


def _estimate(options: argparse.Namespace, a_pair: float) -> SpeedUps:
    """Speed-up over one device on each of `COUNTS`, by arithmetic."""
    found = {}
    for device, faster in FASTER.items():
        for link, (speed, latency) in LINKS.items():
            seconds = [
                _pairs(options, options.run_targets, n) * a_pair / faster
                + _exchange(options.bytes, n, speed, latency)
                for n in COUNTS
            ]
            found[device, link] = [seconds[0] / each for each in seconds]
    return found


def _pairs(options: argparse.Namespace, targets: int, devices: int) -> int:
    """Kernel entries of one device: its rows of K_ts and K_ss, in whole tiles."""
    shares = (math.ceil(rows / devices) for rows in (targets, options.images))
    return sum(TILE * math.ceil(share / TILE) for share in shares) * options.images


def _exchange(size: int, devices: int, speed: float, latency: float) -> float:
    """Seconds of five exchanges: twice the bytes, and 2 log2(devices) hops for each."""
    return 2 * size / speed + 5 * 2 * math.log2(devices) * latency if devices > 1 else 0.0


def _print(options: argparse.Namespace, one: float, ups: SpeedUps) -> None:
    shown = [COUNTS.index(n) for n in (2, 8, 32, 128, 512)]
    print("\nEstimated, not measured: speed-up over one device.")
    print(f"{one:.3g} s a step of {options.targets} targets on one device; then")
    print(f"{options.run_targets:,} targets, {options.bytes:,} bytes a step in 5 exchanges.\n")
    print(f"| device | link | {' | '.join(str(COUNTS[i]) for i in shown)} |")
    print(f"|---|---|{'---|' * len(shown)}")
    for (device, link), up in ups.items():
        print(f"| {device} | {link} | {' | '.join(f'{up[i]:.3g}' for i in shown)} |")


def _draw(ups: SpeedUps, targets: int, file: str) -> None:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(COUNTS, COUNTS, color="0.8", label="one for one")
    for (device, link), up in ups.items():
        style = "-" if FASTER[device] == 1 else "--"
        axes.plot(COUNTS, up, style, marker=".", label=f"{device}; {link}")
    axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="speed-up over one device")
    axes.set_title(f"Estimated: a KIP step of {targets:,} targets", fontsize="medium")
    axes.set_xticks(COUNTS, [str(n) for n in COUNTS])
    axes.set_yticks(COUNTS, [str(n) for n in COUNTS])
    axes.minorticks_off()
    axes.legend(fontsize="x-small", frameon=False)
    files.write_bytes_atomic(file, rendered(figure, "png"))


if __name__ == "__main__":
    main()
