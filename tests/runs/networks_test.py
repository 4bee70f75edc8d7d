"""Networks that judge the set of a run: what they are tested on, and that they change nothing."""

import csv
import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from whole_runs import STEPS, artefacts, assert_same, result, small

from kip_flax import data, export, preprocess
from kip_flax.modes.train import mode as train
from kip_flax.modes.transfer import mode as transfer
from kip_flax.networks import figures, progress, rounds, trial
from kip_flax.runs import networks, setup
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_kernels")
NAME = "fc:1"


def judged(**fields):
    """`small` with networks that are trained in a second."""
    of_networks = {
        "augment": "shift",
        "eval__networks": (NAME,),
        "transfer__width": 64,
        "transfer__num_steps": 150,
        "transfer__average": 0.0,
        "transfer__augment": "",
        "transfer__learning_rate": (1e-2,),
        "transfer__seeds": 3,
        "transfer__held_out": 0.2,
    }
    return small(**(of_networks | fields))


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_kernels):
    workdir = tmp_path_factory.mktemp("judged")
    return workdir, train.train_and_evaluate(judged(), str(workdir))


def test_the_set_and_the_figures_of_the_kernel_are_those_of_a_run_without_networks(
    run, undisturbed
):
    assert_same(run[1], undisturbed[1])
    evaluations = [dict(row) for row in result(run[0])["evaluations"]]
    assert all(row.pop("networks") for row in evaluations)
    assert evaluations == result(undisturbed[0])["evaluations"]
    for step in (0, 5, STEPS):
        one, other = (
            export.load_distilled(next((folder / "distilled").glob(f"*ckpt{step}.npz")))
            for folder in (run[0], undisturbed[0])
        )
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_test_images_are_read_after_the_last_step_alone(run):
    rows = [row["networks"] for row in result(run[0])["evaluations"]]
    counts = [[(row["on"], len(row["accuracies"])) for row in at_step] for at_step in rows]
    assert counts == [[("held_out", 2)], [("held_out", 2)], [("held_out", 2), ("test", 3)]]
    for row in (row for at_step in rows for row in at_step):
        assert (row["network"], row["width"], row["learning_rate"]) == (NAME, 64, 1e-2)
        assert row["recipe"].startswith("auto: 150 steps of at most 500 images, mse")
        assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
        assert row["std"] == pytest.approx(np.std(row["accuracies"], ddof=1))
        assert row["mean"] > 0.15  # Of ten classes.


def test_the_test_figure_is_that_of_transfer(run, tmp_path):
    (path,) = (run[0] / "distilled").glob(f"*ckpt{STEPS}.npz")
    config = judged(transfer__networks=(NAME,))
    (row,) = transfer.transfer_file(config, str(path), str(tmp_path))
    assert row["accuracies"] == result(run[0])["evaluations"][-1]["networks"][1]["accuracies"]


def test_the_time_of_networks_is_that_of_their_trainings(digits, monkeypatch):
    """Two networks before the end; with the test images three more, and more images."""
    fitted = preprocess.fit("standard", digits.train_images)
    mesh = train.sharding.make_mesh(1, 1)
    found = networks.make_network_evaluate(judged(), digits, fitted, mesh)
    cost = progress.Cost(compiling=9.0, step=0.1, image=0.01, once=0.0)
    monkeypatch.setattr(trial.Trial, "probe", lambda *args: cost)
    images, labels = digits.train_images[:10], np.zeros((10, 10), np.float32)
    before_end, at_end = found.seconds(images, labels, watch=None)
    held_out = len(found.watched.labels)
    assert before_end == pytest.approx(2 * (150 * 0.1 + held_out * 0.01))
    tested = 3 * (150 * 0.1 + found.config.eval.num_test * 0.01)
    assert at_end == pytest.approx(before_end + tested)


@pytest.mark.parametrize(("devices", "ratio"), [(1, 1 + 3 / 2), (2, 1 + 2), (4, 1 + 1)])
def test_the_last_evaluation_takes_as_many_rounds_more_as_its_networks_need(digits, devices, ratio):
    """Two networks on held-out images before, and three more on test images at the end."""
    fitted = preprocess.fit("standard", digits.train_images)
    mesh = train.sharding.make_mesh(devices, 1)
    found = networks.make_network_evaluate(judged(), digits, fitted, mesh)
    assert found.at_end == ratio
    validated = data.hold_out(digits, 0.1)
    assert networks.make_network_evaluate(judged(), validated, fitted, mesh).at_end == 1


