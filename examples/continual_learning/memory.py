"""The memory of the classes seen so far: real images, or distilled ones.

A step adds the same number of images of each of its classes, made from its own training images, and
removes nothing. So the memory after a step is the beginning of the memory after the last one.
Images are kept as pixels, because each distilled set has a preprocessing that was fitted on its own
two classes, and the learners have another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from examples.continual_learning.settings import Method, Setting
from examples.continual_learning.stream import CLASSES_A_STEP, HELD_OUT, Stream
from kip_flax import data, distill, preprocess
from kip_flax.data import Dataset, coresets
from kip_flax.export import Distilled
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Watch

Part = tuple[np.ndarray, np.ndarray]  # What a step adds: pixels (n, H, W, C), labels (n,) 0 or 1.


@dataclass(frozen=True, eq=False)
class Memory:
    """The memory after the last step: the images that the steps added, in order.

    Attributes:
        pixels: (n, H, W, C) float32, about 0 to 1; learned ones are not clipped.
        labels: (n,), the classes as `Stream` numbers them.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def after(self, steps: int) -> int:
        """The number of images after `steps` steps."""
        return int(np.sum(self.labels < CLASSES_A_STEP * steps))


def joined(parts: list[Part]) -> Memory:
    """The parts that the steps added, as one memory."""
    labels = [labels + CLASSES_A_STEP * step for step, (_, labels) in enumerate(parts)]
    return Memory(np.concatenate([pixels for pixels, _ in parts]), np.concatenate(labels))


def real_images(name: str, stream: Stream, per_class: int) -> Memory:
    """A memory of training images: `name` is 'random', or one of `coresets.CORESETS`.

    Coresets are chosen by the images as preprocessed for the learners.
    """
    size = CLASSES_A_STEP * per_class
    key = jax.random.key(stream.number)
    parts = []
    for number, step in enumerate(stream.steps):
        labels, classes = step.train_labels, step.num_classes
        if name == "random":
            rows = data.balanced_draw(labels, size, classes, jax.random.fold_in(key, number))
        else:
            images = preprocess.apply(stream.fitted, step.train_images)
            rows = coresets.CORESETS[name](images, labels, size, classes)
        parts.append((step.train_images[rows].astype(np.float32) / 255, labels[rows]))
    return joined(parts)


@dataclass(frozen=True)
class Distiller:
    """Distils the classes of a step; a set that is there is not made again.

    Attributes:
        setting: the settings of the data set.
        data_dir: folder of its files.
        folder: folder of the runs.
        held_out: leave out the held-out training images.
    """

    setting: Setting
    data_dir: str
    folder: Path
    held_out: bool

    def memory(self, name: str, stream: Stream, per_class: int, watch: Watch) -> Memory:
        """The memory of the sets that the method `name` distils, one for each step.

        Raises:
            KeyboardInterrupt, Stopped: a signal came in a run, or between two: call it again.
            UserError: the data or the folder do not fit, or pixels cannot be recovered.
        """
        make = self._maker(name, self.setting.methods[name], per_class)
        parts = []
        for pair, step in zip(stream.pairs, stream.steps, strict=True):
            watch.check()
            parts.append(as_part(make(pair), step))
        return joined(parts)

    def _maker(
        self, name: str, method: Method, per_class: int
    ) -> Callable[[tuple[int, int]], Distilled]:
        def make(pair: tuple[int, int]) -> Distilled:
            workdir = self.folder / f"{name}_{per_class}_classes_{pair[0]}_{pair[1]}"
            own = {
                "dataset.data_dir": self.data_dir,
                "dataset.classes": pair,
                "dataset.validation": HELD_OUT if self.held_out else 0.0,
                "support.size": CLASSES_A_STEP * per_class,
            }
            fields = method.changes | own
            return distill(config=method.get_config(), fields=fields, workdir=str(workdir))

        return make


def as_part(distilled: Distilled, step: Dataset) -> Part:
    """The part that a step adds: the pixels of its distilled set, and the class of each image.

    Raises:
        UserError: its preprocessing cannot be undone.
    """
    if distilled.preprocess is None or distilled.norm_is_lost:
        raise UserError(
            f"{distilled.path}: the pixels of preprocess={distilled.preprocess_name} cannot be had "
            "back exactly: distil with 'none', 'standard', 'zca' or 'zca_center'."
        )
    numbers = np.array([step.class_names.index(name) for name in distilled.class_names])
    return distilled.pictures(), numbers[np.argmax(distilled.labels, axis=1)]
