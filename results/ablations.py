"""Which settings matter: one field changed at a time, several seeds, on validation images.

  python -m results.ablations [--data=data] [--only=digits]

What is measured already is kept in results/ablations.json; the tables are in results/ablations.md.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from ml_collections import ConfigDict

from configs import kip_digits, kip_mnist
from kip_flax.algorithms import kip
from kip_flax.modes.train.mode import train_and_evaluate
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files, hardware, sharding
from results import run_all
from results.record import percent

FOLDER = Path(__file__).resolve().parent
_FIGURES, _PAGE = "ablations.json", "ablations.md"
_HEAD = """# Which settings matter

One field changed at a time from a base, everything else alike; mean and standard deviation over
seeds (draw of the initial images and of the batches). Accuracies in % on validation images, held
out of the training images, after the last step, by kernel ridge regression; the test images were
not read. *Entries*: thousands of kernel entries with their gradients in a run, which is what it
costs. *float64=False* is JAX's `jax_enable_x64`, not a field. Written by
`python -m results.ablations --data=DIR`.
"""
_SEEN = 24_000  # Targets of a run of the MNIST study, summed over its steps.


@dataclass(frozen=True)
class Study:
    """A base configuration, and the changes to it that are measured one at a time."""

    title: str
    base: dict[str, Any]
    seeds: int
    changes: tuple[dict[str, Any], ...]


def _each(name: str, *values: Any) -> tuple[dict[str, Any], ...]:
    return tuple({name: value} for value in values)


def _batches(size: int) -> dict[str, Any]:
    """Fields for batches of `size` targets at the same total cost, a tenth of them to warm up."""
    steps = _SEEN // size
    return {"batch_size": size, "num_steps": steps, "optimizer.warmup_steps": steps // 10}


STUDIES: dict[str, Study] = {
    "digits": Study(
        "Digits: `configs/kip_digits.py`, 60 steps of 200 targets",
        {
            "dataset.validation": 0.2,
            "eval.steps": (60,),
            "log.every_steps": 20,
            "report.num_train": 0,
        },
        5,
        (
            {},
            *_each("support.learn_labels", False),
            *_each("support.init", "noise"),
            *_each("preprocess", "none", "zca_normalize"),
            *_each("augment", "shift", "shift,crop_rotate"),
            *_each("batch_size", 50, 100, 500, 1000),
            *_each("optimizer.learning_rate", 0.01, 0.02, 0.08, 0.16),
            *_each("optimizer.schedule", "cosine"),
            {"optimizer.schedule": "cosine", "optimizer.learning_rate": 0.08},
            *_each("kernel.kind", "nngp"),
            *_each("kernel.depth", 1),
            *_each("reg", 1e-8, 1e-4, 1e-2),
            *_each("float64", False),
        ),
    ),
    "mnist": Study(
        f"MNIST: `configs/kip_mnist.py`, 10 images, {_SEEN:,} targets in all, 500 a step",
        {
            "dataset.validation": 0.1,
            "eval.num_test": 2000,
            "eval.steps": (0,),  # The first and the last are always evaluated.
            "report.num_train": 0,
            **_batches(500),
        },
        3,
        (
            {},
            *_each("optimizer.learning_rate", 0.01, 0.02, 0.08, 0.16),
            *(_batches(size) for size in (250, 1000, 2000)),
            *_each("optimizer.schedule", "constant"),
            *_each("support.learn_labels", False),
            *_each("preprocess", "zca_normalize"),
            *_each("augment", "shift"),
            *_each("kernel.kind", "nngp"),
            *_each("float64", False),
        ),
    ),
}
_BASES = {"digits": kip_digits.get_config, "mnist": kip_mnist.get_config}


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing and writes the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="", help="folder with the data sets' files")
    parser.add_argument("--only", default=",".join(STUDIES), help="studies, comma separated")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.only.split(",")) - STUDIES.keys()):
        sys.exit(f"error: no study {unknown[0]!r}: --only takes {', '.join(STUDIES)}.")
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", hardware.usable_cores())
    with run_all.alone(FOLDER.parent / "runs" / "ablations"):
        for name in args.only.split(","):
            for change in STUDIES[name].changes:
                for seed in range(STUDIES[name].seeds):
                    _measure(name, change, seed, args.data)
        write()


def _measure(name: str, change: dict[str, Any], seed: int, data: str) -> None:
    kept = read()
    key = f"{name}: {_label(change)}"
    runs = kept.setdefault(key, {})
    if str(seed) in runs:
        return
    config = config_of(name, change)
    config.seed, config.dataset.data_dir = seed, data
    wide = change.get("float64", True)
    with (
        mock.patch.object(sharding, "takes_float64", return_value=wide),
        tempfile.TemporaryDirectory() as folder,
    ):
        train_and_evaluate(config, folder)
        run = RunFolder(folder)
        if run.result()["status"] != "finished":  # A signal stopped it.
            raise KeyboardInterrupt
        evaluations = run.evaluations()
    last = evaluations[-1]
    runs[str(seed)] = {
        "initial": evaluations[0]["accuracy"],
        "accuracy": last["accuracy"],
        "mse": last["mse"],
    }
    files.write_json(FOLDER / _FIGURES, kept)


def config_of(name: str, change: dict[str, Any]) -> ConfigDict:
    """The configuration of one line of a study."""
    config = _BASES[name]()
    fields = {**STUDIES[name].base, **change}
    fields.pop("float64", None)  # Not a field of a run: `_measure` sees to it.
    config.update_from_flattened_dict(fields)
    return config


def read() -> dict[str, Any]:
    """All that is measured: {'STUDY: change': {seed: metrics}}."""
    path = FOLDER / _FIGURES
    return json.loads(path.read_text()) if path.exists() else {}


def render() -> str:
    """The page with the tables, markdown."""
    kept = read()
    lines = [_HEAD]
    for name, study in STUDIES.items():
        lines.append(f"\n## {study.title}\n")
        lines.append("| Changed | Entries | Accuracy | Against the base |")
        lines.append("|---|---|---|---|")
        base = kept.get(f"{name}: {_label({})}", {})
        for change in study.changes:
            runs = kept.get(f"{name}: {_label(change)}", {})
            done = len(runs) == study.seeds
            entries = _entries(config_of(name, change))
            lines.append(_line(_label(change), entries, runs if done else {}, base))
    return "\n".join(lines) + "\n"


def write() -> None:
    """Writes the page."""
    files.write_bytes_atomic(FOLDER / _PAGE, render().encode())


def _line(label: str, entries: int, runs: dict[str, Any], base: dict[str, Any]) -> str:
    head = f"| {label} | {entries / 1000:,.0f} |"
    if not runs:
        return f"{head} not measured | |"
    accuracies = {seed: run["accuracy"] for seed, run in runs.items()}
    # Seeds are paired: the same images to start from.
    gains = [accuracy - base[seed]["accuracy"] for seed, accuracy in accuracies.items()]
    shown = "" if runs is base else percent(gains, "+.2f")
    return f"{head} {percent(list(accuracies.values()))} | {shown} |"


def _entries(config: ConfigDict) -> int:
    return kip.pairs(config, 0) * config.num_steps


def _label(change: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in change.items()) or "nothing: the base"


if __name__ == "__main__":
    main()
