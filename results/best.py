"""Trains other networks on the sets of ten images that the ConvNet-3 learns most from.

  python -m results.best --data=data [--runs=runs/networks] [--only=NAME,NAME]

The best sets of each data set in docs/rivals.md are measured by the networks that the page names,
as `python -m results.networks` measures all sets.
"""

import functools
from pathlib import Path

from results import costs, networks, run_all
from results.experiment import Experiment


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing for the best sets, or for those that `--only` names."""
    for network in costs.OTHERS:
        work = functools.partial(_measure, network)
        run_all.go_through(work, __doc__ or "", "runs/networks", argv)


def _measure(
    network: str, experiment: Experiment, data_dir: str, workdir: Path, results: Path
) -> bool:
    """Measures one of the best sets if it lacks the network; returns whether it did."""
    found = [costs.costs(results, dataset) for dataset in costs.DATASETS]
    if experiment.name not in {one.row for of_dataset in found for one in costs.best(of_dataset)}:
        return False
    return networks.measure(network, experiment, data_dir, workdir, results)


if __name__ == "__main__":
    main()
