"""The sets that networks are trained on: the distilled one, and sets of real images."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kip_flax import algorithms, data, export, preprocess
from kip_flax import config as config_lib
from kip_flax.data import Dataset, Targets, coresets
from kip_flax.kernels import Kernel
from kip_flax.krr import label_solve
from kip_flax.preprocess import Preprocess
from kip_flax.runs import networks
from kip_flax.runs.folder import STEP_IN_NAME
from kip_flax.runtime.errors import UserError

DISTILLED = "distilled"  # Name of the distilled set in a transfer.
_TILE = 500  # Targets per call of Label Solve.


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images (D, n, H, W, C) and labels (D, n, classes): D draws, or one (D = 1) for all seeds."""

    name: str
    images: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> int:
        """Number n of images of one draw."""
        return self.images.shape[1]


@dataclass(frozen=True, eq=False)
class RealImages:
    """Real images, preprocessed, by their use.

    Attributes:
        pool: training images that baselines draw from.
        held_out: training images that learning rate and L2 are chosen on.
        test: images that accuracies are measured on.
        fitted: their preprocessing.
        split: what `test` is, 'test' or 'validation'.
    """

    pool: Targets
    held_out: Targets
    test: Targets
    fitted: Preprocess
    split: str


def real_images(
    dataset: Dataset, fitted: Preprocess, held_out: float, num_test: int, key: jax.Array
) -> RealImages:
    """The images of a data set, preprocessed and split.

    Args:
        dataset: the data set.
        fitted: its preprocessing.
        held_out: share of the training images that is held out, 0 to 1.
        num_test: as in `data.test_subset`.
        key: draws the images held out.
    """
    training = preprocess.apply(fitted, dataset.train_images)
    pool = Targets(training, dataset.train_labels, dataset.num_classes)
    images, labels = data.test_subset(dataset, num_test)
    test = Targets(preprocess.apply(fitted, images), labels, dataset.num_classes)
    return RealImages(*hold_out(pool, held_out, key), test, fitted, dataset.split)


def hold_out(pool: Targets, share: float, key: jax.Array) -> tuple[Targets, Targets]:
    """Splits a pool into a part to draw from and a held-out part, even over the classes."""
    rows = networks.held_out_rows(pool.labels, pool.num_classes, share, key)
    held = np.zeros(len(pool.labels), bool)
    held[rows] = True
    return tuple(  # type: ignore[return-value]
        Targets(pool.images[part], pool.labels[part], pool.num_classes) for part in (~held, held)
    )


def of_file(name: str, distilled: export.Distilled) -> ImageSet:
    """The set of a distilled file, as one draw."""
    return ImageSet(name, distilled.images[None], distilled.labels[None])


def random_draws(pool: Targets, size: int, draws: int, key: jax.Array) -> ImageSet:
    """`draws` sets of `size` real images, as even over the classes as possible.

    Raises:
        UserError: the pool has fewer than `size` images.
    """
    if size > len(pool.labels):
        raise UserError(
            f"{size} real images are asked for and {len(pool.labels)} are not held out: shorten "
            f"transfer.ladder, or lower transfer.held_out."
        )
    keys = jax.random.split(jax.random.fold_in(key, size), draws)
    rows = [data.balanced_draw(pool.labels, size, pool.num_classes, key) for key in keys]
    images, labels = zip(*map(pool.take, rows), strict=True)
    return ImageSet("random", np.stack(images), np.stack(labels))


def chosen(name: str, pool: Targets, size: int) -> ImageSet:
    """A coreset of `size` images, `name` one of `coresets.CORESETS`; the same for all seeds.

    Raises:
        UserError: a class of the pool has too few images to choose from.
    """
    check_coreset(name, np.bincount(pool.labels, minlength=pool.num_classes), size)
    rows = coresets.CORESETS[name](pool.images, pool.labels, size, pool.num_classes)
    images, labels = pool.take(rows)
    return ImageSet(name, images[None], labels[None])


def check_coreset(name: str, counts: np.ndarray, size: int) -> None:
    """Raises UserError if classes of `counts` images (C,) are too small for `size` chosen ones."""
    taken = coresets.per_class(size, len(counts))
    if (counts < taken).any():
        raise UserError(
            f"{name} takes {max(taken)} images of every class, and one has fewer that are not held "
            f"out: take {name} out of transfer.baselines, or lower transfer.held_out."
        )


def initial(path: str) -> ImageSet:
    """The initial images of the set in `path`: its run's file of step 0, in the same folder.

    Images that were drawn have natural labels, also where the file has solved or scaled ones.

    Raises:
        UserError: `path` is not named _ckptSTEP.npz, or there is no file of step 0.
    """
    first = Path(path).with_name(STEP_IN_NAME.sub("_ckpt0.npz", Path(path).name))
    if not first.is_file():
        first = _with_natural_labels(first) or first
    if first.name == Path(path).name and not first.stem.endswith("_ckpt0"):
        raise UserError(
            f"{path} does not end in _ckptSTEP.npz, by which the initial images beside it are "
            f"found: rename it, or leave 'initial' and 'label_solve' out of transfer.baselines."
        )
    if not first.is_file():
        raise UserError(
            f"the initial images {first} are not there: copy them from the run that made {path}, "
            f"or leave 'initial' and 'label_solve' out of transfer.baselines."
        )
    start = export.load_distilled(first)
    found = of_file("initial", start)
    natural = _natural_labels(start)
    return found if natural is None else dataclasses.replace(found, labels=natural[None])


def _natural_labels(start: export.Distilled) -> np.ndarray | None:
    """Natural labels (S, C) of images that were drawn and have others at step 0; else None.

    They are solved there, or begin at another scale.
    """
    fields = start.provenance.get("config", {})
    if export.FIRST_CLASSES not in start.provenance or config_lib.names_a_file(
        fields["support.init"]
    ):
        return None
    kind = algorithms.known(fields["algorithm"]).labels(fields["support.learn_labels"])
    if kind != "solved" and not algorithms.facts(fields["algorithm"]).scales_labels:
        return None
    return np.asarray(data.centered_one_hot(start.first_classes, start.labels.shape[1]))


def _with_natural_labels(first: Path) -> Path | None:
    """The file of step 0 under the name that says that its labels are not learned, if it is there.

    Label Solve begins with natural labels, so only its last set is named after learned ones.
    """
    natural = first.with_name(first.name.replace("_l_", "_nol_"))
    return natural if natural.is_file() else None


def label_solved(start: ImageSet, pool: Targets, kernel: Kernel, reg: float) -> ImageSet:
    """The images of `start` with labels solved for all targets of `pool`, see `label_solve`.

    `reg` is that of `label_solve.fitting_labels`.
    """
    support = jnp.asarray(start.images[0])
    sums = label_solve.zero_sums(*start.labels[0].shape)
    add_targets = label_solve.make_add_targets(kernel)
    for first in range(0, len(pool.labels), _TILE):
        rows = np.arange(first, min(first + _TILE, len(pool.labels)))
        images, labels = pool.take(rows)
        tile = map(jnp.asarray, (images, labels, np.ones(len(rows), np.float32)))
        sums = add_targets(sums, support, *tile)
    k_ss = jax.jit(lambda x: kernel(x, x))(support)
    solved = label_solve.fitting_labels(k_ss, sums, reg)
    return ImageSet("label_solve", start.images, np.asarray(solved)[None])
