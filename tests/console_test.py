"""The console, the stopwatch, and numbers in words."""

import pytest

from kip_flax import (
    metrics,
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