def test_digits_are_not_mirrored_for_networks_either(digits):
    photographs = dataclasses.replace(digits, mirrorable=True)
    config = judged()
    for spec, data_set, refused in (
        ("nudge,flip", digits, True),
        ("shift", digits, False),
        ("nudge,flip", photographs, False),
    ):
        config.transfer.augment = spec
        if refused:
            with pytest.raises(UserError, match=r"^transfer\.augment mirrors images"):
                networks.make_recipes(config, data_set)
        else:
            names = tuple(spec.split(","))
            assert networks.make_recipes(config, data_set)(10).augments == names
    config.transfer.augment = "nudge"  # Up to a sixteenth of eight pixels.
    with pytest.raises(
        UserError, match=r"^transfer\.augment is 'nudge', which moves .* of 8 pixels"
    ):
        networks.make_recipes(config, digits)
    config.transfer.augment = "fog"
    with pytest.raises(UserError, match=r"transfer\.augment is a comma list of"):
        networks.make_recipes(config, digits)


def test_held_out_images_are_training_images_evenly_over_the_classes(digits):
    fitted = preprocess.fit("standard", digits.train_images)
    mesh = train.sharding.make_mesh(1, 1)
    watched = networks.make_network_evaluate(judged(), digits, fitted, mesh).watched
    assert len(watched.labels) == round(0.2 * len(digits.train_labels))
    counts = np.bincount(watched.labels)
    assert max(counts) - min(counts) <= 1
    known = {image.tobytes() for image in preprocess.apply(fitted, digits.train_images)}
    assert {image.tobytes() for image in watched.images} <= known
    assert networks.make_network_evaluate(small(), digits, fitted, mesh) is None


def test_the_images_that_a_run_starts_from_are_not_the_held_out_ones(digits):
    """One key for both would draw the same images first."""
    key_support, _ = setup.keys(judged(seed=3))
    held = networks.held_out_rows(digits.train_labels, 10, 0.2, networks.keys(3).held_out)
    drawn = data.balanced_draw(digits.train_labels, 100, 10, key_support)
    assert len(set(drawn.tolist()) & set(held.tolist())) < 40  # By chance some 20.


def test_no_class_is_held_out_as_a_whole():
    labels = np.repeat([0, 1, 2], [1000, 40, 1])
    rows = networks.held_out_rows(labels, 4, 0.1, jax.random.key(0))
    np.testing.assert_array_equal(np.bincount(labels[rows], minlength=4), [63, 20, 0, 0])
    np.testing.assert_array_equal(rows, np.unique(rows))
    lonely = networks.held_out_rows(np.arange(4), 4, 0.1, jax.random.key(0))
    assert len(lonely) == 1
    for seed in range(10):
        (one,) = networks.held_out_rows(np.array([1, 0, 0, 0, 0, 0]), 2, 0.1, jax.random.key(seed))
        assert one > 0  # The only image of its class stays.


def test_validation_images_are_watched_and_no_test_image_is_read(tmp_path, monkeypatch, digits):
    nothing = dataclasses.replace(digits, test_images=np.zeros_like(digits.test_images))
    monkeypatch.setattr(data, "load_dataset", lambda *args, **kwargs: nothing)
    config = judged(dataset__validation=0.2, num_steps=2, eval__steps=(2,), eval__num_test=0)
    train.train_and_evaluate(config, str(tmp_path))
    for evaluation in result(tmp_path)["evaluations"]:
        (row,) = evaluation["networks"]
        assert row["on"] == "validation"
        # A share of the validation images, of which there are so many.
        held = len(data.hold_out(digits, 0.2).test_labels)
        assert row["accuracies"][0] * held == pytest.approx(round(row["accuracies"][0] * held))


