"""A data set whose classes come two at a time, in a random order."""

from dataclasses import dataclass

import numpy as np

from kip_flax import data, preprocess
from kip_flax.data import Dataset, Targets
from kip_flax.preprocess import Preprocess

CLASSES_A_STEP = 2
HELD_OUT = 0.1  # Share of training images that replaces the test images where settings are chosen.


@dataclass(frozen=True, eq=False)
class Stream:
    """The steps of one class order.

    Attributes:
        number: the number of the order; all randomness follows from it.
        pairs: the classes of each step, as the data set numbers them, the smaller first, so that
            the same two classes are the same step in any order.
        steps: the data set with only the classes of each step, numbered 0 and 1.
        fitted: the learners' preprocessing, fitted on the training images of the first step, as
            later ones are not known when it is first needed.
    """

    number: int
    pairs: tuple[tuple[int, int], ...]
    steps: tuple[Dataset, ...]
    fitted: Preprocess

    @property
    def num_classes(self) -> int:
        """Number of all classes; a class is numbered by its place in `pairs`."""
        return CLASSES_A_STEP * len(self.steps)

    def test(self, num_test: int) -> Targets:
        """Test images of all steps, preprocessed; at most `num_test` (0: all) of each step."""
        parts = [data.test_subset(step, num_test) for step in self.steps]
        labels = [part[1] + CLASSES_A_STEP * number for number, part in enumerate(parts)]
        images = preprocess.apply(self.fitted, np.concatenate([part[0] for part in parts]))
        return Targets(images, np.concatenate(labels), self.num_classes)


def drawn_pairs(number: int, classes: int) -> tuple[tuple[int, int], ...]:
    """The classes of each step of order `number`; a last class without a partner is left out."""
    order = np.random.default_rng(number).permutation(classes)
    order = order[: classes - classes % CLASSES_A_STEP].reshape(-1, CLASSES_A_STEP)
    return tuple((int(min(pair)), int(max(pair))) for pair in order)


def make_stream(dataset: Dataset, number: int, name: str, held_out: bool) -> Stream:
    """The stream of a data set in class order `number`.

    Args:
        dataset: with all its classes.
        number: the number of the order, from 0.
        name: name of the preprocessing.
        held_out: test on held-out training images, those of `dataset.validation`.
    """
    pairs = drawn_pairs(number, dataset.num_classes)
    steps = [data.of_classes(dataset, pair) for pair in pairs]
    if held_out:
        steps = [data.hold_out(step, HELD_OUT) for step in steps]
    return Stream(number, pairs, tuple(steps), preprocess.fit(name, steps[0].known_images))
