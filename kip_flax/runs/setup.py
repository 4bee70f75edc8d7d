"""The parts of a run: folder, data, preprocessing, kernel, support and steps."""

import contextlib
import functools
import inspect
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from kip_flax import algorithms, data, export, kernels, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms import base
from kip_flax.algorithms.interface import Algorithm, Problem, State, Step, Support
from kip_flax.data import Dataset, Targets, frozen
from kip_flax.export import card
from kip_flax.kernels import Kernel
from kip_flax.preprocess import Preprocess
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files, multihost, sharding
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

_SAME_PIXELS = 0.01  # Of a deviation: that much leeway for another copy of the same images.


@dataclass(frozen=True)
class Distillation:
    """One algorithm on one data set, as the loop of a run needs it.

    Attributes:
        total: steps of the whole run.
        eval_steps: steps after which the support is evaluated and exported; 0 is implied.
        pairs: kernel entries that a step computes, on average; 0 where it computes none.
        work: number of steps -> the work of so many first steps, in steps of average work.
        start: () -> the state before the first step.
        step: (state, number) -> the state after step `number` (from 1), and the metrics on its
            targets. The same number always gets the same targets.
        support: state -> images (S, H, W, C) and labels (S, classes) to evaluate and to export.
        if_not_finite: what a user may change if the state overflows, in words.
    """

    total: int
    eval_steps: frozenset[int]
    pairs: int
    work: Callable[[int], float]
    start: Callable[[], State]
    step: Step
    support: Callable[[State], Support]
    if_not_finite: str


def make_distillation(problem: Problem, support: Support) -> Distillation:
    """The distillation of `problem` by its algorithm, from the `support` of `first_support`."""
    config, train_size = problem.config, len(problem.targets.labels)
    algorithm = algorithms.find(config.algorithm)
    total = algorithm.total_steps(config, train_size)

    def start() -> State:
        # Steps reuse the memory of their state, so no two arrays of it may share memory.
        state = jax.tree.map(np.array, _first_state(config, train_size, *support))
        return sharding.replicate(problem.mesh, state)

    return Distillation(
        total=total,
        eval_steps=algorithm.eval_steps(config, total),
        pairs=algorithm.pairs(config, train_size),
        work=_work(algorithm, config, total),
        start=start,
        step=algorithm.make_step(problem),
        support=algorithm.make_support(problem),
        if_not_finite=algorithms.facts(config.algorithm).if_not_finite,
    )


def _work(algorithm: Algorithm, config: ConfigDict, total: int) -> Callable[[int], float]:
    """The `work` of a `Distillation`: the more, the more targets a step has."""
    if total < 2 or algorithm.batch_size(config, 1) == algorithm.batch_size(config, total):
        return float
    sizes = [algorithm.batch_size(config, number) for number in range(1, total + 1)]
    done = np.cumsum([0, *sizes]) / np.mean(sizes)
    return lambda steps: float(done[steps])


def state_template(
    config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int, train_size: int
) -> State:
    """A state with shapes and dtypes in place of arrays.

    Few algorithms have a state whose shapes depend on `train_size`, the number of training images.
    """
    size = config.support.size
    shapes = (size, *image_shape), (size, num_classes)
    images, labels = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return jax.eval_shape(functools.partial(_first_state, config, train_size), images, labels)


def keys(config: ConfigDict) -> tuple[jax.Array, jax.Array]:
    """The keys of a run: one for the draw of its first support, one for its steps."""
    key_support, key_steps = jax.random.split(jax.random.key(config.seed))
    return key_support, key_steps


def first_support(config: ConfigDict, targets: Targets, key: jax.Array) -> Support:
    """The first support of a run: drawn and sorted by class, or read from a file.

    Returns:
        Images (S, H, W, C), of which a share `support.frozen` of the pixels is noise, and labels
        (S, classes).
    """
    if config_lib.from_a_file(config):
        start = export.load_distilled(config.support.init)
        images, labels = jnp.asarray(start.images), jnp.asarray(start.labels)
    else:
        images, labels = base.draw_support(targets, config.support.size, config.support.init, key)
    return frozen.corrupted(images, config.support.frozen, config.seed), labels


def _first_state(
    config: ConfigDict, train_size: int, images: jax.Array, labels: jax.Array
) -> State:
    init = algorithms.find(config.algorithm).init
    asked = "train_size" in inspect.signature(init).parameters
    return init(config, images, labels, **({"train_size": train_size} if asked else {}))


