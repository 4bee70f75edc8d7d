"""The curves that `--mode=plan` scales: accuracies that rows reached while they ran.

python -m results.curves   writes them anew
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from kip_flax import algorithms
from kip_flax.algorithms import kip_newton
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

    Rows that go on from such a row are joined to it. Rows with fewer than two evaluations, or with
    a ridge for networks, are left out.
    """
    done = [one.name for one in EXPERIMENTS if record.is_done(one, _RESULTS)]
    chains = [record.chain(_RESULTS / name) for name in done]
    found = {chain[-1].name: (chain, curve) for chain in chains if (curve := _joined(chain))}
    gone_on = {part.name for chain, _ in found.values() for part in chain[:-1]}
    return [curve for name, (_, curve) in found.items() if name not in gone_on]


def _joined(chain: list[Path]) -> Curve | None:
    """The curve of rows each of which goes on from the set of the one before; None if they differ.

    Of a row that another goes on from, it has the steps up to its set.
    """
    points: list[tuple[int, float]] = []
    kinds, before = set(), 0
    for folder in chain:
        entry = record.read(folder)
        config, draw = entry["config"], entry["draws"][0]
        rows, support = draw["watched"].get("evaluations", []), config["support"]
        facts = algorithms.facts(config["algorithm"])
        begins_here = (folder == chain[0]) == (support["init"] in SUPPORT_DRAWS)
        by_kernel = facts.uses_kernel and facts.learns_images and support["learn_labels"]
        if not rows or config["reg"] > 1e-3 or not (begins_here and by_kernel):
            return None
        kernel = config["kernel"]
        used = kernel["architecture"], kernel.get("mirrored", False)
        names = config["algorithm"], config["dataset"]["name"], *used
        kinds.add((*names, support["size"], draw["watched"]["on"]))
        for row in rows:
            step = row["step"]
            if (step or not points) and (folder == chain[-1] or step <= draw["step"]):
                drawn = before + _targets(config, step)
                points.append((drawn, round(row["accuracy"], 4)))
        before = points[-1][0]
    if len(points) < 2 or len(kinds) > 1:
        return None
    ((algorithm, dataset, architecture, mirrored, size, on),) = kinds
    last = _targets(config, config["num_steps"]) - _targets(config, config["num_steps"] - 1)
    names = algorithm, dataset, architecture, mirrored
    return Curve(chain[-1].name, *names, size, last, tuple(points), on)


def _targets(config: dict[str, Any], steps: int) -> int:
    """The targets that the first `steps` steps draw."""
    growth = config.get("newton", {}).get("growth", 1)
    return config["batch_size"] * kip_newton.batches(config["num_steps"], growth, steps)


def written(rows: list[Curve]) -> str:
    """The text of the file: JSON, a line for each curve."""
    lines = (json.dumps(dataclasses.asdict(row)) for row in rows)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def main() -> None:
    """Writes the file anew."""
    files.write_bytes_atomic(FILE, written(of_rows()).encode())


if __name__ == "__main__":
    main()
