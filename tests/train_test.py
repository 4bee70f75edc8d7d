"""Whole runs on the digits, with a kernel that compiles at once (`config_test` takes real ones)."""

import csv
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_kernel

from configs import default
from kip_flax import (
    checkpoint,
    data,
    evaluate,
    export,
    files,
    kernels,
    metrics,
    preprocess,
    record,
    sharding,
    tasks,
    train,
)
from kip_flax.errors import UserError

STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def quick_kernels():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "make_kernel", quick_kernel)
        yield


def small(**fields):
    """KIP, 10 images, 30 targets a step (2 devices: even; 4: not), few test images."""
    config = default.get_config()
    config.kernel.architecture, config.kernel.depth = "fc", 1
    config.batch_size, config.num_steps, config.eval.steps = 30, STEPS, (5,)
    config.eval.num_test, config.eval.batch_size = 60, 25
    config.checkpoint.every_steps, config.log.every_steps = 4, 2
    config.mesh.data = 2
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def label_solve(**fields):
    return small(algorithm="ls", batch_size=400, support__size=20, **fields)


def assert_same(got, expected, tolerance=0.0):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def artefacts(workdir):
    return {path.name: path.read_bytes() for path in (workdir / "distilled").iterdir()}


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """The process gets a signal when it has told of `step`."""
    told = metrics.Console.progress

    def progress(self, text):
        told(self, text)
        if text.startswith(f"step {step}/"):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(metrics.Console, "progress", progress)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, quick_kernels):
    """A whole run with everything random in it: its folder and state."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, train.train_and_evaluate(small(augment="shift"), str(workdir))


def test_a_run_learns_and_leaves_its_artefacts(undisturbed):
    workdir, state = undisturbed
    names = [f"FC1_ssize10_nozca_l_aug_ckpt{step}.npz" for step in (0, 5, STEPS)]
    assert sorted(artefacts(workdir)) == sorted([*names, "index.csv"])
    told = result(workdir)
    first, _, last = told["evaluations"]
    assert told["status"] == "finished"
    assert [row["step"] for row in told["evaluations"]] == [0, 5, STEPS]
    assert last["accuracy"] > first["accuracy"] + 0.05
    assert last["mse"] < first["mse"]
    assert told["step_ms"] > 0
    assert told["hardware"].startswith("4 x cpu")
    with open(workdir / "distilled" / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["ckpt"]) for row in rows] == [0, 5, STEPS]
    assert float(rows[2]["test_acc"]) == pytest.approx(last["accuracy"], rel=1e-5)
    distilled = export.load_distilled(workdir / "distilled" / names[2])
    images, labels = state.support
    np.testing.assert_array_equal(distilled.images, images)
    np.testing.assert_array_equal(distilled.labels, labels)
    assert (workdir / record.PICTURE).stat().st_size > 1000
    assert list((workdir / "metrics").glob("events.out.tfevents.*"))
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 30


def test_the_start_is_a_balanced_draw_of_real_images_in_order_of_class(undisturbed):
    workdir, _ = undisturbed
    distilled = export.load_distilled(workdir / "distilled" / "FC1_ssize10_nozca_l_aug_ckpt0.npz")
    np.testing.assert_allclose(distilled.labels, np.eye(10) - 0.1, atol=1e-7)
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    train_images = preprocess.apply(fitted, digits.train_images)
    for number, image in enumerate(distilled.images):
        same = np.abs(train_images - image).max(axis=(1, 2, 3)) == 0
        assert number in digits.train_labels[same]


def test_evaluating_the_file_gives_what_the_run_measured(undisturbed):
    workdir, _ = undisturbed
    path = workdir / "distilled" / f"FC1_ssize10_nozca_l_aug_ckpt{STEPS}.npz"
    measures = train.evaluate_file(small(), str(path))
    last = result(workdir)["evaluations"][-1]
    assert measures["accuracy"] == pytest.approx(last["accuracy"], abs=1e-7)
    assert measures["mse"] == pytest.approx(last["mse"], rel=1e-5)


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
    assert state.step == 7  # The step after the one that was told of.
    assert result(tmp_path)["status"] == "stopped"
    assert "stopped and saved at step 7" in capsys.readouterr().out
    assert signal.getsignal(number) == before
    assert_same(train.train_and_evaluate(small(augment="shift"), str(tmp_path)), expected)
    assert "going on from the checkpoint of step 7" in capsys.readouterr().out
    assert artefacts(tmp_path) == artefacts(workdir)


def test_a_lost_checkpoint_is_made_up_for(undisturbed, tmp_path):
    """As after a crash: artefacts of later steps are there already, the checkpoint is older."""
    workdir, expected = undisturbed
    train.train_and_evaluate(small(augment="shift"), str(tmp_path))
    for step in (8, STEPS):
        folder = tmp_path / "checkpoints" / str(step)
        folder.rename(tmp_path / str(step))
    assert_same(train.train_and_evaluate(small(augment="shift"), str(tmp_path)), expected)
    assert artefacts(tmp_path) == artefacts(workdir)
    assert [row["step"] for row in result(tmp_path)["evaluations"]] == [0, 5, STEPS]


def test_a_finished_run_does_nothing(undisturbed, capsys):
    workdir, expected = undisturbed

    def written():
        files = (path for path in workdir.rglob("*") if path.is_file() and path.name != train.LOCK)
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
        files.locked(tmp_path / train.LOCK, "the folder"),
        pytest.raises(UserError, match="in use by another run") as caught,
    ):
        train.train_and_evaluate(small(), str(tmp_path))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [train.LOCK]


def test_other_data_in_the_folder_are_refused(undisturbed, monkeypatch):
    workdir, _ = undisturbed
    monkeypatch.setattr(train, "fingerprint", lambda dataset: 1)
    with pytest.raises(UserError, match="was made from other data"):
        train.train_and_evaluate(small(augment="shift"), str(workdir))


# Adam would magnify the rounding of gradients that are next to nothing.
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
        runs.append((state.support, result(workdir)["evaluations"][-1]["mse"]))
    for support, mse in runs[1:]:
        assert_same(support, runs[0][0], tolerance=1e-5)
        assert mse == pytest.approx(runs[0][1], rel=1e-5)
    if "algorithm" not in fields:
        start = export.load_distilled(next((workdir / "distilled").glob("*ckpt0.npz")))
        assert np.abs(runs[0][0][0] - start.images).max() > 0.1


def test_label_solve_is_the_closed_form_over_all_targets(tmp_path):
    config = label_solve(reg=1e-3)
    state = train.train_and_evaluate(config, str(tmp_path))
    assert state.step == 4  # 1,438 targets in tiles of 400.
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    x_t = jnp.asarray(preprocess.apply(fitted, digits.train_images))
    y_t = np.eye(10)[digits.train_labels] - 0.1
    kernel = quick_kernel(None)
    k_ss = np.asarray(kernel(state.images, state.images), np.float64)
    k_st = np.asarray(kernel(state.images, x_t), np.float64)
    ridge = 1e-3 / 20 * np.eye(20)
    expected = (k_ss + ridge) @ np.linalg.solve(k_st @ k_st.T + ridge, k_st @ y_t)
    path = tmp_path / "distilled" / "FC1_ssize20_nozca_l_noaug_ckpt1.npz"
    np.testing.assert_allclose(export.load_distilled(path).labels, expected, rtol=1e-4, atol=1e-5)
    natural, solved = result(tmp_path)["evaluations"]
    assert solved["accuracy"] > natural["accuracy"] + 0.05
    assert (tmp_path / "distilled" / "FC1_ssize20_nozca_nol_noaug_ckpt0.npz").exists()


def test_label_solve_goes_on_bit_identical(tmp_path, monkeypatch):
    expected = train.train_and_evaluate(label_solve(), str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        state = train.train_and_evaluate(label_solve(), str(tmp_path / "cut"))
        assert state.step == 3
    state = train.train_and_evaluate(label_solve(), str(tmp_path / "cut"))
    assert_same(state, expected)
    assert artefacts(tmp_path / "cut") == artefacts(tmp_path / "whole")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config = small(optimizer__name="sgd", optimizer__learning_rate=1e30)
    with pytest.raises(UserError, match="not finite") as caught:
        train.train_and_evaluate(config, str(tmp_path))
    assert "after step 0 and by step 2" in str(caught.value)
    assert "checkpoint of step 0 is kept" in str(caught.value)
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        restored = checkpoint.restore(manager, tasks.template(config, (8, 8, 1), 10))
    assert restored.step == 0
    assert np.isfinite(restored.state.support[0]).all()


def test_a_singular_kernel_names_the_regulariser_before_the_first_step(tmp_path, monkeypatch):
    def linear(x1, x2):
        return x1.reshape(len(x1), -1)[:, :4] @ x2.reshape(len(x2), -1)[:, :4].T - 1

    monkeypatch.setattr(kernels, "make_kernel", lambda spec, **options: linear)
    with pytest.raises(UserError, match="reg"):
        train.train_and_evaluate(small(reg=0.0), str(tmp_path))
    assert not any((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_mesh_larger_than_the_devices_is_refused(tmp_path):
    with pytest.raises(UserError, match="8 devices and there are 4"):
        train.train_and_evaluate(small(mesh__data=8), str(tmp_path))


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_optimizer_follows_its_schedule(name, schedule):
    """With a gradient of 1, Adam's step is the rate, and so is that of sgd without momentum."""
    tx = tasks.make_optimizer(name, 0.1, schedule, 4, 0.0, 20)
    params = jnp.zeros(())
    state, steps = tx.init(params), []
    for _ in range(20):
        update, state = tx.update(jnp.ones(()), state, params)
        steps.append(-float(update))
    t = np.arange(16)
    decay = 0.05 * (1 + np.cos(np.pi * t / 16)) if schedule == "cosine" else np.full(16, 0.1)
    np.testing.assert_allclose(steps, [0, 0.025, 0.05, 0.075, *decay], rtol=1e-5, atol=1e-8)


