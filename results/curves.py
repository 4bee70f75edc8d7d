"""The curves that `--mode=plan` scales: accuracies that rows reached while they ran.

python -m results.curves   writes them anew
"""

import dataclasses
import json
from pathlib import Path

from kip_flax import algorithms
from kip_flax.algorithms.base import SUPPORT_DRAWS
from kip_flax.modes.plan import curves
from kip_flax.modes.plan.curves import Curve
from kip_flax.runtime import files
from results import record
from results.experiments import EXPERIMENTS

FILE = Path(curves.__file__).with_name(curves.FILE)
_RESULTS = Path(__file__).resolve().parent


def of_rows() -> list[Curve]:
    """The curves of rows that learn images by a kernel, from a fresh draw and with learned labels.

    Rows with fewer than two evaluations, or with a ridge for networks, are left out.
    """
    found = []
    for experiment in EXPERIMENTS:
        if not record.is_done(experiment, _RESULTS):
            continue
        entry = record.read(_RESULTS / experiment.name)
        config, draw = entry["config"], entry["draws"][0]
        rows = draw["watched"].get("evaluations", [])
        support, facts = config["support"], algorithms.facts(config["algorithm"])
        from_scratch = support["init"] in SUPPORT_DRAWS and support["learn_labels"]
        by_kernel = facts.uses_kernel and facts.learns_images
        if len(rows) < 2 or config["reg"] > 1e-3 or not (from_scratch and by_kernel):
            continue
        points = tuple((row["step"], round(row["accuracy"], 4)) for row in rows)
        names = config["algorithm"], config["dataset"]["name"], config["kernel"]["architecture"]
        sizes = support["size"], config["batch_size"]
        found.append(Curve(experiment.name, *names, *sizes, points, draw["watched"]["on"]))
    return found


def written(rows: list[Curve]) -> str:
    """The text of the file: JSON, a line for each curve."""
    lines = (json.dumps(dataclasses.asdict(row)) for row in rows)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def main() -> None:
    """Writes the file anew."""
    files.write_bytes_atomic(FILE, written(of_rows()).encode())


if __name__ == "__main__":
    main()
