"""Seconds of one step of DC, of DSA and of KIP, side by side on the same support.

    python -m benchmarks.rivals [--dataset=digits] [--per_class=1] [--real=256] [--targets=500]

Pixels are standard normal, of the data set's shape. DC and DSA: one update of the images (an outer
step), matched on `--real` images of every class, then the published epochs on the learned images,
which the last update of a network's life goes without; the mean over a life is told too. KIP: one
update of images and labels against `--targets` images, by the configuration's kernel. All take
turns; compiling is left out.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data
from kip_flax.algorithms.base import Problem
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runs import setup
from kip_flax.runtime import hardware, sharding
from kip_flax.runtime.console import Console

_SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
_CLASSES = 10


def main() -> None:
    """Measures, prints a table, writes JSON where asked."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", hardware.usable_cores())
    jax.config.update("jax_enable_x64", True)
    size = _CLASSES * args.per_class
    print(f"{args.dataset}, S = {size}; {hardware.hardware()}")
    kip = _config("kip", args)
    kip.batch_size, kip.optimizer.learning_rate = args.targets, 1e-6
    contenders = {"kip": _stepper(kip, args)}
    for name in ("dc", "dsa"):
        config = _config(name, args)
        config.batch_size, config.optimizer.learning_rate = _CLASSES * args.real, 1e-6
        contenders[name] = _stepper(config, args)
    outer = config.matching.outer_loops
    times = _measure(contenders, outer, args.repeats)
    rows = []
    for name, seconds in times.items():
        rows.append({"algorithm": name, "step_s": statistics.mean(seconds), "each_s": seconds})
        each = "" if len(seconds) == 1 else "  each " + " ".join(f"{s:.3f}" for s in seconds)
        print(f"{name:4} {statistics.mean(seconds):9.3f} s a step{each}")
    if args.json:
        result = {"machine": hardware.hardware(), "rows": rows, "command": " ".join(sys.argv)}
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits", choices=sorted(_SHAPES))
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
    config.support.size = _CLASSES * args.per_class
    return config


def _stepper(config: ConfigDict, args: argparse.Namespace) -> Callable[[int], Any]:
    """step(number) takes the step, waits for it, and keeps the state."""
    rng = np.random.default_rng(0)
    count = max(config.batch_size, config.support.size)
    images = rng.standard_normal((count, *_SHAPES[args.dataset]), np.float32)
    targets = data.Targets(images, np.arange(count) % _CLASSES, _CLASSES)
    mesh = sharding.make_mesh()
    kernel: Kernel = _no_kernel
    if config.algorithm == "kip":
        kernel = shard_kernel(setup.make_kernel(config, Console()), mesh)
    support = setup.first_support(config, targets, jax.random.key(0))
    problem = Problem(config, targets, kernel, mesh, jax.random.key(1))
    task = setup.make_distillation(problem, support)
    kept = [task.start()]

    def step(number: int) -> None:
        kept[0] = jax.block_until_ready(task.step(kept[0], number)[0])

    return step


def _no_kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
    raise AssertionError("gradient matching asks for no kernel entry")


def _measure(
    contenders: dict[str, Callable[[int], Any]], outer: int, repeats: int
) -> dict[str, list[float]]:
    """Medians over lives of a network, after one that compiles; of KIP a life is one step."""
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
