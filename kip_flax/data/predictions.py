"""What a classifier says of pictures, and which pictures it takes."""

from typing import NamedTuple, Protocol

import numpy as np

from kip_flax.runtime.errors import UserError


class Predictions(NamedTuple):
    """The predictions for n pictures.

    Attributes:
        names: n names of the predicted classes.
        scores: (n, classes) float32, the outputs, which are not probabilities; the class with the
            largest one is predicted.
        classes: (n,), numbers of the predicted classes.
    """

    names: list[str]
    scores: np.ndarray
    classes: np.ndarray


class Classifier(Protocol):
    """A trained network, or a distilled set with its kernel."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the pictures that it takes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each class."""

    def predict(self, pictures: np.ndarray) -> Predictions:
        """The predictions for uint8 pictures (n, H, W, C), or (n, H, W) if they are grey.

        Raises:
            UserError: they are not uint8, or of another shape.
        """


def of_scores(scores: np.ndarray, class_names: tuple[str, ...]) -> Predictions:
    """The predictions with scores (n, classes)."""
    classes = scores.argmax(axis=1)
    return Predictions([class_names[number] for number in classes], scores, classes)


def checked(pictures: np.ndarray, image_shape: tuple[int, int, int], taker: str) -> np.ndarray:
    """uint8 pictures (n, H, W, C), also from (n, H, W) if they are grey.

    `taker`: who takes pictures of `image_shape` (H, W, C), for the message: 'the network'.

    Raises:
        UserError: they are not uint8, or of another shape.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim == 3 and image_shape[2] == 1:
        pictures = pictures[..., None]
    if pictures.dtype != np.uint8 or pictures.shape[1:] != image_shape:
        height, width, channels = image_shape
        raise UserError(
            f"pictures are {pictures.dtype} {pictures.shape}: {taker} takes uint8 "
            f"(n, {height}, {width}, {channels}) from 0 to 255."
        )
    return pictures
