"""What kernel and networks make of as many real images: random ones, and coresets.

  python -m results.coresets --data=data [--runs=runs/coresets]

It is `--mode=transfer` as `results.networks` has it, with baselines, on a set of ten images of each
data set; figures go into results/coresets.json. What is there is not measured again.
"""

import json
from pathlib import Path
from typing import Any

from kip_flax.runtime import files
from results import networks, record, run_all
from results.experiment import Experiment
from results.words import NETWORKS

FILE = "coresets.json"
SETS = ("random", "herding", "herding_unit")
EXPERIMENTS_OF_TEN = ("frepo_cifar10_10", "frepo_mnist_10")
_KERNEL = "krr"


def read(results: Path) -> list[dict[str, Any]]:
    """Rows with 'dataset', 'size', 'set', 'krr' (0 to 1) and 'networks', by name; [] if none."""
    path = results / FILE
    return json.loads(path.read_text()) if path.exists() else []


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing."""
    args = run_all.make_parser(__doc__ or "", "runs/coresets").parse_args(argv)
    chosen = [each for each in run_all.named(args.only) if each.name in EXPERIMENTS_OF_TEN]
    run_all.go_through([_measure], args, chosen)


def _measure(experiment: Experiment, data_dir: str, workdir: Path, results: Path) -> bool:
    """Measures what is missing beside the set of an experiment.

    Raises:
        KeyboardInterrupt: a signal stopped it.
    """
    if not record.is_done(experiment, results):
        return False
    folder = results / experiment.name
    entry = record.read(folder)
    dataset, size = entry["config"]["dataset"]["name"], entry["config"]["support"]["size"]
    there = [row for row in read(results) if (row["dataset"], row["size"]) == (dataset, size)]
    missing = tuple(name for name in SETS if name not in {row["set"] for row in there})
    if not missing:
        return False
    fields = {"transfer.networks": (_KERNEL, *NETWORKS), "transfer.baselines": missing}
    content = networks.transfer(experiment, folder, data_dir, workdir, fields)
    measured = {(row["set"], row["network"]) for row in content.get("rows", [])}
    if not {(n, by) for n in missing for by in fields["transfer.networks"]} <= measured:
        raise KeyboardInterrupt
    recipe = networks.recipe_words(folder)
    shared = {"hardware": content["hardware"], "versions": content["versions"]}
    rows = [
        {"dataset": dataset, "size": size, **_row(content["rows"], name, recipe), **shared}
        for name in missing
    ]
    files.write_json(results / FILE, [*read(results), *rows])
    return False  # The table of the rows has none of it.


def _row(rows: list[dict[str, Any]], name: str, recipe: str) -> dict[str, Any]:
    """The accuracies on one set, from the rows of a transfer."""
    of_set = {row["network"]: row for row in rows if row["set"] == name}
    return {
        "set": name,
        "krr": of_set[_KERNEL]["mean"],
        "networks": {n: networks.figures_row(of_set[n], recipe) for n in NETWORKS},
    }


if __name__ == "__main__":
    main()
