"""Preprocessing from stored pixels to the inputs of the kernel, and its inverse for display.

It is fitted on training images only. Source: Nguyen et al., *Dataset Distillation with Infinitely
Wide Convolutional Networks* (NeurIPS 2021), section 3, after Lee et al., *Finite Versus Infinite
Neural Networks* (NeurIPS 2020) and Shankar et al., *Neural Kernels Without Tangents* (ICML 2020).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from kip_flax.runtime import hardware
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

# Each name with the arrays that it needs besides the channels' mean and standard deviation.
_ARRAYS: dict[str, tuple[str, ...]] = {
    "none": (),
    "centred": (),
    "standard": (),
    "zca_normalize": ("whiten", "unwhiten", "image_mean", "image_norm"),
    "zca": ("whiten", "unwhiten"),
    "zca_center": ("whiten", "unwhiten", "center"),
}
PREPROCESSES: tuple[str, ...] = tuple(_ARRAYS)
CONSTANT = ("none", "centred")  # Constants, fitted on nothing.

SECTION = Section({"preprocess": str}, choices={"preprocess": PREPROCESSES})

ZCA_REG = 0.1  # In units of the covariance's mean eigenvalue, as in the published runs.
_CHUNK = 2048 * 3072  # Numbers converted to float64 at a time: 50 MB, 2,048 images of CIFAR-10.
# Two pixels of a standardised image differ by at least 1 / (255 * 0.5) if they differ at all, so an
# image with a smaller norm than this is constant up to rounding.
_MIN_NORM = 1e-3
_FAR = 100  # No share of white is so large, and nearly all images in 0..255 have such pixels.
_MIN_VARIANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Preprocess:
    """A fitted preprocessing. All arrays are float32; d = H * W * C.

    Attributes:
        name: one of `PREPROCESSES`.
        mean, std: (C,), of pixels in [0, 1]; 0 and 1 for 'none', 1/2 and 1/4 for 'centred'.
        whiten, unwhiten: (d, d), symmetric, inverse to each other; None without ZCA.
        image_mean, image_norm: (), medians of the mean and norm that are removed from each
            standardised training image; 'zca_normalize' only.
        center: (d,), mean of the standardised images; 'zca_center' only.
    """

    name: str
    mean: np.ndarray
    std: np.ndarray
    whiten: np.ndarray | None = None
    unwhiten: np.ndarray | None = None
    image_mean: np.ndarray | None = None
    image_norm: np.ndarray | None = None
    center: np.ndarray | None = None


def fit(name: str, train_images: np.ndarray) -> Preprocess:
    """Fits a preprocessing.

    'none' scales to [0, 1]. 'centred' also subtracts 1/2 and divides by 1/4, for every data set.
    'standard' instead subtracts the mean of each channel and divides by its standard deviation.
    'zca_normalize' then subtracts each image's mean, divides by its L2 norm, and whitens: with
    cov = X^T X / n + `ZCA_REG` * trace(X^T X / n) / d * I = U s U^T in float64, images are
    multiplied by U s^-1/2 U^T. A constant channel or image becomes zero. (When n < d, which none of
    its data sets has, the published code sets s to 1 beyond the n-th eigenvalue; here only the
    regulariser bounds s from below.)

    Two variants serve the sets of others: 'zca' whitens standardised images directly (RFAD),
    'zca_center' subtracts their mean image first (FRePo).

    Args:
        name: one of `PREPROCESSES`.
        train_images: uint8 (n, H, W, C).

    Raises:
        UserError: unknown name.
    """
    if name not in PREPROCESSES:
        allowed = ", ".join(PREPROCESSES)
        raise UserError(f"unknown preprocessing {name!r}: preprocess is one of {allowed}.")
    channels = train_images.shape[-1]
    if name == "none":
        return Preprocess(name, np.zeros(channels, np.float32), np.ones(channels, np.float32))
    if name == "centred":
        return Preprocess(name, *(np.full(channels, value, np.float32) for value in (0.5, 0.25)))
    standard = Preprocess("standard", *_channel_moments(train_images))
    return standard if name == "standard" else _fit_zca(name, standard, train_images)


def apply(preprocess: Preprocess, images: np.ndarray) -> np.ndarray:
    """Preprocesses images (n, H, W, C) to float32 of the same shape, chunk by chunk.

    Args:
        preprocess: a fitted preprocessing.
        images: uint8, or floats in about [0, 1] as `invert` returns them, which brings a set
            learned in the space of one preprocessing into that of another.

    Raises:
        UserError: the images have another shape than those of the fit, or are no such pixels.
    """
    _check_shape(preprocess, images)
    out = np.empty(images.shape, np.float32)
    for part in _chunks(images):
        _check_pixels(images[part])
        rows = _standardise(preprocess, images[part])
        if preprocess.whiten is not None:
            rows = _before_whitening(preprocess, rows)
            rows = rows.astype(np.float32) @ preprocess.whiten
        out[part] = rows.reshape(out[part].shape)
    return out


def invert(preprocess: Preprocess, images: np.ndarray) -> np.ndarray:
    """Brings preprocessed images (n, H, W, C) back to about [0, 1] for display, not clipped.

    Whitening is undone exactly. 'zca_normalize' does not keep an image's own mean and norm, so the
    medians of the training set replace them.

    Raises:
        UserError: the images have another shape than those of the fit.
    """
    _check_shape(preprocess, images)
    rows = np.asarray(images, np.float32).reshape(len(images), -1)
    if preprocess.unwhiten is not None:
        rows = rows @ preprocess.unwhiten
        if preprocess.center is not None:
            rows = rows + preprocess.center
        if preprocess.image_norm is not None:
            rows = rows * preprocess.image_norm + preprocess.image_mean
    return rows.reshape(images.shape) * preprocess.std + preprocess.mean


def to_arrays(preprocess: Preprocess) -> dict[str, np.ndarray]:
    """The fields as arrays for a file; `from_arrays` restores the same bits."""
    values = {field.name: getattr(preprocess, field.name) for field in fields(preprocess)}
    return {key: np.asarray(value) for key, value in values.items() if value is not None}


def from_arrays(arrays: dict[str, np.ndarray]) -> Preprocess:
    """The preprocessing that `to_arrays` wrote.

    Raises:
        UserError: an array is missing or the name is unknown.
    """
    name = str(arrays.get("name", ""))
    wanted = ("name", "mean", "std", *_ARRAYS.get(name, ()))
    missing = [key for key in wanted if key not in arrays]
    if missing or name not in PREPROCESSES:
        raise UserError(
            f"the stored preprocessing {name!r} is unknown or incomplete "
            f"(missing: {', '.join(missing) or 'nothing'}): make the file again."
        )
    return Preprocess(name, **{key: np.asarray(arrays[key]) for key in wanted[1:]})


def _channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel in [0, 1], from exact integer sums."""
    count = images.size // images.shape[-1]
    first = second = np.zeros(images.shape[-1], np.int64)
    for part in _chunks(images):
        values = images[part].astype(np.int64)
        first = first + values.sum((0, 1, 2))
        second = second + np.square(values).sum((0, 1, 2))
    # Python's integers, as NumPy's would overflow in the products; a constant channel must give 0.
    first, second = first.astype(object), second.astype(object)
    mean = (first / count).astype(np.float64) / 255
    std = np.sqrt((count * second - first**2).astype(np.float64)) / count / 255
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)


