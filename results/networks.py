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
from results.experiment import Experiment, arguments, command
from results.words import NETWORKS, SEEDS

RECIPE, WIDTH = "auto", 128
FEW_SEEDS = 2
_MANY = 250  # Five networks take 44 minutes to learn 500 images of CIFAR-10.
FIELDS: dict[str, Any] = {
    "transfer.recipe": RECIPE,
    "transfer.width": WIDTH,
    "transfer.seeds": SEEDS,
    "transfer.ladder": (),
    "dataset.validation": 0.0,
    "eval.num_test": 0,
}


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing for all experiments, or for those that `--only` names."""
    args = run_all.make_parser(__doc__ or "", "runs/networks").parse_args(argv)
    works = [functools.partial(measure, network) for network in NETWORKS]
    run_all.go_through(works, args, run_all.named(args.only))


def measure(
    network: str, experiment: Experiment, data_dir: str, workdir: Path, results: Path
) -> bool:
    """Measures a finished row that lacks the network; returns whether it did."""
    folder = results / experiment.name
    if not record.is_done(experiment, results):
        return False
    entry = record.read(folder)
    if network in {row["network"] for row in entry.get("network", [])}:
        return False
    fields: dict[str, Any] = {"transfer.networks": (network,), "transfer.baselines": ()}
    if entry["config"]["support"]["size"] > _MANY:
        fields["transfer.seeds"] = FEW_SEEDS
    content = transfer(experiment, folder, data_dir, workdir / network.replace(":", "_"), fields)
    if not content.get("rows"):
        raise KeyboardInterrupt  # A signal stopped it.
    (row,) = content["rows"]
    row = figures_row(row, recipe_words(folder)) | {"hardware": content["hardware"]}
    record.add_network(folder, row)
    return True


def transfer(
    experiment: Experiment, folder: Path, data_dir: str, workdir: Path, fields: dict[str, Any]
) -> dict[str, Any]:
    """Runs `--mode=transfer` on the set in results/NAME, or resumes it.

    Args:
        experiment: the experiment that made the set.
        folder: results/NAME.
        data_dir: folder of the data set's files.
        workdir: folder of the transfer.
        fields: networks and baselines by dotted name, besides `FIELDS`.

    Returns:
        The content of its table, JSON; {} if a signal stopped it before there was one.

    Raises:
        UserError: the transfer failed.
    """
    entry = record.read(folder)
    words = [
        *command(experiment, entry["draws"][0]["seed"], watched=False),
        *arguments(FIELDS | fields),
        *run_all.data_field(data_dir),
        *("--mode=transfer", f"--distilled={folder / entry['set']}", f"--workdir={workdir}"),
    ]
    run_all.program(words, workdir)
    table = workdir / TABLE
    return json.loads(table.read_text()) if table.exists() else {}


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


def recipe_words(folder: Path) -> str:
    """The recipe by which networks are trained on the set in results/NAME."""
    entry = record.read(folder)
    distilled = export.load_distilled(folder / entry["set"])
    dataset = entry["config"]["dataset"]["name"]
    channels = distilled.images.shape[3]
    flips = sets.facts(dataset).may_be_mirrored(channels)
    changes = {n.removeprefix("transfer."): v for n, v in FIELDS.items() if "transfer." in n}
    made = recipe.make(RECIPE, len(distilled.images), channels, flips, changes)
    return f"{RECIPE}: {made.words}"


if __name__ == "__main__":
    main()
