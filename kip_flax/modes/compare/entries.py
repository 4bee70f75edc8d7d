"""The entries of a comparison: distilled files, and how each was made."""

import contextlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kip_flax import algorithms, export
from kip_flax.modes.pages import plural
from kip_flax.runs.folder import STEP_IN_NAME, RunFolder
from kip_flax.runtime.errors import UserError


@dataclass(frozen=True)
class Made:
    """How a set was made, as far as that is known.

    Attributes:
        method: the title of the algorithm, such as 'KIP', or 'initial images'; the file's own name
            if the file does not record it.
        variant: of the method, such as 'Gauss-Newton'; '' if it has none.
        labels: 'learned', 'fixed' or 'solved'; '' if the file does not record it.
        algorithm: its name in the configuration; '' if there is none.
        budget: steps, targets per step and regulariser, in words; or ''.
        seconds: seconds of the run until it had made the set; None if not known.
        file: its path; '' for real images drawn here.
    """

    method: str
    variant: str = ""
    labels: str = "fixed"
    algorithm: str = ""
    budget: str = ""
    seconds: float | None = None
    file: str = ""

    @property
    def name(self) -> str:
        """The method and its variant."""
        return f"{self.method}, {self.variant}" if self.variant else self.method

    @property
    def title(self) -> str:
        """The method, its variant and its labels, in words."""
        return f"{self.name}{self.of_labels}"

    @property
    def of_labels(self) -> str:
        """', labels learned', or ''."""
        return f", labels {self.labels}" if self.labels else ""


@dataclass(frozen=True, eq=False)
class Entry:
    """One distilled set of the comparison.

    Attributes:
        distilled: the set.
        made: how it was made.
        preprocess: the name of its preprocessing.
    """

    distilled: export.Distilled
    made: Made
    preprocess: str

    @property
    def key(self) -> str:
        """The method and labels, a checksum of the arrays, and what the file does not record."""
        arrays = (self.distilled.images, self.distilled.labels)
        crc = zlib.crc32(arrays[1].tobytes(), zlib.crc32(arrays[0].tobytes()))
        assumed = "" if self.distilled.preprocess_name else f", {self.preprocess}"
        return f"{self.made.method}{self.made.of_labels} ({crc:08x}{assumed})"


def read(path: str, preprocess: str) -> Entry:
    """The set in a file, or the last set in the folder of a run.

    Args:
        path: of the file or folder.
        preprocess: the name of the preprocessing of a set that records none.

    Raises:
        UserError: the file is missing or broken, or the folder holds no set.
    """
    file = _last_of(Path(path)) if Path(path).is_dir() else Path(path)
    distilled = export.load_distilled(file)
    made = _made(file, (distilled.meta or {}).get("provenance", {}))
    return Entry(distilled, made, distilled.preprocess_name or preprocess)


def _made(file: Path, provenance: dict[str, Any]) -> Made:
    config, step = provenance.get("config", {}), provenance.get("step")
    if "algorithm" not in config or step is None:
        return Made(file.stem, labels="", file=str(file))
    name = config["algorithm"]
    algorithm = algorithms.known(name)
    labels = algorithm.labels(config["support.learn_labels"])
    if step == 0:
        solved = labels == "solved" and algorithm.labels_changed(True, step)
        return Made("initial images", labels="solved" if solved else "fixed", file=str(file))
    facts = algorithms.facts(name)
    ridge = f", reg {config['reg']:g}" if facts.uses_kernel else ""
    return Made(
        method=facts.title,
        variant=facts.variant,
        labels=labels,
        algorithm=name,
        budget=f"{plural(step, facts.unit_alone)} of {config['batch_size']}{ridge}",
        seconds=_seconds(file, step),
        file=str(file),
    )


def _last_of(folder: Path) -> Path:
    """The set of the latest step in a run's folder, or in a folder of sets."""
    own: dict[int, Path] = {}
    with contextlib.suppress(UserError):  # It is no whole run.
        own = RunFolder(folder).distilled()
    if own:  # Beside them there may be sets of an older run.
        return own[max(own)]
    files = [*folder.glob("distilled/*.npz"), *folder.glob("*.npz")]
    found = [(int(m[1]), file) for file in files if (m := STEP_IN_NAME.search(file.name))]
    if not found:
        raise UserError(
            f"{folder} holds no distilled set (NAME_ckptSTEP.npz): name the folder of a run, or a "
            f"file, in --compare."
        )
    return max(found)[1]


def _seconds(file: Path, step: int) -> float | None:
    """Seconds in the run's result.json, if `step` is its last evaluation; otherwise None."""
    result = RunFolder(file.parent.parent).earlier_result()
    try:
        return float(result["seconds"]) if result["evaluations"][-1]["step"] == step else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None