def test_noise_support_has_one_of_each_class():
    config = small(support__init="noise", support__size=20)
    labels = np.arange(40) % 10
    targets = tasks.Targets(np.zeros((40, 8, 8, 1), np.float32), labels, 10)
    images, labels = tasks.init_support(config, targets, jax.random.key(0))
    assert images.shape == (20, 8, 8, 1)
    assert abs(float(images.std()) - 1) < 0.1
    np.testing.assert_array_equal(np.argmax(labels, axis=1), np.repeat(np.arange(10), 2))


def test_published_steps_are_marked():
    marks = tasks.make_task(
        small(num_steps=2100, eval__steps=()),
        tasks.Targets(np.zeros((40, 8, 8, 1), np.float32), np.arange(40) % 10, 10),
        (jnp.zeros((10, 8, 8, 1)), jnp.zeros((10, 10))),
        quick_kernel(None),
        sharding.make_mesh(1, 1),
        jax.random.key(0),
    ).marks
    assert {0, 1, 54, 695, 1000, 1500, 2000, 2100} <= marks
    assert marks & set(range(700, 2101)) == {1000, 1500, 2000, 2100}


def test_test_subset_is_used(undisturbed):
    workdir, state = undisturbed
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    images, labels = evaluate.test_subset(digits, 60)
    kernel = quick_kernel(None)
    measure = evaluate.make_evaluate(
        kernel, preprocess.apply(fitted, images), labels, reg=1e-6, batch_size=60
    )
    own = jax.device_get(state.support)
    assert measure(*own)["accuracy"] == pytest.approx(
        result(workdir)["evaluations"][-1]["accuracy"], abs=1e-7
    )


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def flush(self):
        pass

    def write(self, text):
        self.text += text


def test_console_rewrites_progress_at_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "21")
    stream = Terminal()
    console = metrics.Console(stream)
    console.progress("step 1")
    console.progress("step 2, and much more than fits")
    console.say("done")
    assert stream.text == "\rstep 1" + " " * 14 + "\rstep 2, and much mor" + "\ndone\n"


def test_console_prints_plain_lines_elsewhere(capsys):
    console = metrics.Console()
    console.progress("step 1")
    console.progress("step 2")
    assert capsys.readouterr().out == "step 1\nstep 2\n"


def test_stopwatch_counts_steps_without_pauses(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    clock = metrics.Stopwatch(10, 110, pairs=50)
    now[0] += 4
    with clock.paused():
        now[0] += 1000
    figures = clock.look(20)
    assert figures == {"step_ms": 400.0, "pairs_per_s": 125.0, "eta_s": 36.0}
    assert clock.look(20) == figures


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(8.4, "8 s"), (59.9, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_in_words(seconds, words):
    assert metrics.duration(seconds) == words


def test_counts_in_words():
    assert [metrics.count(n) for n in (950, 12300, 4.56e6)] == ["950", "12.3k", "4.56M"]