@contextlib.contextmanager
def own_folder(workdir: str, config: ConfigDict) -> Iterator[str]:
    """The absolute path of the run's folder, locked by the first process.

    Raises:
        UserError: another run uses it, it cannot be written to, it lies among the pictures of
            `config`, or the processes' folders differ.
    """
    with contextlib.ExitStack() as stack:
        with multihost.raise_everywhere():
            check_apart(workdir, config)
            folder = RunFolder.make(workdir)
            if multihost.is_first():
                stack.enter_context(folder.locked())
                files.remove_temporaries(folder.path, folder.lock.name)
        holder = folder.lock.read_bytes() if folder.lock.exists() else b""
        multihost.check_same(f"the folder {folder.path} of --workdir", holder)
        yield str(folder.path)


def check_apart(workdir: str, config: ConfigDict) -> None:
    """Raises UserError if the folder lies among the pictures of `config`, or is that of its npz."""
    dataset, data_dir = config.dataset.name, config.dataset.data_dir
    own, root = (Path(path).expanduser().resolve() for path in (workdir, data_dir))
    if dataset == "folder" and data_dir and (own == root or root in own.parents):
        raise UserError(
            f"{own} lies in {root}, whose folders are the classes: take another --workdir."
        )
    if dataset == "npz" and own == root:
        raise UserError(
            f"{own} holds the data, of which it may have one .npz alone: take another --workdir."
        )


def load(config: ConfigDict) -> Dataset:
    """The data set of `config`, with its choice of classes and validation images.

    Raises:
        UserError: files are missing or damaged, or a field does not fit the data.
    """
    with multihost.raise_everywhere():
        dataset = _read(config, config.dataset.name)
        if config.dataset.classes:
            dataset = data.of_classes(dataset, config.dataset.classes)
        share = config.dataset.validation
        return data.hold_out(dataset, share) if share else dataset


def _read(config: ConfigDict, name: str) -> Dataset:
    return data.load_dataset(
        name,
        config.dataset.data_dir,
        image_size=config.dataset.image_size,
        test_fraction=config.dataset.test_fraction,
    )


def _images_to_fit(config: ConfigDict, dataset: Dataset, name: str) -> np.ndarray:
    """Images (n, H, W, C) that preprocessing is fitted on: of the data set `name`; '': `dataset`.

    Raises:
        UserError: those of `name` have another shape, or are those of the data set itself.
    """
    if not name:
        return dataset.known_images
    images = _read(config, name).train_images
    if images.shape[1:] != dataset.image_shape:
        raise UserError(
            f"dataset.preprocess_from is {name!r}, whose images are {images.shape[1:]}, and those "
            f"of {dataset.name} are {dataset.image_shape}: take a data set of the same shape."
        )
    if name == config.dataset.name:
        return images
    whole = dataset.whole and dataset.split == "test"
    own = dataset if whole else _read(config, config.dataset.name)
    if np.array_equal(images, own.train_images):
        raise UserError(
            f"dataset.preprocess_from is {name!r}, and dataset.data_dir has the images of "
            f"{dataset.name} in its place: let it be the folder that has a folder of each."
        )
    return images


def fingerprint_of_tests(dataset: Dataset) -> int:
    """CRC-32 of the test set and the names of the classes."""
    names = zlib.crc32("\n".join(dataset.class_names).encode())
    return _checksum(dataset.test_labels, dataset.test_images, names)


def fingerprint(dataset: Dataset) -> int:
    """CRC-32 of the training set."""
    return _checksum(dataset.train_labels, dataset.train_images)


def _checksum(labels: np.ndarray, images: np.ndarray, start: int = 0) -> int:
    crc = zlib.crc32(np.ascontiguousarray(labels).tobytes(), start)
    return zlib.crc32(np.ascontiguousarray(images).data, crc)


def kept_preprocessing(
    config: ConfigDict, dataset: Dataset, workdir: str, resumed: bool
) -> Preprocess:
    """The preprocessing of a run, fitted once and kept in its folder.

    A `resumed` run reads it, as another machine may round differently. A run that starts from a
    distilled set takes over the preprocessing of the set.
    """
    folder = RunFolder(workdir)
    with multihost.raise_everywhere():
        start = start_of(config, dataset)
        if multihost.is_first() and not (resumed and folder.preprocessing_file.exists()):
            if start is None:
                public = config.dataset.preprocess_from
                fitted = preprocess.fit(config.preprocess, _images_to_fit(config, dataset, public))
            else:
                fitted = preprocessing_of(start, config, dataset, config.preprocess)
            folder.write_preprocessing(fitted)
    if start is not None:
        multihost.check_same("the set of support.init", start.path.read_bytes())
    return folder.preprocessing()