def test_the_figures_are_in_index_history_tensorboard_and_file(run):
    workdir = run[0]
    means = {
        row["step"]: [one["mean"] for one in row["networks"]]
        for row in result(workdir)["evaluations"]
    }
    with open(workdir / "distilled" / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    watched = {int(row["ckpt"]): float(row["network_acc"]) for row in rows}
    assert watched == {step: pytest.approx(found[0], rel=1e-5) for step, found in means.items()}
    name = f"held_out_accuracy/{NAME}"
    history = RunFolder(workdir).history()
    assert [row["step"] for row in history] == [0, 2, 4, 5, 6, 8, 10, 12]
    found = {row["step"]: row[name] for row in history if name in row}
    assert found == pytest.approx(watched, rel=1e-5)
    assert history[-1][f"test_accuracy/{NAME}"] == pytest.approx(means[STEPS][1])
    events = EventAccumulator(str(workdir / "metrics"))
    events.Reload()
    scalars = {e.step: float(make_ndarray(e.tensor_proto)) for e in events.Tensors(name)}
    assert scalars == pytest.approx(watched, rel=1e-5)
    (path,) = (workdir / "distilled").glob("*ckpt5.npz")
    evaluation = result(workdir)["evaluations"][1]
    assert export.load_distilled(path).provenance["networks"] == evaluation["networks"]


@pytest.mark.parametrize(
    "step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (0, STEPS))]
)
def test_an_evaluation_that_was_stopped_is_made_again(run, tmp_path, monkeypatch, capsys, step):
    workdir, expected = run
    measure, advance, begun = networks.NetworkEvaluate.measure, rounds.Rounds._advance, []

    def counted(evaluate, *args):
        begun.append(args)
        return measure(evaluate, *args)

    def signalled(work, *args):
        if len(begun) == 1 + (0, 5, STEPS).index(step):
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(work, *args)

    with monkeypatch.context() as patch:
        patch.setattr(networks.NetworkEvaluate, "measure", counted)
        patch.setattr(rounds.Rounds, "_advance", signalled)
        state = train.train_and_evaluate(judged(), str(tmp_path))
    assert state.step == step
    run_result = result(tmp_path)
    assert run_result["status"] == "stopped"
    assert step not in [row["step"] for row in run_result["evaluations"]]
    assert f"stopped and saved at step {step}" in capsys.readouterr().out
    assert_same(train.train_and_evaluate(judged(), str(tmp_path)), expected)
    assert result(tmp_path)["evaluations"] == result(workdir)["evaluations"]
    assert artefacts(tmp_path) == artefacts(workdir)
    (history, other) = (
        [
            {k: v for k, v in row.items() if k not in ("step_ms", "pairs_per_s")}
            for row in RunFolder(folder).history()
        ]
        for folder in (tmp_path, workdir)
    )
    assert history == other
    train.train_and_evaluate(judged(), str(tmp_path))
    assert "nothing to do" in capsys.readouterr().out


def test_a_run_that_ends_at_a_step_already_evaluated_reads_the_test_images(tmp_path):
    """Stopped right after an evaluation, and then given no more steps than it has."""
    train.train_and_evaluate(judged(num_steps=5), str(tmp_path))
    finished = result(tmp_path)
    stopped = json.loads(json.dumps(finished)) | {"status": "stopped"}
    at_end = stopped["evaluations"][-1]
    at_end["networks"] = [row for row in at_end["networks"] if row["on"] == figures.HELD_OUT]
    (tmp_path / "result.json").write_text(json.dumps(stopped))
    train.train_and_evaluate(judged(num_steps=5), str(tmp_path))
    assert result(tmp_path)["status"] == "finished"
    assert result(tmp_path)["evaluations"] == finished["evaluations"]
    rows = [row["on"] for row in finished["evaluations"][-1]["networks"]]
    assert rows == [figures.HELD_OUT, figures.TEST]


def test_a_training_that_diverges_has_no_figure(tmp_path):
    config = judged(num_steps=1, eval__steps=(0,), transfer__learning_rate=(1e30,))
    train.train_and_evaluate(config, str(tmp_path))
    row = result(tmp_path)["evaluations"][0]["networks"][0]
    assert (row["accuracies"], row["mean"], row["std"]) == ([], None, None)
    assert figures.spread(row) == "diverged"
    with open(tmp_path / "distilled" / "index.csv", newline="") as file:
        assert [row["network_acc"] for row in csv.DictReader(file)] == ["", ""]


def test_a_network_that_images_are_too_small_for_is_reported_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match="too small"):
        train.train_and_evaluate(judged(eval__networks=("convnet:4",)), str(tmp_path))
    assert not (tmp_path / "result.json").exists()
