"""The facts of a run's report, read from its folder alone, without data or kernel."""

import importlib
import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kip_flax import algorithms, config, export
from kip_flax.algorithms.base import kind_of_start
from kip_flax.algorithms.interface import Facts as AlgorithmFacts
from kip_flax.data import sampling
from kip_flax.modes.report import sprites
from kip_flax.modes.report.sprites import Frame, FrameChoice
from kip_flax.networks import figures as network_figures
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError

# Frames by path, modification time and palette: each set is encoded once.
Frames = dict[tuple[str, int, bool], Frame]

_HISTORY = 1000  # Most rows of the history in the charts, evenly chosen.


class Score(NamedTuple):
    """Accuracy (0 to 1) and mse on the images of the evaluations."""

    accuracy: float
    mse: float


@dataclass(frozen=True, eq=False)
class RunFacts:
    """One run.

    Attributes:
        workdir: its folder.
        result: content of result.json.
        config, defaults: flat; `defaults` is empty if configs/default.py cannot be imported.
        history: rows of history.csv, at most a thousand.
        class_names: C names.
        image_shape: (H, W, C).
        size: S, images of the support.
        files: step -> path of its distilled set, for all evaluations of `result`.
        choice: the images and steps that the page shows.
        frames: the supports shown, by ascending step; may be empty.
        unprocessed: whether the files lack the preprocessing that pictures have to undo.
        norm_lost: whether the preprocessing lost the norm of each image.
        analysis: findings on the last set (see `runs.analysis`), or None.
    """

    workdir: Path
    result: dict[str, Any]
    config: dict[str, Any]
    defaults: dict[str, Any]
    history: list[dict[str, float]]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    size: int
    files: dict[int, Path]
    choice: FrameChoice
    frames: tuple[Frame, ...]
    unprocessed: bool
    norm_lost: bool
    analysis: dict[str, Any] | None

    @property
    def algorithm(self) -> AlgorithmFacts:
        """The facts that the algorithm states."""
        return algorithms.facts(self.config["algorithm"])

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Rows of `step`, `accuracy` (0 to 1), `mse`, in the order of the steps.

        If networks were trained, also `networks` (see `networks.figures`).
        """
        return self.result["evaluations"]

    @property
    def reached(self) -> list[network_figures.Row]:
        """One row per network trained on the last set, on test images if they were evaluated."""
        return network_figures.outcome(self.evaluations[-1].get("networks", []))

    @property
    def watched(self) -> dict[str, dict[float, network_figures.Row]]:
        """By network and step, its row on validation or held-out images."""
        found: dict[str, dict[float, network_figures.Row]] = {}
        for evaluation in self.evaluations:
            for row in network_figures.watched_rows(evaluation.get("networks", [])):
                found.setdefault(row["network"], {})[evaluation["step"]] = row
        return found

    @property
    def split(self) -> str:
        """The images of the evaluations: 'test' or 'validation'."""
        return str(self.result.get("evaluated_on", "test"))

    @property
    def quoted_workdir(self) -> str:
        """The folder as a shell takes it."""
        return shlex.quote(str(self.workdir))

    @property
    def start(self) -> str:
        """The images that the run began with: 'real', 'noise' or 'set'."""
        return kind_of_start(self.config["support.init"])

    @property
    def running(self) -> bool:
        """Whether the run's status is 'running'."""
        return self.result["status"] == "running"

    @property
    def first_classes(self) -> np.ndarray:
        """The class that each image shown began with; the run must have frames."""
        stated = [frame for frame in self.frames if frame.stated]  # Older files do not say.
        return (stated or self.frames)[0].first_classes

    @property
    def images_changed(self) -> bool:
        """Whether the images differ from the initial ones; at step 0 whether they will.

        The run must have frames.
        """
        if len(self.frames) < 2:
            return self.algorithm.learns_images
        return self.frames[0].png != self.frames[-1].png

    @property
    def labels_changed(self) -> bool:
        """Whether the labels differ from the initial ones; at step 0 whether they will."""
        if len(self.frames) < 2:
            return bool(self.config["support.learn_labels"])
        return not np.array_equal(self.frames[0].labels, self.frames[-1].labels)

    @property
    def labels(self) -> str:
        """'learned', 'fixed' or 'solved'; 'fixed' too where they could be learned and stay."""
        found = algorithms.known(self.config["algorithm"]).labels(
            self.config["support.learn_labels"]
        )
        return found if self.labels_changed or found == "solved" else "fixed"

    @property
    def label_solve(self) -> Score | None:
        """The score of Label Solve on the initial images, or None if not known.

        None also if the run's own algorithm leaves the images as they are.
        """
        if not self.algorithm.learns_images or self.analysis is None:
            return None
        score = Score(*(float(value) for value in self.analysis["solved"]))
        return score if math.isfinite(score.accuracy) else None


def gather(workdir: Path, frames: Frames) -> RunFacts:
    """Reads the folder of a run; `frames` keeps what was read of the distilled sets.

    Raises:
        UserError: it holds no run, no evaluation yet, or a broken file.
    """
    folder = RunFolder(workdir)
    result, flat = folder.result(), config.flatten(folder.config())
    if not result.get("evaluations"):
        raise UserError(f"{workdir} holds no evaluated run yet: wait for its first evaluation.")
    data = result.get("data", {})
    names, shape, size = tuple(data.get("class_names", ())), tuple(data.get("image_shape", ())), 0
    known = {row["step"] for row in result["evaluations"]}  # A run at work may add one.
    files = {step: path for step, path in folder.distilled().items() if step in known}
    choice, last = sprites.NOTHING, None
    if files:
        last = export.load_distilled(files[max(files)])
        names = names or last.class_names
        size, shape = len(last.images), last.images.shape[1:]
        choice = sprites.choose(sorted(files), size, shape, last.labels.shape[1])
    history = folder.history()
    return RunFacts(
        workdir=workdir,
        result=result,
        config=flat,
        defaults=defaults(),
        history=[history[row] for row in sampling.evenly(len(history), _HISTORY)],
        class_names=names,
        image_shape=shape,
        size=size,
        files=files,
        choice=choice,
        frames=tuple(_frame(files[step], step, choice, frames) for step in choice.steps),
        unprocessed=last is not None and last.preprocess is None,
        norm_lost=last is not None and last.norm_is_lost,
        analysis=folder.analysis(files[max(files)]) if files else None,
    )


def defaults() -> dict[str, Any]:
    """Default fields, flat; {} without configs/default.py, which is not part of the package.

    A file of that name may belong to another project.
    """
    try:
        default = importlib.import_module("configs.default")
        fields = config.flatten(default.get_config())
    except Exception:  # noqa: BLE001  (whatever another project's file raises)
        return {}
    return {name: value for name, value in fields.items() if name in config.FIELDS}


def _frame(path: Path, step: int, choice: FrameChoice, frames: Frames) -> Frame:
    key = (str(path), os.stat(path).st_mtime_ns, choice.palette)
    if key not in frames:
        distilled = export.load_distilled(path)
        png = sprites.encode(distilled.pictures()[choice.rows], choice.palette)
        frames[key] = Frame(
            step,
            png,
            distilled.labels[choice.rows],
            distilled.first_classes[choice.rows],
            stated=export.FIRST_CLASSES in distilled.provenance,
        )
    return frames[key]
