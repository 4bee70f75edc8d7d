"""What a recorder writes and keeps: of a new run, of one that goes on, at another process."""

import dataclasses

import numpy as np
import pytest
from whole_runs import exporter_in, small

from kip_flax import export
from kip_flax.runs.record import Recorder
from kip_flax.runtime import metrics, multihost

MEASURES = {"accuracy": 0.5, "mse": 0.1}


class Kept(metrics.Silent):
    """A writer that keeps the scalars."""

    def __init__(self):
        self.scalars = {}

    def write_scalars(self, step, scalars):
        self.scalars[step] = {**self.scalars.get(step, {}), **scalars}


@pytest.fixture
def exporter(tmp_path):
    return exporter_in(tmp_path)


def recorder_of(exporter, resumed=None, writer=None):
    """A recorder, and the list of what it wants the report to know."""
    awaited = []
    writer = writer or metrics.Silent()
    return Recorder(exporter, writer, lambda _, later: awaited.append(later), resumed), awaited


def test_processes_that_do_not_write_leave_nothing(exporter, monkeypatch):
    monkeypatch.setattr(multihost, "is_first", lambda: False)
    recorder, reports = recorder_of(exporter)
    recorder.evaluation(0, exporter.initial, MEASURES)
    recorder.progress(1, {"loss": 1.0}, {})
    recorder.write_history()
    assert recorder.end("finished", {})["evaluations"] == [{"step": 0, "tested": 60, **MEASURES}]
    recorder.report()
    assert reports == []
    assert list(exporter.folder.path.iterdir()) == []


def test_an_evaluation_written_again_comes_out_the_same(exporter):
    folder = exporter.folder
    recorder, _ = recorder_of(exporter)
    written = []
    for _ in range(2):
        recorder.evaluation(0, exporter.initial, MEASURES)
        sets = folder.distilled_folder.iterdir()
        written.append({path.name: path.read_bytes() for path in (*sets, folder.picture)})
        assert folder.evaluations() == [{"step": 0, "tested": 60, **MEASURES}]
    assert written[0] == written[1]
    distilled = export.load_distilled(exporter.path(0))
    np.testing.assert_array_equal(distilled.images, exporter.initial[0])
    assert distilled.meta["provenance"]["test_accuracy"] == 0.5


def test_speed_goes_to_history_and_result_and_the_rest_to_tensorboard(exporter):
    writer = Kept()
    recorder, _ = recorder_of(exporter, writer=writer)
    figures = {"step_ms": 7.12345, "pairs_per_s": 100.0, "eta_s": 60.0}
    recorder.progress(2, {"loss": 0.25}, figures)
    recorder.end("stopped", figures)
    assert writer.scalars == {2: {"loss": 0.25, **figures}}
    (row,) = exporter.folder.history()
    assert row == {"step": 2, "loss": 0.25, "step_ms": 7.12345, "pairs_per_s": 100.0}
    result = exporter.folder.result()
    assert (result["status"], result["step_ms"], result["pairs_per_s"]) == ("stopped", 7.123, 100)
    assert "eta_s" not in result


def test_what_an_earlier_part_says_of_later_steps_is_dropped(exporter):
    earlier, _ = recorder_of(exporter)
    for step in (0, 5, 12):
        earlier.evaluation(step, exporter.initial, MEASURES)
        earlier.progress(step + 1, {"loss": 1.0}, {})
    earlier.end("stopped", {})
    exporter.folder.write_result({**exporter.folder.result(), "seconds": 1000.0})
    later, _ = recorder_of(exporter, resumed=8)
    result = later.end("stopped", {})
    assert [row["step"] for row in result["evaluations"]] == [0, 5]
    assert [row["step"] for row in exporter.folder.history()] == [1, 6]
    assert 1000 <= result["seconds"] < 1100
    new, _ = recorder_of(exporter)
    result = new.end("stopped", {})
    assert result["evaluations"] == []
    assert result["seconds"] < 100


@pytest.mark.parametrize("num_train", [0, 100])
def test_a_finished_run_awaits_its_analysis(exporter, num_train):
    exporter.config.report.num_train = num_train
    recorder, reports = recorder_of(exporter)
    recorder.end("stopped", {})
    assert reports == []  # Nothing is evaluated yet.
    recorder.evaluation(0, exporter.initial, MEASURES)
    recorder.end("finished", {})
    recorder.report()
    assert reports == [False, num_train > 0, False]


