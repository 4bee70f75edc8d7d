"""The figure in three rows: natural images, and what they became with labels fixed and solved for.

python -m results.rows --data=data   draws docs/mnist_rows.png from the sets in results/
"""

import argparse
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import default
from kip_flax import config as config_lib
from kip_flax import data, export, preprocess
from kip_flax.modes.figures.draw import ShownSet, rendered, rows_figure
from kip_flax.runs import setup
from kip_flax.runtime import files
from kip_flax.runtime.errors import in_one_line
from results import record

FOLDER = Path(__file__).resolve().parent
FIGURE = FOLDER.parent / "docs" / "mnist_rows.png"
_FIXED, _LEARNED = "kip_newton_mnist_10_fixed", "kip_newton_mnist_10"


def main(argv: list[str] | None = None) -> None:
    """Draws the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with the data set's files")
    args = parser.parse_args(argv)
    with in_one_line():
        shown = three(_FIXED, _LEARNED, args.data)
    figure = rows_figure(shown, tuple(map(str, range(10))))
    files.write_bytes_atomic(FIGURE, rendered(figure, "png"))


def three(fixed: str, learned: str, data_dir: str = "") -> list[ShownSet]:
    """Three rows: the draw that both experiments began with, labels fixed, labels solved for."""
    return [
        _natural(fixed, data_dir),
        _distilled(fixed, "KIP, labels fixed"),
        _distilled(learned, "KIP, labels solved for"),
    ]


def _natural(name: str, data_dir: str) -> ShownSet:
    figures = record.read(FOLDER / name)
    # Fields that are newer than the run get their defaults.
    fields = config_lib.flatten(default.get_config()) | config_lib.flatten(figures["config"])
    config = ConfigDict(config_lib.unflatten(fields))
    config.dataset.data_dir = data_dir
    dataset = setup.load(config)
    fitted = setup.preprocessing_of(_set(name), config, dataset, config.preprocess)
    training = preprocess.apply(fitted, dataset.train_images)
    targets = data.Targets(training, dataset.train_labels, dataset.num_classes)
    drawn = setup.first_support(config, targets, setup.keys(config)[0])
    images, labels = map(np.asarray, drawn)
    pictures = preprocess.invert(fitted, images)
    accuracy = figures["draws"][0]["initial"]["accuracy"]
    classes = labels.argmax(axis=1)
    return ShownSet("natural images", pictures, labels, classes, accuracy, False, 0)


def _distilled(name: str, title: str) -> ShownSet:
    draw, distilled = record.read(FOLDER / name)["draws"][0], _set(name)
    pictures = distilled.pictures().clip(0, 1)
    labels, classes = distilled.labels, distilled.first_classes
    accuracy, step = draw["final"]["accuracy"], draw["step"]
    stated = export.FIRST_CLASSES in distilled.provenance
    return ShownSet(title, pictures, labels, classes, accuracy, False, step, stated)


def _set(name: str) -> export.Distilled:
    return export.load_distilled(FOLDER / name / record.read(FOLDER / name)["set"])


if __name__ == "__main__":
    main()
