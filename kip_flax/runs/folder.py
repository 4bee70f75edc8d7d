"""The folder of a run: the names of its files, and how each is read and written.

result.json     status, evaluations, seconds, hardware, versions
config.json     the configuration
history.csv     metrics of the steps, a row for each line of progress
images.png      the support before and after
distilled/      the set of each evaluation, and index.csv
preprocess.npz  the preprocessing, fitted once
analysis.npz    the analysis of the last set, computed once at the end
report.html     the report on the run
metrics/        the metrics for TensorBoard
checkpoints/    states to resume from; damaged ones move to unreadable_checkpoints/
.lock           names the process that runs
"""

import contextlib
import csv
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax import algorithms, preprocess
from kip_flax.preprocess import Preprocess
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

STEP_IN_NAME = re.compile(r"_ckpt(\d+)\.npz$")  # Of the file of a set.


def named_folders(workdirs: str) -> list[Path]:
    """The folders that `workdirs` names: the one of this name, or several between commas.

    Raises:
        UserError: a name between commas is empty, or a folder is named twice.
    """
    one = _absolute(workdirs)
    if "," not in workdirs or os.path.isdir(one):  # `Path.is_dir` raises on too long a name.
        return [one]
    names = [name.strip() for name in workdirs.split(",")]
    if not all(names):
        raise UserError(f"--workdir={workdirs} has an empty name: name folders between commas.")
    folders = [_absolute(name) for name in names]
    if len(set(folders)) < len(folders):
        raise UserError(f"--workdir={workdirs} names a folder twice: name each once.")
    return folders


def folder_of_all(folders: Sequence[Path]) -> Path:
    """The nearest folder that holds all `folders`; the current one if that is the file system's."""
    nearest = Path(os.path.commonpath([folder.parent for folder in folders]))
    return nearest if nearest != nearest.parent else Path.cwd()


def _absolute(folder: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(folder)))