@pytest.mark.parametrize(
    ("algorithm", "split", "watched", "expected"),
    [
        ("kip", "validation", [0.3, 0.2, 0.1], (5, 0.8, "kernel")),
        ("kip", "test", [0.3, 0.2, 0.1], None),
        ("bptt", "validation", [0.3, 0.6, 0.6], (3, 0.6, "networks")),
        ("bptt", "test", [0.7, 0.6, 0.5], (0, 0.7, "networks")),
        ("bptt", "validation", [], None),
        ("bptt", "validation", [0.3, None, 0.2], (0, 0.3, "networks")),
    ],
    ids=["kernel", "no held-out images", "networks", "held-out beside test", "none", "diverged"],
)
def test_the_judge_that_a_set_is_made_for_names_the_best(
    exporter, algorithm, split, watched, expected
):
    exporter = dataclasses.replace(
        exporter,
        config=small(algorithm=algorithm),
        dataset=dataclasses.replace(exporter.dataset, split=split),
    )
    recorder, _ = recorder_of(exporter)
    on = "held_out" if split == "test" else split
    tested = {"network": "fc:1", "on": "test", "mean": 0.9, "std": None}
    rows = [[{**tested, "on": on, "mean": mean}, tested] for mean in watched] or [[], [], []]
    for step, accuracy, of_networks in zip((0, 3, 5), (0.5, 0.6, 0.8), rows, strict=True):
        recorder.evaluation(step, exporter.initial, {"accuracy": accuracy, "mse": 0.1}, of_networks)
    best = recorder.end("finished", {}).get("best")
    if expected is None:
        assert best is None
    else:
        step, accuracy, by = expected
        name = exporter.path(step).name
        assert best == {"step": step, "accuracy": accuracy, "by": by, "set": name}


@pytest.mark.parametrize(("algorithm", "best"), [("bptt", (1, 0.5)), ("kip", (0, 0.9))])
def test_networks_that_were_trained_otherwise_do_not_compete(exporter, algorithm, best):
    """Where the kernel is the judge it judges all sets alike."""
    exporter = dataclasses.replace(
        exporter,
        config=small(algorithm=algorithm),
        dataset=dataclasses.replace(exporter.dataset, split="validation"),
    )
    recorder, _ = recorder_of(exporter)
    found = [(7, 128, 0.7), (7, 64, 0.5), (8, 64, 0.6), (7, 64, 0.4)]
    for step, (training, width, mean) in enumerate(found):
        row = {"network": "fc:1", "on": "validation", "training": training, "width": width}
        rows = [row | {"mean": mean, "std": None}]
        kernel = {"accuracy": 0.9 - 0.1 * step, "mse": 0.1}
        recorder.evaluation(step, exporter.initial, kernel, rows)
    chosen = recorder.end("finished", {})["best"]
    assert (chosen["step"], chosen["accuracy"]) == best


def test_a_run_that_goes_on_says_so(exporter):
    recorder, _ = recorder_of(exporter)
    recorder.evaluation(0, exporter.initial, MEASURES)
    recorder.end("finished", {})
    again, _ = recorder_of(exporter, resumed=0)
    again.go_on()
    written = exporter.folder.result()
    assert (written["status"], len(written["evaluations"])) == ("running", 1)


@pytest.mark.parametrize("older", [False, True], ids=["said by the rows", "said by the result"])
def test_sets_that_were_tested_on_other_images_do_not_compete(exporter, older):
    held_out = dataclasses.replace(exporter.dataset, split="validation")
    few = dataclasses.replace(exporter, dataset=held_out)
    recorder, _ = recorder_of(few)
    recorder.evaluation(0, exporter.initial, {"accuracy": 0.9, "mse": 0.1})
    result = recorder.end("stopped", {})
    assert result["best"]["step"] == 0
    if older:
        for row in result["evaluations"]:
            del row["tested"]
        exporter.folder.write_result(result)
    many = dataclasses.replace(few, config=small(eval__num_test=80))
    recorder, _ = recorder_of(many, resumed=0)
    for step, accuracy in ((1, 0.7), (2, 0.6)):
        recorder.evaluation(step, exporter.initial, {"accuracy": accuracy, "mse": 0.1})
    result = recorder.end("finished", {})
    assert [row["tested"] for row in result["evaluations"]] == [60, 80, 80]
    assert (result["best"]["step"], result["best"]["accuracy"]) == (1, 0.7)
