"""The analysis of a run from what lies in its folder: which images, and what it is told of them."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import data, export, preprocess
from kip_flax.algorithms.base import Kernel
from kip_flax.data import Dataset
from kip_flax.modes.report import facts as report_facts
from kip_flax.preprocess import Preprocess
from kip_flax.runs import analysis, evaluate
from kip_flax.runs.analysis import Sample
from kip_flax.runtime import multihost

TARGETS_PER_IMAGE = 10  # Fewer would leave Label Solve too little to solve for.


def analyse_run(
    workdir: Path,
    config: ConfigDict,
    dataset: Dataset,
    fitted: Preprocess,
    kernel: Kernel,
    mesh: Mesh,
) -> None:
    """Analyses the last set of the run in `workdir` and writes analysis.npz.

    Does nothing where `report.num_train` is 0, or where that file is there for that very set. All
    processes of a run call it; the first one writes.

    Args:
        workdir: of a run with at least one evaluation.
        config: of the run.
        dataset, fitted: its data and preprocessing.
        kernel: spread over `mesh`.
    """
    steps = [row["step"] for row in report_facts.read_json(workdir / "result.json")["evaluations"]]
    files = report_facts.distilled_files(workdir, steps)
    if not files or not config.report.num_train:
        return
    first, last = (export.load_distilled(files[step]) for step in (min(files), max(files)))
    if analysis.read(workdir, last.path) is not None:
        return
    began = time.perf_counter()
    size = max(config.report.num_train, TARGETS_PER_IMAGE * len(last.images))
    train, test = _train(dataset, fitted, size, config.seed), _test(dataset, fitted, config)
    found = analysis.analyse(
        (last.images, last.labels),
        (first.images, first.labels),
        analysis.Rows(kernel, config.eval.batch_size, mesh),
        train,
        test,
        config.reg,
    )
    told: dict[str, Any] = {
        "step": int(max(files)),
        "num_train": len(train.labels),
        "of_train": train.total,
        "num_test": len(test.labels),
        "of_test": test.total,
        "seconds": round(time.perf_counter() - began, 3),
    }
    with multihost.together():
        if multihost.is_first():
            analysis.write(workdir, last.path, found, told)


def _train(dataset: Dataset, fitted: Preprocess, size: int, seed: int) -> Sample:
    labels = dataset.train_labels
    key = jax.random.key(seed)
    rows = np.sort(data.balanced_draw(labels, min(size, len(labels)), dataset.num_classes, key))
    pixels = dataset.train_images[rows]
    return Sample(pixels, preprocess.apply(fitted, pixels), labels[rows], len(labels))


def _test(dataset: Dataset, fitted: Preprocess, config: ConfigDict) -> Sample:
    pixels, labels = evaluate.test_subset(dataset, config.eval.num_test)
    return Sample(pixels, preprocess.apply(fitted, pixels), labels, len(dataset.test_labels))
