"""Writes the files of a run: distilled sets with index and picture, results, report.

All processes of a run make the same calls; the first one writes.
"""

import functools
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from kip_flax import algorithms, architectures, data, export, preprocess
from kip_flax import config as config_lib
from kip_flax.data import Dataset
from kip_flax.export import pictures
from kip_flax.networks import figures as network_figures
from kip_flax.preprocess import Preprocess
from kip_flax.runs.folder import RunFolder
from kip_flax.runs.setup import fingerprint
from kip_flax.runtime import hardware, metrics, multihost

Support = tuple[np.ndarray, np.ndarray]
# (folder, awaited): writes the report. With `awaited` it will be written again soon, although the
# run is finished.
WriteReport = Callable[[RunFolder, bool], None]
CHECKSUM = "checksum"  # In `data` of result.json: of the training set, unless it is private.
_SPEED = ("step_ms", "pairs_per_s")


@dataclass(frozen=True, eq=False)
class Exporter:
    """Writes the distilled sets of one run. Writing a set again gives the same content.

    Attributes:
        folder, config: the run's folder and configuration.
        dataset: the run's data set, for names and sizes.
        fitted: its preprocessing.
        initial: images (S, H, W, channels) and labels (S, classes) the run started from.
    """

    folder: RunFolder
    config: ConfigDict
    dataset: Dataset
    fitted: Preprocess
    initial: Support

    def path(self, step: int) -> Path:
        """The file of the set after `step` steps, by its published name."""
        config = self.config
        name = export.distilled_name(
            architectures.published_name(config.kernel.architecture, config.kernel.depth),
            config.support.size,
            config.preprocess,
            algorithms.labels_changed(config.algorithm, config.support.learn_labels, step),
            bool(config.augment),
            algorithms.published_step(config.algorithm, step),
        )
        return self.folder.distilled_file(name)

    def write(
        self,
        step: int,
        support: Support,
        measures: Mapping[str, float],
        rows: Sequence[network_figures.Row] = (),
    ) -> dict[str, np.ndarray]:
        """Writes the set after `step` steps, its row of the index, and the picture of the run.

        Args:
            step: steps taken.
            support: images (S, H, W, channels) and labels (S, classes).
            measures: `accuracy` (0 to 1) and `mse`.
            rows: accuracies of networks, see `networks.figures`.

        Returns:
            Pictures `images` and `labels` (H, W, 3) in 0..1 for the metric writer.

        Raises:
            UserError: a file cannot be written, or the existing index is broken.
        """
        images, labels = support
        export.write_distilled(
            self.path(step),
            images,
            labels,
            export.Description(
                self.fitted,
                self.dataset.class_names,
                _kernel_options(self.config),
                self._provenance(step, measures, rows),
            ),
        )
        export.update_index(self.folder.index, self._index_row(step, measures, rows))
        names = self.dataset.class_names
        grid = pictures.draw_image_grid(
            preprocess.invert(self.fitted, self.initial[0]),
            preprocess.invert(self.fitted, images),
            self.initial[1],
            labels,
            names,
        )
        pictures.write_png(self.folder.picture, grid)
        bars = pictures.draw_label_bars(labels, names)
        return {"images": _as_floats(grid), "labels": _as_floats(bars)}

    def _provenance(
        self, step: int, measures: Mapping[str, float], rows: Sequence[network_figures.Row]
    ) -> dict[str, Any]:
        split = self.dataset.split
        of_networks = {"networks": list(rows)} if rows else {}
        return {
            "dataset": self.dataset.name,
            "step": step,
            f"{split}_accuracy": measures["accuracy"],
            f"{split}_mse": measures["mse"],
            **of_networks,
            **self.privacy(step),
            export.FIRST_CLASSES: self._first_classes.tolist(),
            "config": config_lib.identity(self.config),
            "versions": hardware.versions(),
        }

    @functools.cached_property
    def _first_classes(self) -> np.ndarray:
        """The class that each image began with; for those of a file, the ones that it states.

        A run that goes on asks its own set of step 0, as the file may be gone.
        """
        files = [self.path(0)]
        if config_lib.from_a_file(self.config):
            files.append(Path(self.config.support.init).expanduser())
        there = [file for file in files if file.is_file()]
        if there:
            return export.load_distilled(there[0]).first_classes
        return np.argmax(self.initial[1], axis=1)

    def privacy(self, step: int) -> dict[str, Any]:
        """{'privacy': the privacy statement of the set after `step` steps}; {} if it has none."""
        train_size = len(self.dataset.train_labels)
        declared = algorithms.declared(self.config, train_size, step)
        return {"privacy": declared} if declared else {}

    def _index_row(
        self, step: int, measures: Mapping[str, float], rows: Sequence[network_figures.Row]
    ) -> dict[str, Any]:
        config = self.config
        reached = [row["mean"] for row in network_figures.watched_rows(rows)[:1]]
        tested = self.dataset.split == "test"  # The published columns are for test images.
        return {
            "architecture": architectures.published_name(
                config.kernel.architecture, config.kernel.depth
            ),
            "dataset": self.dataset.name,
            "ssize": config.support.size,
            "zca": config.preprocess.startswith("zca"),
            "l": algorithms.labels_changed(config.algorithm, config.support.learn_labels, step),
            "aug": bool(config.augment),
            "ckpt": algorithms.published_step(config.algorithm, step),
            "test_acc": f"{measures['accuracy']:.6g}" if tested else "",
            "test_mse": f"{measures['mse']:.6g}" if tested else "",
            "URL": self.path(step).name,
            "network_acc": "".join(f"{mean:.6g}" for mean in reached if mean is not None),
        }


