"""What a distilled set does, measured once at the end of a run: analysis.npz in its folder.

Needs data and kernel, as the report does not. S support images, T test images, C classes. The
kernel space is the feature space of the kernel; nearness there is the cosine
k(x, y) / sqrt(k(x, x) k(y, y)), which does not favour images of small norm as distance does.
"""

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kip_flax import krr
from kip_flax.krr import label_solve
from kip_flax.runtime import files, sharding
from kip_flax.runtime.errors import UserError

FILE = "analysis.npz"
NEIGHBOURS = 3
MAX_PICTURES = 200  # Support images whose neighbours' pixels are kept.
_BLOCK = 16  # Images whose kernel with themselves is computed together.

Support = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Sample:
    """Images: `pixels` uint8, `images` preprocessed (n, H, W, C); `labels` (n,); out of `total`."""

    pixels: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    total: int


class Rows:
    """The kernel by rows, the same at every process, compiled once for all the analysis.

    Args:
        kernel: spread over `mesh` already.
        batch_size: images per call.
        mesh: of the run.
    """

    def __init__(
        self, kernel: Callable[[jax.Array, jax.Array], jax.Array], batch_size: int, mesh: Mesh
    ):
        whole = NamedSharding(mesh, PartitionSpec())
        self._mesh, self._batch = mesh, batch_size
        self._cross = jax.jit(kernel, out_shardings=whole)
        self._own = jax.jit(lambda x: kernel(x, x), out_shardings=whole)

    def cross(self, x: np.ndarray, support: np.ndarray) -> np.ndarray:
        """k(x, support), (n, S) float64."""
        size = min(self._batch, len(x))
        placed = sharding.replicate(self._mesh, support)
        parts = []
        for first in range(0, len(x), size):
            batch = _padded(x[first : first + size], size)
            put = sharding.put_targets(self._mesh, batch, np.zeros(size, np.int32))[0]
            parts.append(np.asarray(self._cross(put, placed))[:size])
        return np.concatenate(parts)[: len(x)].astype(np.float64)

    def own(self, x: np.ndarray) -> np.ndarray:
        """k(x, x), (n, n) float64."""
        return np.asarray(self._own(sharding.replicate(self._mesh, x)), np.float64)

    def diagonal(self, x: np.ndarray) -> np.ndarray:
        """k(x_i, x_i) of every image, (n,) float64, in blocks."""
        size = min(_BLOCK, len(x))
        blocks = (_padded(x[i : i + size], size) for i in range(0, len(x), size))
        return np.concatenate([np.diag(self.own(block)) for block in blocks])[: len(x)]