def _fit_zca(name: str, standard: Preprocess, images: np.ndarray) -> Preprocess:
    dim = images[0].size
    needed, free = whitening_bytes(name, dim), hardware.free_memory()
    if needed > free:
        raise UserError(
            f"preprocess={name!r} of images of {dim} numbers takes {needed >> 30} GiB and "
            f"{free >> 30} are free: take preprocess='standard', or smaller images "
            f"(dataset.image_size)."
        )
    center = _mean_image(standard, images) if name == "zca_center" else None
    cov = np.zeros((dim, dim))
    means, norms = np.empty(len(images)), np.empty(len(images))
    for part in _chunks(images):
        rows = _standardise(standard, images[part])
        if name == "zca_normalize":
            rows, means[part], norms[part] = _normalise(rows)
        elif center is not None:
            rows = rows - center
        cov += rows.T @ rows
    whiten, unwhiten = _whitening(cov / len(images))
    fitted = Preprocess(name, standard.mean, standard.std, whiten, unwhiten, center=center)
    if name != "zca_normalize":
        return fitted
    image_mean, image_norm = (np.asarray(np.median(v), np.float32) for v in (means, norms))
    return replace(fitted, image_mean=image_mean, image_norm=image_norm)


def whitening_bytes(name: str, dim: int) -> int:
    """Bytes that the fit of the preprocessing takes for images of `dim` numbers, at its peak."""
    return 4 * 8 * dim**2 if name.startswith("zca") else 0