def start_of(config: ConfigDict, dataset: Dataset) -> export.Distilled | None:
    """The distilled set that `support.init` names; None if it names none.

    Raises:
        UserError: it is broken, or does not fit the data set or the configuration.
    """
    if not config_lib.from_a_file(config):
        return None
    start = export.load_distilled(config.support.init)
    export.check_fits(start, dataset, config.preprocess)
    if len(start.images) != config.support.size:
        raise UserError(
            f"{start.path} holds {len(start.images)} images and support.size is "
            f"{config.support.size}: pass --config.support.size={len(start.images)}."
        )
    return start


def preprocessing_of(
    distilled: export.Distilled, config: ConfigDict, dataset: Dataset, name: str
) -> Preprocess:
    """The preprocessing stored with a set, or `name` fitted again if the arrays are lost.

    It is fitted on the data that the set's own run names; if the file says nothing of a run, on
    those of `config`. A set that began with another's preprocessing does not say that one's data.

    Raises:
        UserError: the set does not fit the data set or `name`, or was preprocessed by the data of a
            module that `config` does not name.
    """
    return preprocessings(config, dataset)(distilled, name)


def preprocessings(
    config: ConfigDict, dataset: Dataset
) -> Callable[[export.Distilled, str], Preprocess]:
    """`preprocessing_of` for several sets: what they have in common is fitted once."""
    fit = functools.cache(
        lambda name, public: preprocess.fit(name, _images_to_fit(config, dataset, public))
    )

    def of_set(distilled: export.Distilled, name: str) -> Preprocess:
        export.check_fits(distilled, dataset, name)
        if distilled.preprocess is not None:
            return preprocess.from_arrays(distilled.preprocess)
        public = config.dataset.preprocess_from
        if (fields := distilled.provenance.get("config")) is not None:
            named = fields.get("dataset.preprocess_from", "")
            if named not in ("", public, *data.DATASETS):  # A file alone imports no module.
                raise UserError(
                    f"the preprocessing of {distilled.path} is lost, and was fitted on {named}: "
                    f"pass --config.dataset.preprocess_from={named}."
                )
            public = named
        fitted = fit(name, public)
        _check_is_the_lost_one(fitted, distilled, public or dataset.name)
        return fitted

    return of_set


def _check_is_the_lost_one(fitted: Preprocess, lost: export.Distilled, where: str) -> None:
    """Raises UserError if the means or deviations that the file still has are of other images."""
    now = preprocess.to_arrays(fitted)
    for part in ("mean", "std"):
        kept, leeway = lost.known_preprocess.get(part), _SAME_PIXELS * now["std"].max()
        if kept is not None and np.abs(now[part] - kept).max() > leeway:
            raise UserError(
                f"{lost.path} was whitened by other images than those of {where} (the {part} of "
                f"their pixels was {np.round(kept, 4).tolist()} and is "
                f"{np.round(now[part], 4).tolist()}): take the data that it was made from."
            )


def words_of_kernel(config: ConfigDict) -> str:
    """The kernel of `config` in words: 'convnet, depth 3, ntk, mirrored'."""
    return card.of_kernel(config.kernel.to_dict())


def words_of_krr(config: ConfigDict) -> str:
    """Kernel and ridge of `config` in words: 'convnet, depth 3, ntk; reg 1e-06'."""
    return f"{words_of_kernel(config)}; reg {config.reg:g}"


def kernel_fields(config: ConfigDict) -> dict[str, Any]:
    """Arguments of `architectures.build` and `kernels.make_kernel`, but the implementation."""
    options = {k: v for k, v in config.kernel.items() if k not in ("kind", "implementation")}
    if not config.kernel.mirrored:
        del options["mirrored"]  # Earlier versions do not know it.
    return {**options, "get": config.kernel.kind}


def note_on_kernel(distilled: export.Distilled, config: ConfigDict) -> str:
    """A sentence if the set's run measured by another kernel than that of `config`; else ''."""
    if not distilled.kernel:
        return ""
    made = {"mirrored": False, **distilled.kernel}
    used = {"mirrored": False, **kernel_fields(config)}
    differ = [name for name, value in made.items() if used.get(name) != value]
    if not differ:
        return ""

    def words(fields: dict[str, Any]) -> str:
        names = ("kind" if name == "get" else name for name in differ)
        values = (fields.get(name) for name in differ)
        return ", ".join(f"kernel.{n}={v!r}" for n, v in zip(names, values, strict=True))

    return f"The run of {distilled.path} measured with {words(made)}; here {words(used)}."


def make_kernel(config: ConfigDict, console: Console) -> Kernel:
    """The kernel of `config`, compiled ahead where possible."""
    options = base.kernel_options(config)
    kernels.warm_up(options, console.say)
    return kernels.make_kernel(options)
