"""What a pace says, and how it times steps by a clock that the test sets."""

import re
from types import SimpleNamespace

import pytest

from kip_flax.runs import deadline as deadline_lib
from kip_flax.runs import pace as pace_lib
from kip_flax.runs.deadline import Deadline
from kip_flax.runs.pace import Pace
from kip_flax.runtime import metrics
from kip_flax.runtime.console import Console


class Steps:
    """Steps and evaluations that take as many seconds as the test says."""

    def __init__(self, monkeypatch, total, limit=0.0, evaluated=()):
        self.now = 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        for module in (metrics, pace_lib, deadline_lib):
            monkeypatch.setattr(module, "time", clock)
        self.deadline = Deadline(limit, lambda: self.now, at_end=3)
        stopwatch = metrics.Stopwatch(0, total, pairs=0)
        self.pace = Pace(stopwatch, self.deadline, Console(), 10, evaluated)
        self.step = 0

    def take(self, *seconds):
        for each in seconds:
            began, self.now, self.step = self.now, self.now + each, self.step + 1
            self.pace.stepped({}, self.step, began)
        return self.pace.look(self.step)

    def evaluate(self, seconds):
        with self.pace.paused(), self.deadline.evaluation():
            self.now += seconds


@pytest.mark.parametrize(("seconds", "announced"), [(0.5, False), (38, True)])
def test_the_end_is_announced_once_where_it_is_far(monkeypatch, capsys, seconds, announced):
    steps = Steps(monkeypatch, total=100)
    for _ in range(4):
        steps.take(seconds)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == announced
    if announced:  # After two of 100 steps of 38 s.
        assert re.fullmatch(r"expected to end at (.{10} )?\d\d:\d\d, in 1 h 02 min", lines[0])


def test_timings_leave_out_the_step_that_compiles(monkeypatch):
    steps = Steps(monkeypatch, total=10)
    assert steps.take(100.0) == {}
    figures = steps.take(2.0, 3.0)
    assert (figures["step_ms"], figures["eta_s"]) == (2500.0, 7 * 2.5)


def test_the_estimate_counts_the_evaluations_that_remain(monkeypatch):
    steps = Steps(monkeypatch, total=10, evaluated={0, 2, 5, 10})
    steps.evaluate(40.0)  # It compiles.
    assert steps.take(9.0, 1.0)["eta_s"] == 8 + 40 + 40 + 3 * 40  # The last takes thrice as long.
    steps.evaluate(4.0)
    assert steps.take(1.0)["eta_s"] == 7 + 4 + 3 * 4
    steps.take(1.0, 1.0)
    steps.evaluate(4.0)
    assert steps.take(1.0)["eta_s"] == 4 + 3 * 4


def test_a_limit_of_time_bounds_the_estimate_and_counts_the_longest_step(monkeypatch):
    steps = Steps(monkeypatch, total=100, limit=30.0)
    assert steps.take(10.0, 2.0, 5.0)["eta_s"] == 30 - 17
    assert not steps.deadline.reached()
    steps.take(4.0, 4.1)  # 25.1 s have passed, and the longest step took 5 s.
    assert steps.deadline.reached()


@pytest.mark.parametrize(
    ("seconds", "lines"), [(1e-9, 10), (0.9, 10), (1.1, 9), (4.0, 2), (11.5, 1), (100.0, 1)]
)
def test_slow_steps_have_a_line_every_ten_seconds(monkeypatch, seconds, lines):
    steps = Steps(monkeypatch, total=100)
    steps.take(20.0, seconds)  # The first compiles.
    assert steps.pace.log_every == lines