def analyse(
    final: Support, initial: Support, rows: Rows, train: Sample, test: Sample, reg: float
) -> dict[str, np.ndarray]:
    """Everything that the report shows of a set and of the images it started from.

    Args:
        final, initial: images (S, H, W, C), preprocessed, and labels (S, C).
        rows: the kernel.
        train: real images, evenly over the classes, to look for neighbours among and to solve
            labels for.
        test: images to predict.
        reg: as in `krr.solve`; Label Solve takes the same number as an absolute one.

    Returns:
        `eigenvalues`, `initial_eigenvalues` (S,) of K_ss, descending; `confusion`,
        `initial_confusion`, `solved_confusion` (C, C) counts, true classes down; `solved` (2,)
        test accuracy and mse of Label Solve on the initial images, NaN where it failed;
        `nearest_labels`, `nearest_similarity` (R, NEIGHBOURS) and `nearest_pixels` of the
        neighbours of the first, ..., last support image (`nearest_rows`, (R,)).
    """
    k_ss, k_ts = rows.own(final[0]), rows.cross(test.images, final[0])
    k_ns = rows.cross(train.images, final[0])
    start, start_ts, start_ns = k_ss, k_ts, k_ns
    if not np.array_equal(final[0], initial[0]):  # As they are after Label Solve.
        start = rows.own(initial[0])
        start_ts, start_ns = (rows.cross(x.images, initial[0]) for x in (test, train))
    solved = _solved_labels(start, start_ns, train.labels, initial[1].shape[1], reg)
    found = {
        "eigenvalues": spectrum(k_ss),
        "initial_eigenvalues": spectrum(start),
        "confusion": _measure(k_ss, k_ts, final[1], test.labels, reg)[0],
        "initial_confusion": _measure(start, start_ts, initial[1], test.labels, reg)[0],
    }
    found["solved_confusion"], figures = _measure(start, start_ts, solved, test.labels, reg)
    found["solved"] = np.array(figures)
    shown = np.unique(np.linspace(0, len(k_ss) - 1, min(len(k_ss), MAX_PICTURES)).round())
    chosen = shown.astype(int)
    near, similarity = nearest(
        k_ns[:, chosen], rows.diagonal(train.images), np.diag(k_ss)[chosen], NEIGHBOURS
    )
    return found | {
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
    """Largest over smallest eigenvalue with the ridge of `krr.solve`; inf if none is positive."""
    shifted = eigenvalues + reg * eigenvalues.mean()
    return float(shifted.max() / shifted.min()) if shifted.min() > 0 else float("inf")


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C) of true class (down) and predicted class (across), both (n,) numbers."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def nearest(
    k_ns: np.ndarray, k_nn: np.ndarray, k_ss: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest to each column by cosine in kernel space.

    Args:
        k_ns: (n, S) kernel of n images with S others.
        k_nn, k_ss: (n,), (S,) kernel of each with itself.
        count: how many, if there are as many.

    Returns:
        Row numbers (S, count), the nearest first, and their cosines.
    """
    cosines = (k_ns / np.sqrt(np.outer(k_nn, k_ss))).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)


def write(workdir: Path, path: Path, found: dict[str, np.ndarray], told: dict[str, Any]) -> None:
    """Writes analysis.npz for the distilled set in `path`, with `told` (JSON values) beside.

    Raises:
        UserError: the file cannot be written.
    """
    meta = np.array(json.dumps({**told, "set": path.name, "checksum": _checksum(path)}))
    files.write_arrays(workdir / FILE, {**found, "meta": meta})


def read(workdir: Path, path: Path) -> dict[str, Any] | None:
    """What `write` wrote, `meta` unpacked; None if there is none for the set in `path`."""
    if not os.path.exists(workdir / FILE):
        return None
    try:
        arrays: dict[str, Any] = files.read_arrays(workdir / FILE)
        meta = json.loads(str(arrays.pop("meta", "{}")))
    except (UserError, ValueError):
        return None  # It can be made again.
    same = meta.get("set") == path.name and meta.get("checksum") == _checksum(path)
    return {**arrays, **meta} if same else None


def _solved_labels(
    k_ss: np.ndarray, k_ns: np.ndarray, labels: np.ndarray, classes: int, reg: float
) -> np.ndarray:
    y = np.asarray(krr.centered_one_hot(labels, classes), np.float64)
    gram, cross = jnp.asarray(k_ns.T @ k_ns), jnp.asarray(k_ns.T @ y)
    return np.asarray(label_solve.solve_labels(jnp.asarray(k_ss), gram, cross, reg))


def _measure(
    k_ss: np.ndarray, k_ts: np.ndarray, y_s: np.ndarray, labels: np.ndarray, reg: float
) -> tuple[np.ndarray, tuple[float, float]]:
    """Confusion counts, and test accuracy and mse; NaN for a solution that is not finite."""
    pred = krr.predict(k_ts, krr.solve(k_ss, y_s, reg))
    classes = y_s.shape[1]
    counts = confusion(np.asarray(pred).argmax(axis=1), labels, classes)
    mse = float(krr.loss(pred, krr.centered_one_hot(labels, classes)))
    accuracy = float(np.trace(counts) / len(labels)) if np.isfinite(mse) else float("nan")
    return counts, (accuracy, mse)


def _padded(x: np.ndarray, rows: int) -> np.ndarray:
    """Rows beyond the last repeat it: the kernel of an image of zeros may be anything."""
    return np.concatenate([x, np.repeat(x[-1:], rows - len(x), axis=0)])


def _checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())
