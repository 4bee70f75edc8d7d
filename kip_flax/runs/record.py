"""What a run leaves in its folder: distilled sets with index, picture, figures, report."""

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from kip_flax import architectures, export, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms.base import Support
from kip_flax.data import Dataset, test_subset
from kip_flax.export import pictures
from kip_flax.modes.report import write as report
from kip_flax.preprocess import Preprocess
from kip_flax.runs import history
from kip_flax.runtime import files, hardware

RESULT = "result.json"
PICTURE = "images.png"
DISTILLED = "distilled"


class Recorder:
    """Writes the artefacts of one run. Written again, they come out the same.

    Args:
        workdir: folder of the run.
        config: of the run.
        dataset: for names.
        fitted: its preprocessing.
        initial: images (S, H, W, C) and labels (S, classes) the run started from.
        resumed: step of the checkpoint that the run goes on from, None for a new run; what an
            earlier `result.json` says of later steps is dropped.
        writes: False for the processes of a run that leave writing to another.
    """

    def __init__(
        self,
        workdir: str,
        config: ConfigDict,
        dataset: Dataset,
        fitted: Preprocess,
        initial: Support,
        resumed: int | None,
        writes: bool = True,
    ):
        self._writes = writes
        self.workdir, self.split = workdir, dataset.split
        self._config, self._dataset = config, dataset
        self._fitted, self._initial = fitted, (np.asarray(initial[0]), np.asarray(initial[1]))
        before = {} if resumed is None else _read_result(os.path.join(workdir, RESULT))
        self._seconds = float(before.get("seconds", 0.0))
        self._began = time.perf_counter()
        self._evaluations: list[dict[str, float]] = [
            row for row in before.get("evaluations", []) if row["step"] <= (resumed or 0)
        ]
        self._history = [] if resumed is None else history.read(workdir, resumed)
        self._data = _sizes(dataset, config.eval.num_test)
        self._frames: report.Frames = {}

    def distilled_path(self, step: int) -> str:
        """Where the set after `step` steps is written: the published name."""
        config = self._config
        name = export.distilled_name(
            architectures.published_name(config.kernel.architecture, config.kernel.depth),
            config.support.size,
            config.preprocess,
            _labels_differ(config, step),
            bool(config.augment),
            _checkpoint_number(config, step),
        )
        return os.path.join(self.workdir, DISTILLED, f"{name}.npz")

    def evaluation(
        self, step: int, images: np.ndarray, labels: np.ndarray, measures: dict[str, float]
    ) -> dict[str, np.ndarray]:
        """Writes the distilled set after `step` steps, its row, the picture and `result.json`.

        Args:
            step: steps taken.
            images, labels: the support, (S, H, W, C) and (S, classes).
            measures: test `accuracy` (0 to 1) and `mse`.

        Returns:
            Pictures (H, W, 3) in 0..1 for the metric writer; none where another process writes.
        """
        shown = self._write_set(step, images, labels, measures) if self._writes else {}
        rows = [row for row in self._evaluations if row["step"] < step]
        self._evaluations = [*rows, {"step": step, **measures}]
        self.result("running")
        return shown

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Keeps what step `step` measured, for `write_history`."""
        self._history.append({"step": step, **scalars})

    def write_history(self) -> None:
        """Writes history.csv; for before a checkpoint, so that no row is missing after a kill."""
        if self._writes:
            history.write(self.workdir, self._history)

    def _write_set(
        self, step: int, images: np.ndarray, labels: np.ndarray, measures: dict[str, float]
    ) -> dict[str, np.ndarray]:
        export.write_distilled(
            self.distilled_path(step),
            images,
            labels,
            export.Description(
                self._fitted,
                self._dataset.class_names,
                _kernel_options(self._config),
                self._provenance(step, measures),
            ),
        )
        export.update_index(
            os.path.join(self.workdir, DISTILLED, "index.csv"), self._index_row(step, measures)
        )
        names = self._dataset.class_names
        grid = pictures.draw_image_grid(
            preprocess.invert(self._fitted, self._initial[0]),
            preprocess.invert(self._fitted, images),
            self._initial[1],
            labels,
            names,
        )
        pictures.write_png(os.path.join(self.workdir, PICTURE), grid)
        bars = pictures.draw_label_bars(labels, names)
        return {"images": _as_floats(grid), "labels": _as_floats(bars)}

    def result(self, status: str, **figures: float) -> dict[str, Any]:
        """Writes `result.json` with `status` ('running', 'stopped', 'finished'), and returns it.

        history.csv and the report go with it.
        """
        seconds = self._seconds + time.perf_counter() - self._began
        content = {
            "status": status,
            "evaluated_on": self.split,
            "evaluations": self._evaluations,
            "seconds": round(seconds, 3),
            **figures,
            "data": self._data,
            "hardware": hardware.hardware(),
            "command": shlex.join(sys.argv),
            "versions": hardware.versions(),
        }
        if self._writes:
            files.write_json(os.path.join(self.workdir, RESULT), content)
            self.write_history()
            if self._evaluations:
                self.report(awaited=status == "finished" and self._config.report.num_train > 0)
        return content

    def report(self, awaited: bool = False) -> None:
        """Writes report.html from what lies in the folder; `awaited` as in `report.write`."""
        if self._writes:
            report.write(Path(self.workdir), self._frames, awaited)

    def _provenance(self, step: int, measures: dict[str, float]) -> dict[str, Any]:
        return {
            "dataset": self._dataset.name,
            "step": step,
            f"{self.split}_accuracy": measures["accuracy"],
            f"{self.split}_mse": measures["mse"],
            "config": config_lib.identity(self._config),
            "versions": hardware.versions(),
        }

    def _index_row(self, step: int, measures: dict[str, float]) -> dict[str, Any]:
        config = self._config
        name = architectures.published_name(config.kernel.architecture, config.kernel.depth)
        tested = self.split == "test"  # The published columns know of no other images.
        return {
            "architecture": name,
            "dataset": self._dataset.name,
            "ssize": config.support.size,
            "zca": config.preprocess.startswith("zca"),
            "l": _labels_differ(config, step),
            "aug": bool(config.augment),
            "ckpt": _checkpoint_number(config, step),
            "test_acc": f"{measures['accuracy']:.6g}" if tested else "",
            "test_mse": f"{measures['mse']:.6g}" if tested else "",
            "URL": os.path.basename(self.distilled_path(step)),
        }


def _sizes(dataset: Dataset, num_test: int) -> dict[str, Any]:
    """What a reader of the figures wants to know of the data; `tested` is how many are tested."""
    return {
        "name": dataset.name,
        "train": len(dataset.train_labels),
        "test": len(dataset.test_labels),
        "tested": len(test_subset(dataset, num_test)[1]),
        "image_shape": list(dataset.image_shape),
        "class_names": list(dataset.class_names),
    }


def _kernel_options(config: ConfigDict) -> dict[str, Any]:
    """What `architectures.build` and `kernels.make_kernel` take, without the implementation."""
    options = {k: v for k, v in config.kernel.items() if k not in ("kind", "implementation")}
    return {**options, "get": config.kernel.kind}


def _labels_differ(config: ConfigDict, step: int) -> bool:
    """Whether a set carries other labels than its images came with."""
    return step > 0 if config.algorithm == "ls" else config.support.learn_labels


def _checkpoint_number(config: ConfigDict, step: int) -> int:
    """The number in a set's name: the steps; Label Solve takes one, of many tiles."""
    return min(step, 1) if config.algorithm == "ls" else step


def _read_result(path: str) -> dict[str, Any]:
    """The result of an earlier part of the run; empty if there is none to read."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _as_floats(picture: Image.Image) -> np.ndarray:
    """Pixels 0..255 as the floats (H, W, C) in 0..1 that TensorBoard takes."""
    return np.asarray(picture, np.float32) / 255