class RunFolder:
    """The files of one run. They are read when asked for and never cached.

    Every file is written whole or not at all; methods that write raise UserError if that fails.
    The folder need not hold a run, nor exist.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    @classmethod
    def make(cls, workdir: str) -> "RunFolder":
        """The run folder at `workdir`, made absolute, and created if missing.

        Raises:
            UserError: it cannot be made or written to.
        """
        path = _absolute(workdir)
        try:
            os.makedirs(path, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise UserError(
                f"cannot write to the workdir {path} ({error.strerror}): take another --workdir."
            ) from None
        return cls(path)

    @property
    def result_file(self) -> Path:
        """Status and evaluations, JSON."""
        return self.path / "result.json"

    @property
    def config_file(self) -> Path:
        """The configuration, JSON."""
        return self.path / "config.json"

    @property
    def history_file(self) -> Path:
        """Metrics of the steps, CSV."""
        return self.path / "history.csv"

    @property
    def picture(self) -> Path:
        """The support before and after, PNG."""
        return self.path / "images.png"

    @property
    def distilled_folder(self) -> Path:
        """Folder of the distilled sets."""
        return self.path / "distilled"

    @property
    def index(self) -> Path:
        """The index of the distilled sets, CSV."""
        return self.distilled_folder / "index.csv"

    @property
    def preprocessing_file(self) -> Path:
        """The fitted preprocessing, npz."""
        return self.path / "preprocess.npz"

    @property
    def analysis_file(self) -> Path:
        """The analysis of the last set, npz."""
        return self.path / "analysis.npz"

    @property
    def report(self) -> Path:
        """The report on the run, HTML."""
        return self.path / "report.html"

    @property
    def metrics(self) -> Path:
        """Folder of the TensorBoard events."""
        return self.path / "metrics"

    @property
    def checkpoints(self) -> Path:
        """Holds a folder for each checkpoint, named by its step."""
        return self.path / "checkpoints"

    @property
    def unreadable_checkpoints(self) -> Path:
        """Folder that damaged checkpoints are moved to."""
        return self.path / "unreadable_checkpoints"

    @property
    def lock(self) -> Path:
        """The file that a run locks while it runs."""
        return self.path / ".lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folder.

        Raises:
            UserError: another run is using it, or it cannot be written to.
        """
        with files.locked(self.lock, f"the workdir {self.path}"):
            yield

    def distilled_file(self, name: str) -> Path:
        """The file of the distilled set `name`."""
        return self.distilled_folder / f"{name}.npz"

    def result(self) -> dict[str, Any]:
        """The content of result.json; UserError if it is missing or broken."""
        return _read_json(self.result_file)

    def earlier_result(self) -> dict[str, Any]:
        """The content of result.json; {} if it is missing or broken."""
        try:
            return self.result()
        except UserError:
            return {}

    def write_result(self, content: Mapping[str, Any]) -> None:
        """Writes result.json."""
        files.write_json(self.result_file, content)

    def evaluations(self) -> list[dict[str, Any]]:
        """Rows of `step`, `tested`, `accuracy` (0 to 1), `mse` and, if there are any, `networks`.

        `tested`, the number of images, is missing in older runs. They ascend by step.

        Raises:
            UserError: as `result`.
        """
        return self.result().get("evaluations", [])

    def config(self) -> dict[str, Any]:
        """The configuration, nested; UserError if it is missing or broken."""
        return _read_json(self.config_file)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json."""
        files.write_json(self.config_file, config)

    def history(self, last_step: float = float("inf")) -> list[dict[str, float]]:
        """Rows of history.csv up to `last_step`, each with `step`; [] if there is no such file.

        Rows and entries that cannot be read are left out: the file is only for display.
        """
        try:
            text = self.history_file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return []
        rows = [_numbers(row) for row in csv.DictReader(text.splitlines())]
        return [row for row in rows if "step" in row and row["step"] <= last_step]

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes all rows to history.csv, with a column for each name in them, `step` first."""
        columns = list(dict.fromkeys(("step", *(name for row in rows for name in row))))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.9g}" for name, value in row.items()} for row in rows)
        files.write_bytes_atomic(self.history_file, text.getvalue().encode())

    def distilled(self) -> dict[int, Path]:
        """Files of the sets by evaluated step: those that the index lists and that exist.

        Raises:
            UserError: there is no run, or the index is broken.
        """
        steps = [int(row["step"]) for row in self.evaluations()]
        try:
            with open(self.index, encoding="utf-8", newline="") as file:
                names = {int(row["ckpt"]): row["URL"] for row in csv.DictReader(file)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot read {self.index} ({error}): move it away.") from None
        algorithm = algorithms.known(self.config().get("algorithm", ""))
        published = {step: algorithm.published_step(step) for step in steps}
        listed = [step for step in steps if published[step] in names]
        paths = {step: self.distilled_folder / names[published[step]] for step in listed}
        return {step: path for step, path in paths.items() if path.is_file()}

    def steps_in_names(self) -> list[int]:
        """The steps in the names of the files of sets, listed or not, in order."""
        names = (path.name for path in self.distilled_folder.glob("*.npz"))
        return sorted(int(match[1]) for name in names if (match := STEP_IN_NAME.search(name)))

    def preprocessing(self) -> Preprocess:
        """The preprocessing of the run; UserError if it is missing or broken."""
        return preprocess.from_arrays(files.read_arrays(self.preprocessing_file))

    def write_preprocessing(self, fitted: Preprocess) -> None:
        """Writes preprocess.npz."""
        files.write_arrays(self.preprocessing_file, preprocess.to_arrays(fitted))

    def analysis(self, distilled: Path) -> dict[str, Any] | None:
        """What `write_analysis` wrote on the set in file `distilled`; None if there is nothing."""
        if not self.analysis_file.exists():
            return None
        try:
            arrays: dict[str, Any] = files.read_arrays(self.analysis_file)
            meta = json.loads(str(arrays.pop("meta", "{}")))
        except (UserError, ValueError):
            return None  # It can be computed again.
        same = meta.get("set") == distilled.name and meta.get("checksum") == _checksum(distilled)
        return {**arrays, **meta} if same else None

    def write_analysis(
        self, distilled: Path, findings: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> None:
        """Writes analysis.npz.

        Args:
            distilled: file of the set that was analysed.
            findings: arrays by name.
            facts: JSON values by name: how it was analysed.
        """
        own = {"set": distilled.name, "checksum": _checksum(distilled)}
        meta = np.array(json.dumps({**facts, **own}))
        files.write_arrays(self.analysis_file, {**findings, "meta": meta})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} holds no run (no {path.name}): --workdir names the folder of one."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): move it away.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: move it away.")
    return content


def _numbers(row: Mapping[str | None, str | None]) -> dict[str, float]:
    """The numeric entries of a row; in a cut-off row, names or entries may be None."""
    numbers = {}
    for name, value in row.items():
        try:
            numbers[str(name)] = float(value or "")
        except (TypeError, ValueError):
            continue
    return numbers


def _checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())
