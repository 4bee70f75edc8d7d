"""Runs that are stopped, lost, refused or broken, and what the same command does next."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
from whole_runs import (
    STEPS,
    artefacts,
    assert_same,
    label_solve,
    result,
    small,
    stop_at,
)

from kip_flax import export, kernels
from kip_flax.modes.train import mode as train
from kip_flax.runs import checkpoint, setup
from kip_flax.runs.folder import RunFolder
from kip_flax.runs.loop import Training
from kip_flax.runs.record import Recorder
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_kernels")


def test_going_on_is_bit_identical(undisturbed, tmp_path):
    workdir, expected = undisturbed
    for num_steps in (5, 6, STEPS):
        state = train.train_and_evaluate(small(augment="shift", num_steps=num_steps), str(tmp_path))
        assert state.step == num_steps
    assert_same(state, expected)
    written = artefacts(tmp_path)
    for name, content in artefacts(workdir).items():
        assert name == "index.csv" or written[name] == content
    assert [row["step"] for row in result(tmp_path)["evaluations"]] == [0, 5, 6, STEPS]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_start_ends_alike(
    undisturbed, tmp_path, monkeypatch, capsys, number
):
    workdir, expected = undisturbed
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_at(patch, 6, number)
        state = train.train_and_evaluate(small(augment="shift"), str(tmp_path))
    assert state.step == 7  # The step after the one that was reported.
    assert result(tmp_path)["status"] == "stopped"
    assert "stopped and saved at step 7" in capsys.readouterr().out
    assert signal.getsignal(number) == before
    assert_same(train.train_and_evaluate(small(augment="shift"), str(tmp_path)), expected)
    assert "going on from the checkpoint of step 7" in capsys.readouterr().out
    assert artefacts(tmp_path) == artefacts(workdir)


def test_a_signal_while_a_step_runs_ends_the_run_with_that_step(undisturbed, tmp_path, monkeypatch):
    """A step is begun and then waited for: one that takes minutes is the last one to wait for."""
    waited = Training._check_finite

    def signalled(training, state, before, step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        waited(training, state, before, step)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_check_finite", signalled)
        state = train.train_and_evaluate(small(augment="shift"), str(tmp_path))
    assert state.step == 6
    assert result(tmp_path)["status"] == "stopped"
    assert_same(train.train_and_evaluate(small(augment="shift"), str(tmp_path)), undisturbed[1])
    assert artefacts(tmp_path) == artefacts(undisturbed[0])


def test_a_kill_loses_no_more_of_the_clock_than_of_the_steps(tmp_path, monkeypatch):
    """Its result.json is that of the last evaluation, its checkpoint is younger."""
    progress = Console.progress

    def killed(self, text, *figures):
        progress(self, text, *figures)
        if text.startswith("step 10/"):
            raise MemoryError

    config = small(eval__steps=(0,))
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "seconds", property(lambda _: 7200.0))
        patch.setattr(Console, "progress", killed)
        with pytest.raises(MemoryError):
            train.train_and_evaluate(config, str(tmp_path))
    with checkpoint.open_manager(tmp_path, keep=1) as manager:
        assert manager.latest_step() == 8
    earlier = result(tmp_path)
    earlier["seconds"] = 1.0
    (tmp_path / "result.json").write_text(json.dumps(earlier))
    train.train_and_evaluate(config, str(tmp_path))
    assert 7200 < result(tmp_path)["seconds"] < 7300


def test_a_run_does_not_end_before_the_step_at_which_it_was_stopped(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        train.train_and_evaluate(small(), str(tmp_path))
    with pytest.raises(
        UserError, match=r"stopped at step 7, beyond num_steps=5: give --config\.num"
    ):
        train.train_and_evaluate(small(num_steps=5), str(tmp_path))
    train.train_and_evaluate(small(num_steps=7), str(tmp_path))
    assert result(tmp_path)["status"] == "finished"
    assert [row["step"] for row in result(tmp_path)["evaluations"]] == [0, 5, 7]


def test_a_kill_within_an_evaluation_that_a_checkpoint_is_due_at_loses_no_step(
    undisturbed, tmp_path, monkeypatch
):
    def killed(self, state, step, due):
        if step == STEPS:
            raise RuntimeError("killed")
        evaluate(self, state, step, due)

    evaluate = Training._evaluate
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_evaluate", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train.train_and_evaluate(small(augment="shift"), str(tmp_path))
    assert (tmp_path / "checkpoints" / str(STEPS)).is_dir()
    workdir, expected = undisturbed
    assert_same(train.train_and_evaluate(small(augment="shift"), str(tmp_path)), expected)
    assert artefacts(tmp_path) == artefacts(workdir)


def test_a_lost_checkpoint_is_made_up_for(undisturbed, tmp_path):
    """As after a crash: artefacts of later steps are there already, the checkpoint is older."""
    workdir, expected = undisturbed
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    for step in (8, STEPS):
        folder = tmp_path / "checkpoints" / str(step)
        folder.rename(tmp_path / str(step))
    assert_same(train.train_and_evaluate(small(augment="shift"), str(tmp_path)), expected)
    assert artefacts(tmp_path) == artefacts(workdir)
    assert [row["step"] for row in result(tmp_path)["evaluations"]] == [0, 5, STEPS]


def test_a_finished_run_does_nothing(undisturbed, capsys):
    workdir, expected = undisturbed

    def written():
        files = (path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    assert_same(train.train_and_evaluate(small(augment="shift"), str(workdir)), expected)
    assert "nothing to do" in capsys.readouterr().out
    assert written() == before


def test_another_experiment_in_the_folder_is_refused(undisturbed):
    workdir, _ = undisturbed
    with pytest.raises(UserError, match=r"another experiment: reg was 1e-06 and is now 0\.01"):
        train.train_and_evaluate(small(augment="shift", reg=0.01), str(workdir))


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(UserError, match="in use by another run") as caught,
    ):
        train.train_and_evaluate(small(), str(tmp_path))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_data_in_the_folder_are_refused(undisturbed, monkeypatch):
    workdir, _ = undisturbed
    monkeypatch.setattr(setup, "fingerprint", lambda dataset: 1)
    with pytest.raises(UserError, match="was made from other data"):
        train.train_and_evaluate(small(augment="shift"), str(workdir))


def test_other_test_images_in_the_folder_are_refused(undisturbed, digits, monkeypatch):
    workdir, _ = undisturbed
    others = (
        {"test_labels": digits.test_labels[::-1]},
        {"test_images": 255 - digits.test_images},
        {"class_names": tuple("abcdefghij")},
    )
    for changed in others:
        monkeypatch.setattr(setup, "load", lambda _, c=changed: dataclasses.replace(digits, **c))
        with pytest.raises(UserError, match="was tested on other images or labels, or has classes"):
            train.train_and_evaluate(small(augment="shift"), str(workdir))


# Adam would magnify the rounding of gradients that are next to nothing.
@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer__name": "sgd", "optimizer__learning_rate": 40.0},
        {"algorithm": "ls", "batch_size": 500},
    ],
)
def test_devices_do_not_change_the_result(fields, tmp_path):
    meshes = [(1, 1), (2, 1), (4, 1), (2, 2)]
    runs = []
    for axes in meshes:
        workdir = tmp_path / f"{axes}"
        config = small(
            mesh__data=axes[0], mesh__support=axes[1], num_steps=5, eval__steps=(0,), **fields
        )
        state = train.train_and_evaluate(config, str(workdir))
        found = RunFolder(workdir).distilled()
        exported = export.load_distilled(found[max(found)])  # With labels that were solved for.
        runs.append(((exported.images, exported.labels), result(workdir)["evaluations"][-1]["mse"]))
        if "algorithm" not in fields:
            assert_same(state.support, runs[-1][0])
    for support, mse in runs[1:]:
        assert_same(support, runs[0][0], tolerance=1e-5)
        assert mse == pytest.approx(runs[0][1], rel=1e-5)
    if "algorithm" not in fields:
        start = export.load_distilled(next((workdir / "distilled").glob("*ckpt0.npz")))
        assert np.abs(runs[0][0][0] - start.images).max() > 0.1


def test_label_solve_goes_on_bit_identical(tmp_path, monkeypatch):
    expected = train.train_and_evaluate(label_solve(), str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        state = train.train_and_evaluate(label_solve(), str(tmp_path / "cut"))
        assert state.step == 3
    state = train.train_and_evaluate(label_solve(), str(tmp_path / "cut"))
    assert_same(state, expected)
    assert artefacts(tmp_path / "cut") == artefacts(tmp_path / "whole")


def test_a_singular_kernel_names_the_regulariser_before_the_first_step(tmp_path, monkeypatch):
    def linear(x1, x2):
        return x1.reshape(len(x1), -1)[:, :4] @ x2.reshape(len(x2), -1)[:, :4].T - 1

    monkeypatch.setattr(kernels, "make_kernel", lambda spec, **options: linear)
    with pytest.raises(UserError, match="reg"):
        train.train_and_evaluate(small(reg=0.0), str(tmp_path))
    assert not any((tmp_path / "checkpoints").glob("[0-9]*"))
