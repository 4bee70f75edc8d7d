"""The analysis of a run's last set: mistakes, neighbours, spectrum. Computed once, at the end.

It needs data and kernel; the report only reads its results. Shapes: S support images, T test
images, C classes. Nearness is the cosine in the kernel's feature space, k(x, y) / sqrt(k(x, x)
k(y, y)). Unlike distance, it does not favour images of small norm.
"""

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kip_flax import data, export, krr, preprocess
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.krr import label_solve
from kip_flax.preprocess import Preprocess
from kip_flax.runs.exporter import SupportArrays
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import multihost, sharding
from kip_flax.runtime.batching import repeat_last_row

NEIGHBOURS = 3
MAX_PICTURES = 200  # Support images whose neighbours are kept.
TARGETS_PER_IMAGE = 10  # Training images per support image, at least, for Label Solve.
_BLOCK = 16  # Images per call where only the kernel's diagonal is needed.


@dataclass(frozen=True, eq=False)
class Sample:
    """Images drawn from a data set.

    Attributes:
        pixels: (n, H, W, channels), uint8.
        images: the same, preprocessed.
        labels: (n,) class numbers.
        total: how many images they were drawn from.
    """

    pixels: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    total: int


class BatchedKernel:
    """Computes the kernel of arrays of any length; every process gets the whole result.

    Args:
        kernel: already sharded over `mesh`.
        batch_size: rows that one call of `cross` computes.
        mesh: the run's mesh.
    """

    def __init__(self, kernel: Kernel, batch_size: int, mesh: Mesh):
        whole = NamedSharding(mesh, PartitionSpec())
        self._mesh, self._batch_size = mesh, batch_size
        self._cross = jax.jit(kernel, out_shardings=whole)
        self._gram = jax.jit(lambda x: kernel(x, x), out_shardings=whole)

    def cross(self, x: np.ndarray, support: np.ndarray) -> np.ndarray:
        """k(x, support), (n, S) float64, in batches of one compiled shape."""
        size = min(self._batch_size, len(x))
        placed = sharding.replicate(self._mesh, support)
        parts = []
        for first in range(0, len(x), size):
            batch = repeat_last_row(x[first : first + size], size)
            put = sharding.put_targets(self._mesh, batch, np.zeros(size, np.int32))[0]
            parts.append(np.asarray(self._cross(put, placed))[:size])
        return np.concatenate(parts)[: len(x)].astype(np.float64)

    def gram(self, x: np.ndarray) -> np.ndarray:
        """k(x, x), (n, n) float64, in one call."""
        return np.asarray(self._gram(sharding.replicate(self._mesh, x)), np.float64)

    def diagonal(self, x: np.ndarray) -> np.ndarray:
        """k(x_i, x_i) of every image, (n,) float64."""
        size = min(_BLOCK, len(x))
        blocks = (repeat_last_row(x[i : i + size], size) for i in range(0, len(x), size))
        return np.concatenate([np.diag(self.gram(block)) for block in blocks])[: len(x)]


def is_missing(folder: RunFolder, config: ConfigDict) -> bool:
    """Whether `analyse_run` has something to do; raises UserError if the folder is broken."""
    sets = folder.distilled() if config.report.num_train else {}
    return bool(sets) and folder.analysis(sets[max(sets)]) is None


def analyse_run(
    folder: RunFolder,
    config: ConfigDict,
    dataset: Dataset,
    fitted: Preprocess,
    kernel: Kernel,
    mesh: Mesh,
) -> None:
    """Analyses the last set of the run in `folder` and writes analysis.npz.

    Does nothing if `report.num_train` is 0, if there is no set, or if the file already holds the
    analysis of this set. All processes of a run call it; the first one writes.

    Args:
        folder: the run's folder.
        config: the run's configuration.
        dataset, fitted: its data and preprocessing.
        kernel: already sharded over `mesh`.

    Raises:
        UserError: a file of the run is missing or broken, or the analysis cannot be written.
    """
    if not is_missing(folder, config):
        return
    sets = folder.distilled()
    first, last = (export.load_distilled(sets[step]) for step in (min(sets), max(sets)))
    began = time.perf_counter()
    size = max(config.report.num_train, TARGETS_PER_IMAGE * len(last.images))
    train = _training_sample(dataset, fitted, size, config.seed)
    test = _test_sample(dataset, fitted, config.eval.num_test)
    findings = analyse(
        (last.images, last.labels),
        (first.images, first.labels),
        BatchedKernel(kernel, config.eval.batch_size, mesh),
        train,
        test,
        config.reg,
    )
    facts = {
        "step": max(sets),
        "num_train": len(train.labels),
        "of_train": train.total,
        "num_test": len(test.labels),
        "of_test": test.total,
        "seconds": round(time.perf_counter() - began, 3),
    }
    with multihost.raise_everywhere():
        if multihost.is_first():
            folder.write_analysis(last.path, findings, facts)


def _training_sample(dataset: Dataset, fitted: Preprocess, size: int, seed: int) -> Sample:
    labels = dataset.train_labels
    key = jax.random.key(seed)
    rows = np.sort(data.balanced_draw(labels, min(size, len(labels)), dataset.num_classes, key))
    pixels = dataset.train_images[rows]
    return Sample(pixels, preprocess.apply(fitted, pixels), labels[rows], len(labels))


