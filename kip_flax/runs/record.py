"""Writes what a run measures: result.json, history.csv, TensorBoard, and the report.

All processes of a run make the same calls; the first one writes.
"""

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kip_flax import algorithms, data
from kip_flax.data import Dataset
from kip_flax.networks import figures as network_figures
from kip_flax.runs.exporter import Exporter, SupportArrays
from kip_flax.runs.folder import RunFolder
from kip_flax.runs.setup import fingerprint, fingerprint_of_tests
from kip_flax.runtime import hardware, metrics, multihost

# (folder, awaited): writes the report. With `awaited` it will be written again soon, although the
# run is finished.
WriteReport = Callable[[RunFolder, bool], None]
CHECKSUM = "checksum"  # In `data` of result.json: of the training set, unless it is private.
TESTS_CHECKSUM = "tests_checksum"  # There too: of what the run is tested on.
_SPEED = ("step_ms", "pairs_per_s")
_TESTED = "tested"  # The number of images of an evaluation.


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
        tested = earlier.get("data", {}).get(_TESTED)  # Older rows do not say it themselves.
        self._evaluations: list[dict[str, Any]] = [
            {_TESTED: tested, **row}
            for row in earlier.get("evaluations", [])
            if row["step"] <= (resumed or 0)
        ]
        self._history = [] if resumed is None else self.folder.history(resumed)
        self._data = _sizes(exporter.dataset, exporter.config.eval.num_test)
        if exporter.privacy(0):  # They would tell whether one image is in a known data set.
            del self._data[CHECKSUM], self._data[TESTS_CHECKSUM]

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
        support: SupportArrays,
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
            tested = {_TESTED: self._data[_TESTED]}
            self._evaluations = [*earlier, {"step": step, **tested, **measures, **of_networks}]
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
            figures: those of the stopwatch; empty before the second step of a part.
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

        Networks choose among sets that are made for networks, the kernel among others. What was
        judged otherwise does not compete: by networks of another training, or on other images,
        before a resume changed `transfer` or `eval.num_test`.
        """
        scored = [(row, self._score(row)) for row in self._evaluations]
        known = [(row, score) for row, score in scored if score is not None]
        if not known:
            return {}
        judge = _judge if self._for_networks else _tested
        last = judge(known[-1][0])
        known = [(row, score) for row, score in known if judge(row) == last]
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


def _tested(evaluation: Mapping[str, Any]) -> int:
    """The number of images that the kernel was tested on."""
    return evaluation[_TESTED]


def _sizes(dataset: Dataset, num_test: int) -> dict[str, Any]:
    """Names and sizes of the data; `tested` is the number of test images evaluated on."""
    return {
        "name": dataset.name,
        "train": len(dataset.train_labels),
        "test": len(dataset.test_labels),
        _TESTED: len(data.test_subset(dataset, num_test)[1]),
        "image_shape": list(dataset.image_shape),
        "class_names": list(dataset.class_names),
        CHECKSUM: fingerprint(dataset),
        TESTS_CHECKSUM: fingerprint_of_tests(dataset),
    }
