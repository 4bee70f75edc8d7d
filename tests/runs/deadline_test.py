"""Time limits: the clock that says when to end, and whole runs that end by it."""

import contextlib
import json
import re
import shutil

import pytest
from whole_runs import assert_same, result, small, stop_at

from kip_flax import config as config_lib
from kip_flax.modes.plan.mode import Forecast
from kip_flax.modes.report import mode as report
from kip_flax.modes.train import length
from kip_flax.modes.train import mode as train
from kip_flax.runs.deadline import Deadline
from kip_flax.runs.record import Recorder
from kip_flax.runtime.errors import UserError


class Clock:
    """Seconds that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_run_ends_where_a_step_and_an_evaluation_would_not_fit(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    deadline = Deadline(100, clock)
    with deadline.evaluation():
        clock.now = 10  # It took 10 s.
    for seconds in (5, 20, 7):
        deadline.took(seconds)
    reached = []
    for clock.now in (50, 69.9, 70.1, 99):
        reached.append(deadline.reached())
    assert reached == [False, False, True, True]
    assert not deadline.passed()
    assert deadline.eta(0.5, 0) == 0.5
    assert deadline.eta(30, 0) == pytest.approx(1)
    clock.now = 101
    assert deadline.passed()
    assert deadline.eta(30, 0) == 0


def test_the_last_evaluation_may_take_longer_than_others(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    deadline = Deadline(100, clock, at_end=3.5)
    with deadline.evaluation():
        clock.now = 10
    reached = []
    for clock.now in (64.9, 65.1):
        reached.append(deadline.reached())
    assert reached == [False, True]


def test_a_later_part_knows_how_long_evaluations_took(quick_kernels, tmp_path, monkeypatch):
    made = []

    class Told(Deadline):
        def __init__(self, seconds, spent, at_end=1.0, longest=0.0):
            super().__init__(seconds, spent, at_end, longest)
            made.append(longest)
            self.longest = max(longest, 7000.0)

    monkeypatch.setattr("kip_flax.runs.loop.Deadline", Told)
    for steps in (3, 5):
        train.train_and_evaluate(small(num_steps=steps), str(tmp_path))
    assert made == [0, 7000]
    clock = Clock()
    deadline = Deadline(100, clock, at_end=2, longest=20)
    reached = []
    for clock.now in (59, 61):
        reached.append(deadline.reached())
    assert reached == [False, True]


def test_without_a_limit_a_run_goes_on():
    deadline = Deadline(0, lambda: 1e9)
    deadline.took(1e9)
    assert not deadline.is_set
    assert not deadline.reached()
    assert not deadline.passed()
    assert deadline.eta(7, 0) == 7


@pytest.fixture
def ten_seconds_a_line(quick_kernels, monkeypatch):
    """A run counts ten seconds for every line of progress, and steps and evaluations as none."""
    seconds = property(lambda recorder: 10.0 * len(recorder._history))
    monkeypatch.setattr(Recorder, "seconds", seconds)
    monkeypatch.setattr(Deadline, "took", lambda self, seconds: None)
    monkeypatch.setattr(Deadline, "evaluation", lambda self: contextlib.nullcontext())


def limited(**fields):
    return small(log__every_steps=1, time_limit=35 / 3600, **fields)


def test_a_run_that_time_ends_is_that_of_fewer_steps_and_can_go_on(
    ten_seconds_a_line, tmp_path, capsys
):
    state = train.train_and_evaluate(limited(), str(tmp_path / "limited"))
    output = capsys.readouterr().out
    ended = int(state.step)
    assert 3 <= ended <= 5
    assert f"by time_limit, at step {ended} of 12" in output
    fewer = train.train_and_evaluate(small(num_steps=ended), str(tmp_path / "fewer"))
    assert_same(state, fewer)
    content = result(tmp_path / "limited")
    assert content["status"] == "finished"
    assert content["ended_by_time_limit"] == 35 / 3600
    rows = content["evaluations"], result(tmp_path / "fewer")["evaluations"]
    assert rows[0][-1] == rows[1][-1]

    train.train_and_evaluate(limited(), str(tmp_path / "limited"))
    assert "nothing to do" in capsys.readouterr().out

    shutil.rmtree(tmp_path / "limited" / "checkpoints" / str(ended))
    with pytest.raises(UserError, match=rf"at step {ended}, whose checkpoint is lost: .*give more"):
        train.train_and_evaluate(limited(), str(tmp_path / "limited"))
    assert result(tmp_path / "limited") == content

    more = limited()
    more.time_limit = 1.0
    state = train.train_and_evaluate(more, str(tmp_path / "limited"))
    assert_same(state, train.train_and_evaluate(small(), str(tmp_path / "whole")))
    assert "ended_by_time_limit" not in result(tmp_path / "limited")


def test_a_schedule_is_laid_out_for_the_steps_that_fit_and_keeps_its_length(
    quick_kernels, tmp_path, monkeypatch, capsys
):
    asked = []

    def six_fit(self, seconds, config):
        asked.append(seconds)
        return 6

    monkeypatch.setattr(Forecast, "steps_within", six_fit)
    fields = {"optimizer__schedule": "cosine", "log__every_steps": 1, "time_limit": 2.0}
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        train.train_and_evaluate(small(**fields), str(tmp_path / "limited"))
    state = train.train_and_evaluate(small(**fields), str(tmp_path / "limited"))
    assert asked == [0.9 * 7200]  # Once: going on asks the checkpoint.
    assert re.search(r"^6 steps are expected to take \d+ s$", capsys.readouterr().out, re.MULTILINE)
    assert json.loads((tmp_path / "limited" / "config.json").read_text())["num_steps"] == 6
    whole = small(optimizer__schedule="cosine", num_steps=6)
    assert_same(state, train.train_and_evaluate(whole, str(tmp_path / "whole")))
    with pytest.raises(UserError, match=r"laid out for time_limit=2 and it is now 3"):
        train.train_and_evaluate(small(**(fields | {"time_limit": 3.0})), str(tmp_path / "limited"))
    with pytest.raises(UserError, match=r"began with num_steps=12 .* num_steps is now 24"):
        train.train_and_evaluate(small(**(fields | {"num_steps": 24})), str(tmp_path / "limited"))
    report.write_reports(str(tmp_path / "limited"), small(**fields))  # Six steps are its own.


def test_a_limit_without_time_for_a_step_is_told_before_the_run(
    quick_kernels, tmp_path, monkeypatch
):
    monkeypatch.setattr(Forecast, "steps_within", lambda *_: 0)
    config = small(optimizer__schedule="cosine", time_limit=1e-6)
    message = r"time_limit=1e-06 \(hours\) leaves no time for a step: .* takes \d+ s\. Give more"
    with pytest.raises(UserError, match=message):
        train.train_and_evaluate(config, str(tmp_path))
    assert not list(tmp_path.glob("distilled/*"))


def test_a_limit_is_no_obstacle_to_a_run_of_no_steps(quick_kernels, tmp_path):
    config = small(optimizer__schedule="cosine", time_limit=1.0, num_steps=0)
    assert train.train_and_evaluate(config, str(tmp_path)).step == 0


def test_an_older_run_that_does_not_say_what_was_asked_for_goes_on(
    quick_kernels, tmp_path, monkeypatch
):
    monkeypatch.setattr(Forecast, "steps_within", lambda *_: 6)
    config = small(optimizer__schedule="cosine", log__every_steps=1, time_limit=2.0)
    for step, key in ((2, "unknown then"), (4, length.ASKED)):
        with monkeypatch.context() as patch:
            patch.setattr(length, "ASKED", key)
            stop_at(patch, step)
            train.train_and_evaluate(config, str(tmp_path))
    assert train.train_and_evaluate(config, str(tmp_path)).step == 6


def test_the_best_set_is_named_where_held_out_images_tell(quick_kernels, tmp_path):
    train.train_and_evaluate(small(dataset__validation=0.1), str(tmp_path / "held_out"))
    content = result(tmp_path / "held_out")
    best = max(content["evaluations"], key=lambda row: row["accuracy"])
    assert {name: content["best"][name] for name in ("step", "accuracy")} == {
        name: best[name] for name in ("step", "accuracy")
    }
    assert (tmp_path / "held_out" / "distilled" / content["best"]["set"]).is_file()
    train.train_and_evaluate(small(), str(tmp_path / "tested"))
    assert "best" not in result(tmp_path / "tested")


def test_one_pass_has_no_limit():
    with pytest.raises(UserError, match="ls makes one pass"):
        config_lib.validate(small(algorithm="ls", time_limit=1.0))
    with pytest.raises(UserError, match=r"time_limit is -1\.0: it must be at least 0"):
        config_lib.validate(small(time_limit=-1.0))
    assert "time_limit" not in config_lib.identity(small(time_limit=1.0))
