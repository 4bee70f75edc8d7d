"""Trains other networks on the sets of ten images that the ConvNet-3 learns most from.

  python -m results.best --data=data [--runs=runs/networks] [--only=NAME,NAME]

The best sets of each data set in docs/rivals.md are measured by the networks that the page names,
as `python -m results.networks` measures all sets.
"""

from pathlib import Path

from results import costs, networks, run_all
from results.experiment import Experiment


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing for the best sets, or for those that `--only` names."""
    run_all.go_through(_measure, __doc__ or "", "runs/networks", argv)


def _measure(experiment: Experiment, data_dir: str, workdir: Path, results: Path) -> bool:
    """Measures a set by the networks that it lacks; returns whether it did."""
    found = [costs.costs(results, dataset) for dataset in costs.DATASETS]
    if experiment.name not in {one.row for of_dataset in found for one in costs.best(of_dataset)}:
        return False
    at = (experiment, data_dir, workdir, results)
    done = [networks.measure(name, *at) for name in costs.OTHERS]
    return any(done)


if __name__ == "__main__":
    main()
