"""Whole runs on the digits with a kernel that compiles at once, for the tests of several files."""

import json
import os
import signal

import jax
import numpy as np
import pytest
import quick

from configs import default
from kip_flax import architectures, data, preprocess
from kip_flax.kernels import build
from kip_flax.modes.train import mode as train
from kip_flax.runs.exporter import Exporter
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.console import Console

STEPS = 12


@pytest.fixture(scope="module")
def digits():
    return data.load_dataset("digits")


@pytest.fixture(scope="module")
def quick_kernels():
    with pytest.MonkeyPatch.context() as patch:
        quick.install(patch)
        yield


def small(**fields):
    """KIP, 10 images, 30 targets a step (2 devices: even; 4: not), few test images."""
    config = default.get_config()
    config.kernel.architecture, config.kernel.depth = "fc", 1
    config.batch_size, config.num_steps, config.eval.steps = 30, STEPS, (5,)
    config.eval.num_test, config.eval.batch_size = 60, 25
    config.checkpoint.every_steps, config.log.every_steps = 4, 2
    config.mesh.data = 2
    config.report.num_train = 0  # No analysis, which has tests of its own.
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def exporter_in(folder):
    """An exporter of a run of `small` that begins with the first ten digits."""
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    initial = preprocess.apply(fitted, digits.train_images[:10]), np.eye(10, dtype=np.float32)
    return Exporter(RunFolder(folder), small(), digits, fitted, initial)


def label_solve(**fields):
    return small(algorithm="ls", batch_size=400, support__size=20, **fields)


def exact_kernels(images, x):
    """K_ts (T, S) and K_ss (S, S) of the network of `small` by neural_tangents, in float64."""
    # Not `kernels.make_kernel`, for which `quick_kernels` puts another kernel.
    kernel = jax.jit(build.make_kernel(architectures.fc(1), implementation="neural_tangents"))
    images = images.astype(float)
    return [np.asarray(kernel(rows.astype(float), images)) for rows in (x, images)]


def assert_same(got, expected, tolerance=0.0):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def artefacts(workdir):
    """The files of the sets. No checkpoint was unreadable: that would hide what a resume loses."""
    assert not RunFolder(workdir).unreadable_checkpoints.exists()
    return {path.name: path.read_bytes() for path in (workdir / "distilled").iterdir()}


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """The process gets a signal when it has reported `step`."""
    original = Console.progress

    def progress(self, text, *figures):
        original(self, text, *figures)
        if text.startswith(f"step {step}/"):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Console, "progress", progress)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, quick_kernels):
    """A whole run with everything random in it: its folder and state."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, train.train_and_evaluate(small(augment="shift"), str(workdir))
