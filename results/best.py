"""Trains other networks on the sets of ten images that the ConvNet-3 learns most from.

  python -m results.best --data=data [--runs=runs/networks] [--only=NAME,NAME]

The best sets of each data set in docs/rivals.md are measured by the networks that the page names,
as `python -m results.networks` measures all sets.
"""

import functools
from pathlib import Path

from results import costs, networks, run_all


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing for the best sets, or for those that `--only` names."""
    args = run_all.make_parser(__doc__ or "", "runs/networks").parse_args(argv)
    best = _best_rows(args.results)  # Other networks do not change which sets are best.
    wanted = [each for each in run_all.named(args.only) if each.name in best]
    works = [functools.partial(networks.measure, network) for network in costs.OTHERS]
    run_all.go_through(works, args, wanted)


def _best_rows(results: Path) -> set[str]:
    """The names of the best sets of all data sets in docs/rivals.md."""
    found = [costs.costs(results, dataset) for dataset in costs.DATASETS]
    return {one.row for of_dataset in found for one in costs.best(of_dataset)}


if __name__ == "__main__":
    main()