def _test_sample(dataset: Dataset, fitted: Preprocess, num_test: int) -> Sample:
    pixels, labels = data.test_subset(dataset, num_test)
    return Sample(pixels, preprocess.apply(fitted, pixels), labels, len(dataset.test_labels))


def analyse(
    final: SupportArrays,
    initial: SupportArrays,
    kernel: BatchedKernel,
    train: Sample,
    test: Sample,
    reg: float,
) -> dict[str, np.ndarray]:
    """The findings that the report shows on a set and on the images it started from.

    Args:
        final, initial: images (S, H, W, channels), preprocessed, and labels (S, C).
        kernel: the run's kernel.
        train: training images, balanced over the classes: candidates for neighbours, and the
            targets of Label Solve.
        test: test images.
        reg: relative to the mean diagonal as in `krr.solve`; the solution of Label Solve takes the
            same number as an absolute regulariser.

    Returns:
        `eigenvalues`, `initial_eigenvalues` (S,) of K_ss, descending; `confusion`,
        `initial_confusion`, `solved_confusion` (C, C) counts, a row per true class; `solved` (2,)
        test accuracy and mse of Label Solve on the initial images, NaN if it failed;
        `nearest_labels`, `nearest_similarity` (R, NEIGHBOURS) and `nearest_pixels` (R, NEIGHBOURS,
        H, W, channels) of the nearest training images to R support images, whose row numbers are
        `nearest_rows` (R,).
    """
    k_ss, k_ts = kernel.gram(final[0]), kernel.cross(test.images, final[0])
    k_ns = kernel.cross(train.images, final[0])
    start_ss, start_ts, start_ns = k_ss, k_ts, k_ns
    if not np.array_equal(final[0], initial[0]):  # They are equal after Label Solve.
        start_ss = kernel.gram(initial[0])
        start_ts, start_ns = (kernel.cross(x.images, initial[0]) for x in (test, train))
    solved = _solved_labels(start_ss, start_ns, train.labels, initial[1].shape[1], reg)
    findings = {
        "eigenvalues": spectrum(k_ss),
        "initial_eigenvalues": spectrum(start_ss),
        "confusion": _measure(k_ss, k_ts, final[1], test.labels, reg)[0],
        "initial_confusion": _measure(start_ss, start_ts, initial[1], test.labels, reg)[0],
    }
    counts, measures = _measure(start_ss, start_ts, solved, test.labels, reg)
    chosen = data.evenly(len(k_ss), MAX_PICTURES)
    near, similarity = nearest(
        k_ns[:, chosen], kernel.diagonal(train.images), np.diag(k_ss)[chosen], NEIGHBOURS
    )
    return findings | {
        "solved_confusion": counts,
        "solved": np.array(measures),
        "nearest_rows": chosen,
        "nearest_labels": train.labels[near],
        "nearest_similarity": similarity,
        "nearest_pixels": train.pixels[near],
    }


def spectrum(k_ss: np.ndarray) -> np.ndarray:
    """Eigenvalues of the symmetric part of a kernel (S, S), descending, float64."""
    k = np.asarray(k_ss, np.float64)
    return np.linalg.eigvalsh((k + k.T) / 2)[::-1]


def condition(eigenvalues: np.ndarray, reg: float = 0.0) -> float:
    """Largest over smallest eigenvalue with `krr.solve`'s ridge; inf unless all are positive."""
    shifted = eigenvalues + reg * eigenvalues.mean()
    return float(shifted.max() / shifted.min()) if shifted.min() > 0 else float("inf")


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C), true classes as rows, of the class numbers `predicted` and `labels`, (n,)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def nearest(
    k_ns: np.ndarray, k_nn: np.ndarray, k_ss: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest to each column by cosine in kernel space.

    Args:
        k_ns: (n, S) kernel of n images with S others.
        k_nn, k_ss: (n,), (S,) kernel of each image with itself.
        count: rows per column; fewer if n is smaller.

    Returns:
        Row numbers (S, count), the nearest first, and their cosines.
    """
    cosines = (k_ns / np.sqrt(np.outer(k_nn, k_ss))).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)


def _solved_labels(
    k_ss: np.ndarray, k_ns: np.ndarray, labels: np.ndarray, classes: int, reg: float
) -> np.ndarray:
    y = np.asarray(krr.centered_one_hot(labels, classes), np.float64)
    sums = label_solve.Sums(jnp.asarray(k_ns.T @ k_ns), jnp.asarray(k_ns.T @ y))
    return np.asarray(label_solve.fitting_labels(jnp.asarray(k_ss), sums, reg))


def _measure(
    k_ss: np.ndarray, k_ts: np.ndarray, y_s: np.ndarray, labels: np.ndarray, reg: float
) -> tuple[np.ndarray, tuple[float, float]]:
    """Confusion counts (C, C), test accuracy and mse; accuracy is NaN if the mse is not finite."""
    pred = krr.predict(k_ts, krr.solve(k_ss, y_s, reg))
    classes = y_s.shape[1]
    counts = confusion(np.asarray(pred).argmax(axis=1), labels, classes)
    mse = float(krr.loss(pred, krr.centered_one_hot(labels, classes)))
    accuracy = float(np.trace(counts) / len(labels)) if np.isfinite(mse) else float("nan")
    return counts, (accuracy, mse)
