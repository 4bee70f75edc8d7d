"""Coresets: representative training images, as many of each class as a distilled set has."""

from collections.abc import Callable

import numpy as np


def kmeans(images: np.ndarray, labels: np.ndarray, size: int, num_classes: int) -> np.ndarray:
    """The images nearest to the centres of k-means (k-means++, one start) in every class.

    Args:
        images: preprocessed (n, H, W, C).
        labels: class numbers (n,).
        size: number of images to take, in all.
        num_classes: number of classes; if it does not divide `size`, the first ones get one more.

    Returns:
        Distinct rows (size,), in the order of the classes; fewer if a class has too few images.
    """
    return _by_class(_nearest_to_centres, images, labels, size, num_classes)


def herding(images: np.ndarray, labels: np.ndarray, size: int, num_classes: int) -> np.ndarray:
    """The images, chosen one by one, whose running mean stays closest to that of their class.

    Source: Welling, *Herding Dynamical Weights to Learn* (ICML 2009), as Rebuffi et al., *iCaRL*
    (CVPR 2017), choose exemplars, but on preprocessed pixels. Arguments and result as of `kmeans`.
    """
    return _by_class(_herd, images, labels, size, num_classes)


def herding_unit(images: np.ndarray, labels: np.ndarray, size: int, num_classes: int) -> np.ndarray:
    """`herding` on images that are scaled to norm 1, as iCaRL scales its features.

    Of images whose mean is near 0, such as whitened photographs, `herding` takes the palest.
    """
    return _by_class(_herd_unit, images, labels, size, num_classes)


def per_class(size: int, num_classes: int) -> np.ndarray:
    """Images (C,) of each class in a coreset of `size`; if uneven, the first classes have more."""
    return size // num_classes + (np.arange(num_classes) < size % num_classes)


def _by_class(
    choose: Callable[[np.ndarray, int], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    size: int,
    num_classes: int,
) -> np.ndarray:
    chosen = []
    for number, count in enumerate(per_class(size, num_classes)):
        rows = np.flatnonzero(labels == number)
        if count:
            vectors = images[rows].reshape(len(rows), -1).astype(np.float64)
            chosen.append(rows[choose(vectors, min(count, len(rows)))])
    return np.concatenate(chosen)


def _nearest_to_centres(vectors: np.ndarray, count: int) -> np.ndarray:
    from sklearn.cluster import KMeans  # It takes a second to import.

    centres = KMeans(count, n_init=1, random_state=0).fit(vectors).cluster_centers_
    free = np.ones(len(vectors), bool)
    chosen = []
    for centre in centres:
        distances = np.where(free, np.square(vectors - centre).sum(axis=1), np.inf)
        chosen.append(int(np.argmin(distances)))
        free[chosen[-1]] = False
    return np.array(chosen)


def _herd(vectors: np.ndarray, count: int) -> np.ndarray:
    mean, total = vectors.mean(axis=0), np.zeros(vectors.shape[1])
    squares = np.einsum("ij,ij->i", vectors, vectors)
    free = np.ones(len(vectors), bool)
    chosen = []
    for taken in range(1, count + 1):
        # |mean - (total + vectors) / taken|^2 without what is the same for all vectors.
        distances = squares / taken**2 - 2 / taken * (vectors @ (mean - total / taken))
        chosen.append(int(np.argmin(np.where(free, distances, np.inf))))
        free[chosen[-1]] = False
        total += vectors[chosen[-1]]
    return np.array(chosen)


def _herd_unit(vectors: np.ndarray, count: int) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return _herd(vectors / np.where(norms > 0, norms, 1), count)


# (images (n, H, W, C) preprocessed, class numbers (n,), size, number of classes) -> rows (size,)
CORESETS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {
    "kmeans": kmeans,
    "herding": herding,
    "herding_unit": herding_unit,
}
