"""Cost of one step of RFAD and of one with the exact kernel, side by side.

    python -m benchmarks.features [--sizes 10 100 500] [--targets=500] [--dataset=cifar10]

Pixels are standard normal, of the data set's shape. RFAD: one update of images, labels and
transform by 8 networks of width 256 (--networks, --width). Exact: one update of images and labels
by the kernel that these estimate (NNGP; --kind=ntk for the tangent kernel). Both see the same
number of targets, and what is printed is what was measured: with more targets the share of the
support with itself is smaller on both sides. They take turns; compiling is left out. On a machine
that does other work as well, core seconds tell more than seconds.
"""

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from benchmarks import output
from benchmarks.stepping import SHAPES, stepper
from kip_flax.runtime import hardware, sharding


def main() -> None:
    """Measures, prints a table, writes JSON where asked."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", hardware.usable_cores())
    jax.config.update("jax_enable_x64", True)
    print(f"{args.dataset}, {args.targets} targets, {args.kind}; {hardware.hardware()}")
    print(f"RFAD: {args.networks} networks of width {args.width}")
    print(f"{'images':>8}{'RFAD':>22}{'exact':>22}{'exact / RFAD':>16}")
    rows = []
    for size in args.sizes:
        steps = {
            name: stepper(_config(name, size, args), SHAPES[args.dataset])
            for name in ("rfad", "kip")
        }
        rows.append({"images": size} | _measure(steps, args.repeats))
        print(_row(rows[-1]), flush=True)
    output.write(args.json, rows, options=vars(args))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="cifar10", choices=sorted(SHAPES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--targets", type=int, default=500)
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--kind", default="nngp", choices=("nngp", "ntk"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", default="")
    return parser.parse_args()


def _config(algorithm: str, size: int, args: argparse.Namespace) -> ConfigDict:
    """RFAD's configuration with `algorithm` in it, 'rfad' or 'kip'."""
    config: ConfigDict = importlib.import_module(f"configs.rfad_{args.dataset}").get_config()
    config.algorithm, config.kernel.kind = algorithm, args.kind
    config.support.size, config.batch_size = size, args.targets
    options = config.rfad
    options.networks, options.width, options.loss = args.networks, args.width, "mse"
    options.transform_rate = 5e-5
    config.optimizer.learning_rate = options.learning_rate
    return config


def _measure(steps: dict[str, Callable[[int], None]], repeats: int) -> dict[str, float]:
    """Median seconds over turns, after one that compiles: {'rfad_s': ..., 'rfad_core_s': ...}."""
    clocks = {"s": time.perf_counter, "core_s": time.process_time}
    found: dict[str, list[float]] = {f"{name}_{unit}": [] for name in steps for unit in clocks}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            begin = {unit: clock() for unit, clock in clocks.items()}
            step(turn + 1)
            for unit, clock in clocks.items():
                if turn:
                    found[f"{name}_{unit}"].append(clock() - begin[unit])
    return {name: statistics.median(times) for name, times in found.items()}


def _row(figures: dict[str, float]) -> str:
    """'10   8.1 s, 16.0 core s   ...   0.20, 0.18': the ratio of seconds, and of core seconds."""
    pairs = [(figures[f"{name}_s"], figures[f"{name}_core_s"]) for name in ("rfad", "kip")]
    words = "".join(f"{f'{wall:.2f} s, {core:.2f} core s':>22}" for wall, core in pairs)
    ratios = [exact / rfad for rfad, exact in zip(*pairs, strict=True)]
    return f"{figures['images']:8d}{words}{f'{ratios[0]:.2f}, {ratios[1]:.2f}':>16}"


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