class Recorder:
    """Records the measurements of a run: result.json, history.csv, TensorBoard, report.

    Args:
        exporter: writes the distilled sets.
        writer: writes TensorBoard's files.
        write_report: writes the report from the files in the folder.
        resumed: step of the checkpoint that the run resumes from, None for a new run; earlier
            records of later steps are dropped.
        seconds: seconds of the run up to that checkpoint; 0 if it does not say.
    """

    def __init__(
        self,
        exporter: Exporter,
        writer: metrics.Writer,
        write_report: WriteReport,
        resumed: int | None,
        seconds: float = 0.0,
    ):
        self.exporter, self.folder = exporter, exporter.folder
        self.split = exporter.dataset.split
        self._writer, self._write_report = writer, write_report
        self._writes, self._status = multihost.is_first(), "running"
        earlier = {} if resumed is None else self.folder.earlier_result()
        self._seconds = max(seconds, float(earlier.get("seconds", 0.0)))
        self._began = time.perf_counter()
        self._evaluations: list[dict[str, Any]] = [
            row for row in earlier.get("evaluations", []) if row["step"] <= (resumed or 0)
        ]
        self._history = [] if resumed is None else self.folder.history(resumed)
        self._data = _sizes(exporter.dataset, exporter.config.eval.num_test)
        if exporter.privacy(0):  # It would tell whether one image is in a known training set.
            del self._data[CHECKSUM]

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return self._status == "finished"

    @property
    def seconds(self) -> float:
        """Seconds of the run so far, summed over its parts, without their starts."""
        return self._seconds + time.perf_counter() - self._began

    def has(self, step: int, on: Sequence[str] = ()) -> bool:
        """Whether there is an evaluation after `step` steps, with networks on the images `on`.

        `on`: kinds of images, see `networks.figures`.
        """
        found = (row for row in self._evaluations if row["step"] == step)
        return any(set(on) <= {one["on"] for one in row.get("networks", [])} for row in found)

    def evaluation(
        self,
        step: int,
        support: Support,
        measures: Mapping[str, float],
        rows: Sequence[network_figures.Row] = (),
    ) -> None:
        """Writes the distilled set after `step` steps and records its evaluation.

        Args and Raises as in `Exporter.write`.
        """
        with multihost.raise_everywhere():
            shown = self.exporter.write(step, support, measures, rows) if self._writes else {}
            earlier = [row for row in self._evaluations if row["step"] < step]
            of_networks = {"networks": list(rows)} if rows else {}
            self._evaluations = [*earlier, {"step": step, **measures, **of_networks}]
            scalars = {f"{self.split}_{name}": value for name, value in measures.items()}
            if found := network_figures.scalars(rows):
                self._add_to_history(step, found)
            self._write_result("running", {})
            self._writer.write_scalars(step, scalars | found)
            self._writer.write_images(step, shown)

    def go_on(self) -> None:
        """Says that a run is at work again which was stopped, finished or killed."""
        with multihost.raise_everywhere():
            self._write_result("running", {})

    def _add_to_history(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds the metrics of an evaluation to the history row of its step."""
        if self._history and self._history[-1]["step"] == step:
            self._history[-1] |= figures
        else:
            self._history.append({"step": step, **figures})

    def progress(
        self, step: int, measured: Mapping[str, float], figures: Mapping[str, float]
    ) -> None:
        """Records the metrics of step `step` and the `figures` of the stopwatch."""
        speed = {name: figures[name] for name in _SPEED if name in figures}
        self._history.append({"step": step, **measured, **speed})
        with multihost.raise_everywhere():
            self._writer.write_scalars(step, {**measured, **figures})

    def write_history(self) -> None:
        """Writes history.csv. Call it before a checkpoint, so that a kill loses no row."""
        with multihost.raise_everywhere():
            self._write_history()

    def end(
        self, status: str, figures: Mapping[str, float], time_limit: float | None = None
    ) -> dict[str, Any]:
        """Writes the result with `status`, 'stopped' or 'finished', history and report.

        Args:
            status: how the run ends.
            figures: those of the stopwatch; empty if no step was taken.
            time_limit: hours, if they ended the run before its last step; else None.

        Returns:
            The content of result.json.
        """
        with multihost.raise_everywhere():
            return self._write_result(status, figures, time_limit)

    def report(self) -> None:
        """Writes the report of a finished run from all files in the folder."""
        with multihost.raise_everywhere():
            if self._writes:
                self._write_report(self.folder, False)

    def _write_result(
        self, status: str, figures: Mapping[str, float], time_limit: float | None = None
    ) -> dict[str, Any]:
        self._status = status
        content = {
            "status": status,
            **({} if time_limit is None else {"ended_by_time_limit": time_limit}),
            "evaluated_on": self.split,
            "evaluations": self._evaluations,
            **self._best(),
            **self._privacy(),
            "seconds": round(self.seconds, 3),
            **{name: round(figures[name], 3) for name in _SPEED if figures},
            "data": self._data,
            "hardware": hardware.hardware(),
            "command": shlex.join(sys.argv),
            "versions": hardware.versions(),
        }
        if self._writes:
            self.folder.write_result(content)
            self._write_history()
            if self._evaluations:
                analysed = self.exporter.config.report.num_train > 0
                self._write_report(self.folder, status == "finished" and analysed)
        return content

    def _best(self) -> dict[str, Any]:
        """The evaluation that held-out images choose, the earliest of equals; {} if none do.

        Networks choose among sets that are made for networks, the kernel among others. Networks
        that were trained otherwise, before a resume changed `transfer`, do not compete.
        """
        scored = [(row, self._score(row)) for row in self._evaluations]
        known = [(row, score) for row, score in scored if score is not None]
        if not known:
            return {}
        if self._for_networks:
            judge = _judge(known[-1][0])
            known = [(row, score) for row, score in known if _judge(row) == judge]
        row, accuracy = max(known, key=lambda pair: pair[1])
        step = row["step"]
        by = "networks" if self._for_networks else "kernel"
        name = self.exporter.path(step).name
        return {"best": {"step": step, "accuracy": accuracy, "by": by, "set": name}}

    def _score(self, evaluation: Mapping[str, Any]) -> float | None:
        """The accuracy on held-out images that chooses the set; None if it was not measured."""
        if self._for_networks:
            return network_figures.watched_mean(evaluation.get("networks", []))
        return None if self.split == "test" else evaluation["accuracy"]

    @property
    def _for_networks(self) -> bool:
        return algorithms.facts(self.exporter.config.algorithm).for_networks

    def _privacy(self) -> dict[str, Any]:
        """The privacy statement of the last set, whose steps include those of all others."""
        return self.exporter.privacy(self._evaluations[-1]["step"]) if self._evaluations else {}

    def _write_history(self) -> None:
        if self._writes:
            self.folder.write_history(self._history)


def _judge(evaluation: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """How the networks that watch a set were trained; rows of older runs say it in words alone."""
    rows = network_figures.watched_rows(evaluation.get("networks", []))
    return sorted(
        (
            row["network"],
            row["on"],
            str(row.get("width")),
            str(row.get("training", row.get("recipe"))),
        )
        for row in rows
    )


def _sizes(dataset: Dataset, num_test: int) -> dict[str, Any]:
    """Names and sizes of the data; `tested` is the number of test images evaluated on."""
    return {
        "name": dataset.name,
        "train": len(dataset.train_labels),
        "test": len(dataset.test_labels),
        "tested": len(data.test_subset(dataset, num_test)[1]),
        "image_shape": list(dataset.image_shape),
        "class_names": list(dataset.class_names),
        CHECKSUM: fingerprint(dataset),
    }


def _kernel_options(config: ConfigDict) -> dict[str, Any]:
    """Arguments of `architectures.build` and `kernels.make_kernel`, but the implementation."""
    options = {k: v for k, v in config.kernel.items() if k not in ("kind", "implementation")}
    return {**options, "get": config.kernel.kind}


def _as_floats(picture: Image.Image) -> np.ndarray:
    """Pixels 0..255 as the floats (H, W, C) in 0..1 that TensorBoard takes."""
    return np.asarray(picture, np.float32) / 255
