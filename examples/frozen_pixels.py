"""How much of an image does a distilled set need? Accuracy against the share of frozen noise.

    python -m examples.frozen_pixels --data=data [--runs=DIR] [--small]

KIP on MNIST, one hidden layer of infinite width, ten images of each class. Of every image a share
of the pixels is noise that no step changes (`support.frozen`; KIP_rho in Nguyen et al., ICLR 2021).
Each share is a run like any other: what is finished is not run again, what was stopped goes on. The
figures go to RUNS/figures.json, the pictures to RUNS/curve.png and RUNS/images.png. --small takes
scikit-learn's digits, which need no data, ten images and few steps.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs import kip_mnist
from examples.arguments import Parser, folder
from kip_flax import distill
from kip_flax.export import Distilled
from kip_flax.export.pictures import rgb
from kip_flax.export.pictures import sheet as sheet_of
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files, sharding
from kip_flax.runtime.errors import UserError

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)
SEEDS = (0, 1, 2)
NETWORK = {
    "kernel.architecture": "fc",
    "kernel.depth": 1,
    "report.num_train": 0,
    "augment": "",
    "eval.steps": (0,),
}
FIELDS = NETWORK | {
    "support.size": 100,
    "num_steps": 600,
    "batch_size": 5000,
    "optimizer.learning_rate": 0.01,
}
SMALL = NETWORK | {
    "dataset.name": "digits",
    "support.size": 10,
    "num_steps": 60,
    "batch_size": 200,
}


@dataclass(frozen=True)
class Point:
    """Accuracies of one share in percent: means over seeds before and after, deviation after."""

    share: float
    before: float
    after: float
    deviation: float


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing, prints the table, draws the pictures; 2 on an error."""
    try:
        args = _arguments(argv)
        runs = Path(args.runs or f"runs/frozen_{'digits' if args.small else 'mnist'}")
        fields = SMALL if args.small else FIELDS | {"dataset.data_dir": args.data}
        points, shown = [], []
        for share in SHARES:
            point, example = _measure(share, fields, runs)
            points.append(point)
            shown.append(example)
        print(table(points))
        rows = [vars(point) for point in points]
        known = {name: value for name, value in fields.items() if name != "dataset.data_dir"}
        files.write_json(runs / "figures.json", {"fields": known, "points": rows})
        _draw(points, shown, runs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from there")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("examples.frozen_pixels", __doc__)
    parser.add_argument("--data", default="data", help="folder of MNIST's files")
    parser.add_argument(
        "--runs", type=folder, help="folder for the runs and figures; runs/frozen_DATASET"
    )
    parser.add_argument("--small", action="store_true", help="the digits, few steps")
    return parser.parse_args(argv)


def _measure(share: float, fields: dict[str, Any], runs: Path) -> tuple[Point, Distilled]:
    """The accuracies of one share, and the set of the first seed."""
    before, after, sets = [], [], []
    for seed in SEEDS:
        workdir = runs / f"{share:g}_{seed}"
        own = fields | {"support.frozen": share, "seed": seed}
        sets.append(distill(config=kip_mnist.get_config(), fields=own, workdir=str(workdir)))
        evaluations = RunFolder(workdir).evaluations()
        before.append(100 * evaluations[0]["accuracy"])
        after.append(100 * evaluations[-1]["accuracy"])
    spread = float(np.std(after, ddof=1))
    return Point(share, float(np.mean(before)), float(np.mean(after)), spread), sets[0]


def table(points: list[Point]) -> str:
    """The accuracies as a markdown table."""
    head = ["| frozen | at the start | learned |", "|---|---|---|"]
    rows = [
        f"| {point.share:.0%} | {point.before:.2f} | {point.after:.2f} ± {point.deviation:.2f} |"
        for point in points
    ]
    return "\n".join([*head, *rows])


def _draw(points: list[Point], shown: list[Distilled], runs: Path) -> None:
    """The curve, and an image of each class for each share."""
    from matplotlib.figure import Figure

    from kip_flax.modes.figures.draw import rendered

    curve = Figure(figsize=(5, 3.2), layout="constrained")
    axes = curve.subplots()
    shares = [100 * point.share for point in points]
    after, spread = ([getattr(p, name) for p in points] for name in ("after", "deviation"))
    axes.errorbar(shares, after, spread, marker="o", capsize=3, label="learned")
    axes.plot(shares, [p.before for p in points], marker="s", linestyle="--", label="at the start")
    axes.set_xlabel("frozen pixels of every image, %")
    axes.set_ylabel("test accuracy, %")
    axes.legend()
    files.write_bytes_atomic(runs / "curve.png", rendered(curve, "png"))

    classes = shown[0].labels.shape[1]
    pictures = [one.pictures()[:: len(one.images) // classes] for one in shown]  # One per class.
    sheet = rgb(sheet_of(np.concatenate(pictures), classes, gap=1, fill=1))
    images = Figure(figsize=(0.6 * classes, 0.6 * len(shown)), layout="constrained")
    axes = images.subplots()
    axes.imshow(np.clip(sheet, 0, 1))
    step = sheet.shape[0] / len(shown)
    middles = [step * (row + 0.5) for row in range(len(shown))]
    axes.set_yticks(middles, [f"{share:.0f} %" for share in shares])
    axes.set_xticks([])
    files.write_bytes_atomic(runs / "images.png", rendered(images, "png"))


if __name__ == "__main__":
    sharding.prepare_cpu_devices()
    sharding.configure_jax()
    sys.exit(main())
