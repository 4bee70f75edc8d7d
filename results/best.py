"""Trains other networks on the sets of ten images that the ConvNet-3 learns most from.

  python -m results.best --data=data [--runs=runs/networks] [--only=NAME,NAME]

The best sets of each data set in docs/rivals.md are measured by the networks that the page names,
as `python -m results.networks` measures all sets.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from results import costs, networks, run_all
from results.experiment import Experiment


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing for the best sets, or for those that `--only` names."""
    best_rows = functools.cache(_best_rows)  # Other networks do not change which sets are best.
    args = run_all.make_parser(__doc__ or "", "runs/networks").parse_args(argv)
    for network in costs.OTHERS:
        work = functools.partial(_measure, network, best_rows)
        run_all.go_through(work, args, run_all.named(args.only))


def _best_rows(results: Path) -> set[str]:
    """The names of the best sets of all data sets in docs/rivals.md."""
    found = [costs.costs(results, dataset) for dataset in costs.DATASETS]
    return {one.row for of_dataset in found for one in costs.best(of_dataset)}


def _measure(
    network: str,
    best_rows: Callable[[Path], set[str]],
    experiment: Experiment,
    data_dir: str,
    workdir: Path,
    results: Path,
) -> bool:
    """Measures one of the best sets if it lacks the network; returns whether it did."""
    if experiment.name not in best_rows(results):
        return False
    return networks.measure(network, experiment, data_dir, workdir, results)


if __name__ == "__main__":
    main()
