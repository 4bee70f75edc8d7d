"""`--mode=predict`: a trained network, or a distilled set, predicts the classes of pictures."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kip_flax import kernels, networks
from kip_flax.data import readers
from kip_flax.data.predictions import Classifier, Predictions
from kip_flax.export import predictor
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files
from kip_flax.runtime.console import Console, count
from kip_flax.runtime.errors import UserError

FILE = "predictions.csv"
UNREADABLE = 4  # Exit code if some pictures could not be read.
_PART = 1000  # Pictures in memory at once.


def load_network(folder: str, console: Console) -> Classifier:
    """The network that `--mode=transfer` left in a folder; UserError if there is none."""
    del console
    return networks.load(folder)


def load_set(path: str, console: Console) -> Classifier:
    """The distilled set in a file, its kernel compiled.

    Raises:
        UserError: as of `predictor.load`, or the set is not of pictures.
    """
    found = predictor.load(path)
    _check_takes_pictures(found)  # Compiling may take a minute.
    kernels.warm_up(found.options, console.say)
    return found


def find_pictures(pictures: str) -> tuple[Path, list[Path]]:
    """The folder `pictures`, and the pictures in it and below; UserError if there are none."""
    root = Path(pictures).expanduser()
    return root, readers.pictures_below(root)


def predict_pictures(
    classifier: Classifier, pictures: str, workdir: str, console: Console | None = None
) -> int:
    """Writes predictions.csv into `workdir`: file, class, and the score of every class.

    Pictures lie in the folder `pictures` or in folders below it. They are turned upright, cropped
    to a square and resized like those of `dataset.name='folder'`, and made grey where the
    classifier takes grey images. Those that cannot be read are listed on stderr and left out.

    Returns:
        The number of rows.

    Raises:
        UserError: there is no picture or none that can be read; the classifier takes images that
            are not square, grey or RGB; or the file cannot be written.
        SystemExit: code `UNREADABLE` if some could not be read; the others have their rows.
    """
    console = console or Console()
    _check_takes_pictures(classifier)
    root, paths = find_pictures(pictures)
    folder = RunFolder.make(workdir)
    table, number = io.StringIO(), 0
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "class", *(f"score of {name}" for name in classifier.class_names)])
    unreadable: list[str] = []
    for start in range(0, len(paths), _PART):
        read, images = _read(paths[start : start + _PART], classifier, unreadable)
        if read:
            names = [path.relative_to(root).as_posix() for path in read]
            writer.writerows(_rows(names, classifier.predict(images)))
            number += len(read)
        console.progress(f"picture {min(len(paths), start + _PART)}/{len(paths)}")
    for message in unreadable:
        print(f"error: {message}", file=sys.stderr)
    if not number:
        raise UserError(f"none of the {len(paths)} pictures in {root} can be read: see above.")
    path = folder.path / FILE
    # Names as the disk has them.
    files.write_bytes_atomic(path, table.getvalue().encode(errors="surrogateescape"))
    console.outcome(f"{count(number)} pictures, {path}")
    if unreadable:
        sys.exit(UNREADABLE)
    return number


def _check_takes_pictures(classifier: Classifier) -> None:
    height, width, channels = classifier.image_shape
    if height != width or channels not in (1, 3):
        raise UserError(
            f"network or set takes images {classifier.image_shape}, which pictures are not made "
            f"into: call its predict with arrays (kip_flax.networks.load, export.predictor.load)."
        )


def _read(
    paths: list[Path], classifier: Classifier, unreadable: list[str]
) -> tuple[list[Path], np.ndarray]:
    """Paths and pixels, uint8 (n, H, W, C), of readable pictures; errors go to `unreadable`."""
    height, _, channels = classifier.image_shape

    def read_one(path: Path) -> np.ndarray | str:
        try:
            return readers.read_picture(path, height, grey=channels == 1)
        except UserError as error:
            return str(error)

    found = readers.side_by_side(read_one, paths)
    unreadable += [one for one in found if isinstance(one, str)]
    images = [one for one in found if not isinstance(one, str)]
    read = [path for path, one in zip(paths, found, strict=True) if not isinstance(one, str)]
    return read, np.stack(images) if images else np.zeros((0, *classifier.image_shape), np.uint8)


def _rows(names: list[str], predictions: Predictions) -> Iterator[list[str]]:
    for name, predicted, scores in zip(names, predictions.names, predictions.scores, strict=True):
        yield [name, predicted, *(f"{score:.6g}" for score in scores)]
