"""Writes the distilled sets of a run, with their index and the picture."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from kip_flax import algorithms, architectures, export, preprocess
from kip_flax import config as config_lib
from kip_flax.data import Dataset
from kip_flax.export import pictures
from kip_flax.networks import figures as network_figures
from kip_flax.preprocess import Preprocess
from kip_flax.runs import setup
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import hardware

SupportArrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Exporter:
    """Writes the distilled sets of one run. Writing a set again gives the same content.

    Attributes:
        folder, config: the run's folder and configuration.
        dataset: the run's data set, for names and sizes.
        fitted: its preprocessing.
        initial: images (S, H, W, channels) and labels (S, classes) the run started from.
        resumed: whether sets in the folder are of an earlier part of this run.
    """

    folder: RunFolder
    config: ConfigDict
    dataset: Dataset
    fitted: Preprocess
    initial: SupportArrays
    resumed: bool = False

    def path(self, step: int) -> Path:
        """The file of the set after `step` steps, by its published name."""
        config, algorithm = self.config, algorithms.find(self.config.algorithm)
        name = export.distilled_name(
            architectures.published_name(config.kernel.architecture, config.kernel.depth),
            config.support.size,
            config.preprocess,
            algorithm.labels_changed(config.support.learn_labels, step),
            bool(config.augment),
            algorithm.published_step(step),
        )
        return self.folder.distilled_file(name)

    def write(
        self,
        step: int,
        support: SupportArrays,
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
                setup.kernel_fields(self.config),
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
        files = [self.path(0)] if self.resumed else []
        if config_lib.from_a_file(self.config):
            files.append(Path(self.config.support.init).expanduser())
        there = [file for file in files if file.is_file()]
        if there:
            return export.load_distilled(there[0]).first_classes
        return np.argmax(self.initial[1], axis=1)

    def privacy(self, step: int) -> dict[str, Any]:
        """{'privacy': the privacy statement of the set after `step` steps}; {} if it has none."""
        train_size = len(self.dataset.train_labels)
        declared = algorithms.find(self.config.algorithm).declared(self.config, train_size, step)
        return {"privacy": declared} if declared else {}

    def _index_row(
        self, step: int, measures: Mapping[str, float], rows: Sequence[network_figures.Row]
    ) -> dict[str, Any]:
        config, algorithm = self.config, algorithms.find(self.config.algorithm)
        reached = [row["mean"] for row in network_figures.watched_rows(rows)[:1]]
        tested = self.dataset.split == "test"  # The published columns are for test images.
        return {
            "architecture": architectures.published_name(
                config.kernel.architecture, config.kernel.depth
            ),
            "dataset": self.dataset.name,
            "ssize": config.support.size,
            "zca": config.preprocess.startswith("zca"),
            "l": algorithm.labels_changed(config.support.learn_labels, step),
            "aug": bool(config.augment),
            "ckpt": algorithm.published_step(step),
            "test_acc": f"{measures['accuracy']:.6g}" if tested else "",
            "test_mse": f"{measures['mse']:.6g}" if tested else "",
            "URL": self.path(step).name,
            "network_acc": "".join(f"{mean:.6g}" for mean in reached if mean is not None),
        }


def _as_floats(picture: Image.Image) -> np.ndarray:
    """Pixels 0..255 as the floats (H, W, C) in 0..1 that TensorBoard takes."""
    return np.asarray(picture, np.float32) / 255
