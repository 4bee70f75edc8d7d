"""The entries of a comparison: distilled files, and how each was made."""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kip_flax import algorithms, export
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError

_STEP = re.compile(r"_ckpt(\d+)\.npz$")


@dataclass(frozen=True)
class Made:
    """How a set was made, as far as that is known.

    Attributes:
        method: the title of the algorithm, such as 'KIP', or 'initial images';
            where a file says nothing, its own name.
        algorithm: as the configuration names it; '' where there is none.
        labels: 'learned', 'fixed' or 'solved'; '' where a file says nothing.
        budget: steps and training images of each, in words; or ''.
        seconds: that the run took until it had made the set; None where that is not known.
        file: its path; '' for real images drawn here.
    """

    method: str
    labels: str = "fixed"
    algorithm: str = ""
    budget: str = ""
    seconds: float | None = None
    file: str = ""

    @property
    def title(self) -> str:
        """The method and its labels, for a person."""
        return f"{self.method}, labels {self.labels}" if self.labels else self.method


@dataclass(frozen=True, eq=False)
class Entry:
    """One distilled set of the comparison."""

    distilled: export.Distilled
    made: Made

    @property
    def key(self) -> str:
        """A name that changes with the set."""
        arrays = (self.distilled.images, self.distilled.labels)
        crc = zlib.crc32(arrays[1].tobytes(), zlib.crc32(arrays[0].tobytes()))
        return f"{self.made.title} ({crc:08x})"


def read(path: str) -> Entry:
    """The set in a file, or the last one of a run in its folder.

    Raises:
        UserError: there is no such file, folder or set in it.
    """
    file = _last_of(Path(path)) if Path(path).is_dir() else Path(path)
    distilled = export.load_distilled(file)
    return Entry(distilled, _made(file, (distilled.meta or {}).get("provenance", {})))


def _made(file: Path, provenance: dict[str, Any]) -> Made:
    config, step = provenance.get("config", {}), provenance.get("step")
    if "algorithm" not in config or step is None:
        return Made(file.stem, "", file=str(file))
    if step == 0:
        return Made("initial images", file=str(file))
    algorithm = config["algorithm"]
    facts = algorithms.facts(algorithm)
    ridge = f", reg {config['reg']:g}" if facts.uses_kernel else ""
    return Made(
        method=facts.title,
        labels=algorithms.labels(algorithm, config["support.learn_labels"]),
        algorithm=algorithm,
        budget=f"{step} steps of {config['batch_size']}{ridge}",
        seconds=_seconds(file, step),
        file=str(file),
    )


def _last_of(folder: Path) -> Path:
    """The set of the latest step in a run's folder."""
    found = [(int(m[1]), f) for f in folder.glob("**/*.npz") if (m := _STEP.search(f.name))]
    if not found:
        raise UserError(
            f"{folder} holds no distilled set (NAME_ckptSTEP.npz): name the folder of a run, or a "
            f"file, in --compare."
        )
    return max(found)[1]


def _seconds(file: Path, step: int) -> float | None:
    """What the result of the run says, if the set is the last one in it."""
    result = RunFolder(file.parent.parent).earlier_result()
    try:
        return float(result["seconds"]) if result["evaluations"][-1]["step"] == step else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None
