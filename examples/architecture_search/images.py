"""The images of a search by their purpose, and the sets that replace the whole."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from configs import default
from examples.architecture_search import clock
from examples.architecture_search.kept import Kept
from examples.architecture_search.space import Search
from kip_flax import data, distill, preprocess
from kip_flax.data import Dataset, Targets
from kip_flax.export import Distilled
from kip_flax.modes.transfer import sets
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.preprocess import Preprocess
from kip_flax.runs import setup

PROXIES = ("distilled", "random", "herding")
WHOLE = "whole"

Loaded = tuple[Dataset, Dataset]  # A data set; the same with held-out images for test images.


@dataclass(frozen=True, eq=False)
class Images:
    """Real images in the space of a distilled set.

    Attributes:
        whole: training images.
        held_out: training images by which the best network is chosen.
        test: test images; every ranking is compared with the one by them.
        mirrorable: see `Dataset`.
    """

    whole: Targets
    held_out: Targets
    test: Targets
    mirrorable: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.whole.images.shape[1:]
        return height, width, channels


def load(search: Search, data_dir: str) -> Loaded:
    """The data set, as it is and with held-out images in place of the test images.

    Raises:
        UserError: its files are missing or damaged.
    """
    dataset = data.load_dataset(search.dataset, data_dir)
    return dataset, data.hold_out(dataset, search.held_out)


def made(search: Search, kind: str, data_dir: str, workdir: Path) -> tuple[Distilled, float]:
    """A set for networks of `kind`, distilled without the held-out images, and its core seconds.

    A run that was begun in `workdir` is resumed; the seconds are those of all parts that were not
    killed.

    Raises:
        UserError: see `distill`.
        KeyboardInterrupt: a signal stopped the run.
    """
    how = search.sets[kind]
    fields = how.fields | {
        "dataset.data_dir": data_dir,
        "dataset.validation": search.held_out,
        "eval.networks": (),
        "eval.steps": (0,),
        "report.num_train": 0,
    }
    kept = Kept(workdir / "core_seconds.json", {})
    earlier = kept.rows.get(kind, {"core_seconds": 0.0, "made": False})
    began, made = clock.now(), False
    try:
        distilled = distill(config=how.get_config(), fields=fields, workdir=str(workdir))
        made = True
    finally:
        if not earlier.get("made", True):  # A finished set is not made again.
            seconds = earlier["core_seconds"] + clock.now() - began
            kept.keep(kind, {"core_seconds": seconds, "made": made})
    return distilled, kept.rows[kind]["core_seconds"]


def prepared(search: Search, loaded: Loaded, distilled: Distilled) -> Images:
    """The images, preprocessed like those of the set.

    Raises:
        UserError: the set does not fit the data set.
    """
    dataset, halved = loaded
    name = distilled.preprocess_name or "standard"
    fitted = setup.preprocessing_of(distilled, default.get_config(), dataset, name)
    keys = jax.random.split(jax.random.key(0))
    parts = (
        (halved.train_images, halved.train_labels, search.whole, keys[0]),
        (halved.test_images, halved.test_labels, search.chosen_on, keys[1]),
        (dataset.test_images, dataset.test_labels, 0, keys[0]),
    )
    whole, held_out, test = (_drawn(fitted, dataset.num_classes, *part) for part in parts)
    return Images(whole, held_out, test, dataset.mirrorable)


def proxies(distilled: Distilled, images: Images, draws: int) -> dict[str, ImageSet]:
    """Sets by name: the distilled one, `draws` random draws of as many images, and herding's."""
    size = len(distilled.images)
    return {
        "distilled": sets.of_file("distilled", distilled),
        "random": sets.random_draws(images.whole, size, draws, jax.random.key(1)),
        "herding": sets.chosen("herding", images.whole, size),
    }


def some(targets: Targets, size: int, key: jax.Array) -> Targets:
    """`size` of the targets, balanced over the classes; all if there are no more, or size is 0."""
    if not 0 < size < len(targets.labels):
        return targets
    rows = data.balanced_draw(targets.labels, size, targets.num_classes, key)
    return Targets(targets.images[rows], targets.labels[rows], targets.num_classes)


def _drawn(
    fitted: Preprocess,
    classes: int,
    pixels: np.ndarray,
    labels: np.ndarray,
    size: int,
    key: jax.Array,
) -> Targets:
    raw = some(Targets(pixels, labels, classes), size, key)
    return Targets(preprocess.apply(fitted, raw.images), raw.labels, classes)
