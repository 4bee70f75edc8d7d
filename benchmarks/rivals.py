"""Seconds of one step of DC, of DSA and of KIP, side by side on the same support.

    python -m benchmarks.rivals [--dataset=digits] [--per_class=1] [--real=256] [--targets=500]

Pixels are standard normal, of the data set's shape. DC and DSA: one update of the images (an outer
step), matched on `--real` images of every class, then the published epochs on the learned images,
which the last update of a network's life goes without; the mean over a life is given too. KIP: one
update of images and labels against `--targets` images, by the configuration's kernel. All take
turns; compiling is left out.
"""

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks import output
from benchmarks.stepping import CLASSES, SHAPES, stepper
from kip_flax.runtime import hardware, sharding


def main() -> None:
    """Measures, prints a table, writes JSON where asked."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", hardware.usable_cores())
    jax.config.update("jax_enable_x64", True)
    size = CLASSES * args.per_class
    print(f"{args.dataset}, S = {size}; {hardware.hardware()}")
    kip = _config("kip", args)
    kip.batch_size, kip.optimizer.learning_rate = args.targets, 1e-6
    contenders = {"kip": stepper(kip, SHAPES[args.dataset])}
    for name in ("dc", "dsa"):
        config = _config(name, args)
        config.batch_size, config.optimizer.learning_rate = CLASSES * args.real, 1e-6
        contenders[name] = stepper(config, SHAPES[args.dataset])
    outer = config.matching.outer_loops
    times = _measure(contenders, outer, args.repeats)
    rows = []
    for name, seconds in times.items():
        rows.append({"algorithm": name, "step_s": statistics.mean(seconds), "each_s": seconds})
        each = "" if len(seconds) == 1 else "  each " + " ".join(f"{s:.3f}" for s in seconds)
        print(f"{name:4} {statistics.mean(seconds):9.3f} s a step{each}")
    output.write(args.json, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits", choices=sorted(SHAPES))
    parser.add_argument("--per_class", type=int, default=1, choices=(1, 10, 20, 30, 40, 50))
    parser.add_argument("--real", type=int, default=256)
    parser.add_argument("--targets", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", default="")
    return parser.parse_args()


def _config(algorithm: str, args: argparse.Namespace) -> ConfigDict:
    module = importlib.import_module(f"configs.{algorithm}_{args.dataset}")
    if algorithm != "kip":
        return module.get_config(str(args.per_class))
    config = module.get_config()
    config.support.size = CLASSES * args.per_class
    return config


def _measure(
    contenders: dict[str, Callable[[int], Any]], outer: int, repeats: int
) -> dict[str, list[float]]:
    """Median seconds of each step over lives of a network, after one that compiles.

    For KIP a life is one step.
    """
    lives = {name: 1 if name == "kip" else outer for name in contenders}
    found: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, step in contenders.items():
            times = []
            for number in range(lives[name]):
                begin = time.perf_counter()
                step(turn * lives[name] + number + 1)
                times.append(time.perf_counter() - begin)
            if turn:
                found[name].append(times)
    return {
        name: [statistics.median(step) for step in zip(*turns, strict=True)]
        for name, turns in found.items()
    }


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