def _mean_image(standard: Preprocess, images: np.ndarray) -> np.ndarray:
    total = sum(_standardise(standard, images[part]).sum(0) for part in _chunks(images))
    return (total / len(images)).astype(np.float32)


def _whitening(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The regularised inverse square root of a covariance (d, d), and its inverse; float32."""
    dim = len(cov)
    variance = np.trace(cov) / dim
    # The covariance of constant images is only rounding: leave such images as they are.
    ridge = ZCA_REG * variance if variance > _MIN_VARIANCE else 1.0
    eigenvalues, basis = np.linalg.eigh(cov + ridge * np.eye(dim))
    roots = np.sqrt(eigenvalues.clip(ridge))  # Rounding must not go below the regulariser.
    return (
        ((basis / roots) @ basis.T).astype(np.float32),
        ((basis * roots) @ basis.T).astype(np.float32),
    )


def _before_whitening(preprocess: Preprocess, rows: np.ndarray) -> np.ndarray:
    """The input of the whitening (n, d) from standardised rows (n, d)."""
    if preprocess.center is not None:
        return rows - preprocess.center
    return _normalise(rows)[0] if preprocess.name == "zca_normalize" else rows


def _standardise(preprocess: Preprocess, images: np.ndarray) -> np.ndarray:
    """Images standardised channel by channel, as float64 rows (n, d)."""
    mean, std = preprocess.mean.astype(np.float64), preprocess.std.astype(np.float64)
    pixels = images.astype(np.float64) if images.dtype.kind == "f" else images / 255
    return ((pixels - mean) / std).reshape(len(images), -1)


def _normalise(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with mean 0 and norm 1 (0 if they are constant), and the means and norms they had."""
    means = rows.mean(1)
    centred = rows - means[:, None]
    norms = np.linalg.norm(centred, axis=1)
    scale = np.where(norms > _MIN_NORM, 1 / np.maximum(norms, _MIN_NORM), 0)
    return centred * scale[:, None], means, norms


def _chunks(images: np.ndarray) -> Iterator[slice]:
    each = max(1, _CHUNK // max(1, math.prod(images.shape[1:])))
    return (slice(start, start + each) for start in range(0, len(images), each))


def _check_pixels(images: np.ndarray) -> None:
    """Raises UserError unless pixels are uint8, or finite floats that may be shares of white."""
    shares = images.dtype.kind == "f" and np.all(np.abs(images) < _FAR)
    if images.dtype != np.uint8 and not shares:
        raise UserError(
            f"pixels are {images.dtype}, uint8 or finite floats in about [0, 1] are expected: take "
            f"uint8 from 0 to 255, or divide by 255."
        )


def _check_shape(preprocess: Preprocess, images: np.ndarray) -> None:
    channels = len(preprocess.mean)
    dim = None if preprocess.whiten is None else len(preprocess.whiten)
    if images.ndim != 4 or images.shape[-1] != channels or dim not in (None, images[:1].size):
        pixels = "" if dim is None else f" and {dim // channels} pixels"
        raise UserError(
            f"the preprocessing was fitted on images of {channels} channels{pixels}, not on "
            f"{images.shape[1:]}: use the data set it was fitted on."
        )
