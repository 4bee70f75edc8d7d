"""Trains networks on the sets of the rows that lack their figures, and goes on where it stopped.

  python -m results.networks --data=data [--runs=runs/networks] [--only=NAME,NAME]

It is `--mode=transfer` by the recipe 'auto' on all test images, at low priority, for one network
after the other. The figures are kept in results/NAME/figures.json, and the table is made anew after
every row.
"""

import functools
import json
from pathlib import Path
from typing import Any

from kip_flax import export
from kip_flax.data import sets
from kip_flax.modes.transfer.table import TABLE
from kip_flax.networks import figures, named, recipe
from results import record, run_all
from results.experiments import Experiment, command
from results.words import NETWORKS

RECIPE, WIDTH = "auto", 128
SEEDS = 5
FIELDS: dict[str, Any] = {
    "transfer.recipe": RECIPE,
    "transfer.width": WIDTH,
    "transfer.seeds": SEEDS,
    "transfer.baselines": (),
    "transfer.ladder": (),
    "dataset.validation": 0.0,
    "eval.num_test": 0,
}


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing of all experiments, or of those that `--only` names."""
    for network in NETWORKS:
        work = functools.partial(_measure, network)
        run_all.go_through(work, __doc__ or "", "runs/networks", argv)


def _measure(
    network: str, experiment: Experiment, data_dir: str, workdir: Path, results: Path
) -> bool:
    """Measures a row that is done and lacks the figures of the network."""
    folder = results / experiment.name
    if not record.is_done(experiment, results):
        return False
    told = record.read(folder)
    if network in {row["network"] for row in told.get("network", [])}:
        return False
    path, workdir = folder / told["set"], workdir / network.replace(":", "_")
    fields = FIELDS | {"transfer.networks": (network,)}
    arguments = [
        *command(experiment, told["draws"][0]["seed"], watched=False),
        *(f"--config.{name}={value}".replace(" ", "") for name, value in fields.items()),
        *run_all.data_field(data_dir),
        *("--mode=transfer", f"--distilled={path}", f"--workdir={workdir}"),
    ]
    run_all.program(arguments, workdir)
    content = json.loads((workdir / TABLE).read_text()) if (workdir / TABLE).exists() else {}
    if not content.get("rows"):
        raise KeyboardInterrupt  # It was told to stop.
    (row,) = content["rows"]
    by = recipe_words(export.load_distilled(path), told["config"]["dataset"]["name"])
    record.add_network(folder, figures_row(row, by) | {"hardware": content["hardware"]})
    return True


def figures_row(row: dict[str, Any], words: str) -> figures.Row:
    """A row of a transfer as one of `networks.figures`."""
    name = row["network"]
    return {
        "network": name,
        "width": WIDTH if named.spec_of(name, "fc", 1) is not None else None,
        "on": figures.TEST,
        "seeds": len(row["accuracies"]),
        "recipe": words,
        **{key: row[key] for key in ("mean", "std", "accuracies", "learning_rate", "l2")},
        "seconds": round(row["seconds"], 1),
    }


def recipe_words(distilled: export.Distilled, dataset: str) -> str:
    """The recipe by which networks are trained on a set."""
    channels = distilled.images.shape[3]
    flips = sets.facts(dataset).may_be_mirrored(channels)
    made = recipe.make(RECIPE, len(distilled.images), channels, flips, {"width": WIDTH})
    return f"{RECIPE}: {made.words}"


if __name__ == "__main__":
    main()
