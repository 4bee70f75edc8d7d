"""What the modes begin with: a folder of their own, the data, their preprocessing, the kernel."""

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax import data, export, kernels, preprocess
from kip_flax.algorithms import base as tasks
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.preprocess import Preprocess
from kip_flax.runs import evaluate
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files, multihost
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError


@contextlib.contextmanager
def own_folder(workdir: str) -> Iterator[str]:
    """The folder, absolute, for this run alone: the first process locks it, the others see that."""
    with contextlib.ExitStack() as stack:
        with multihost.raise_everywhere():
            folder = RunFolder.make(workdir)
            if multihost.is_first():
                stack.enter_context(folder.locked())
                files.remove_temporaries(folder.path)
        holder = folder.lock.read_bytes() if folder.lock.exists() else b""
        multihost.check_same(f"the folder {folder.path} of --workdir", holder)
        yield str(folder.path)


def load(config: ConfigDict) -> Dataset:
    """The data set that `config` names."""
    with multihost.raise_everywhere():
        dataset = data.load_dataset(
            config.dataset.name,
            config.dataset.data_dir,
            image_size=config.dataset.image_size,
            test_fraction=config.dataset.test_fraction,
        )
        share = config.dataset.validation
        return data.hold_out(dataset, share) if share else dataset


def fingerprint(dataset: Dataset) -> int:
    """CRC-32 of the training set."""
    crc = zlib.crc32(np.ascontiguousarray(dataset.train_labels).tobytes())
    return zlib.crc32(np.ascontiguousarray(dataset.train_images).data, crc)


def kept_preprocessing(
    config: ConfigDict, dataset: Dataset, workdir: str, resumed: bool
) -> Preprocess:
    """Fitted once per run and kept beside the checkpoints: another machine may round otherwise.

    That of a distilled set that the run begins with is taken over.
    """
    folder = RunFolder(workdir)
    with multihost.raise_everywhere():
        start = start_of(config, dataset)
        if multihost.is_first() and not (resumed and folder.preprocessing_file.exists()):
            if start is None:
                fitted = preprocess.fit(config.preprocess, dataset.known_images)
            else:
                fitted = preprocessing_of(start, dataset, config.preprocess)
            folder.write_preprocessing(fitted)
    if start is not None:
        multihost.check_same("the set of support.init", start.path.read_bytes())
    return folder.preprocessing()


def start_of(config: ConfigDict, dataset: Dataset) -> export.Distilled | None:
    """The distilled set that the run begins with, where `support.init` names one.

    Raises:
        UserError: it is broken, or does not fit the data set or the configuration.
    """
    if not config_lib.from_a_file(config):
        return None
    start = export.load_distilled(config.support.init)
    evaluate.check_fits(start, dataset, config.preprocess)
    if len(start.images) != config.support.size:
        raise UserError(
            f"{start.path} holds {len(start.images)} images and support.size is "
            f"{config.support.size}: pass --config.support.size={len(start.images)}."
        )
    return start


def preprocessing_of(distilled: export.Distilled, dataset: Dataset, name: str) -> Preprocess:
    """The preprocessing in a file, or the one called `name` fitted where the file has none.

    Raises:
        UserError: the file does not fit the data set or `name`.
    """
    evaluate.check_fits(distilled, dataset, name)
    if distilled.preprocess is None:
        return preprocess.fit(name, dataset.known_images)
    return preprocess.from_arrays(distilled.preprocess)


def make_kernel(config: ConfigDict, console: Console) -> Kernel:
    """The kernel that `config` names, compiled ahead where that can be done."""
    options = tasks.kernel_options(config)
    kernels.warm_up(options, console.say)
    return kernels.make_kernel(options)
