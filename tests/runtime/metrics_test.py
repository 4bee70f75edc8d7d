"""Metrics that cannot be written are reported in one line; the stopwatch."""

import itertools
import time

import pytest
import tensorflow as tf
from clu import metric_writers

from kip_flax.runtime import metrics
from kip_flax.runtime.errors import UserError


class FullDisk:
    """TensorFlow's writer on a disk without room."""

    def __init__(self):
        self.closed = False
        self.began = self.slow = 0

    def write_scalars(self, step, scalars):
        self.began += 1
        time.sleep(self.slow)
        raise tf.errors.ResourceExhaustedError(
            None, None, "{{node}} runs/a/events.out; No space left on device\n\tFailed to flush"
        )

    def flush(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def full(monkeypatch):
    writer = FullDisk()

    def create(folder, asynchronous):
        return metric_writers.AsyncMultiWriter([writer])

    monkeypatch.setattr(metric_writers, "create_default_writer", create)
    return writer


def write(folder, error=None):
    with metrics.open_writer(folder) as writer:
        writer.write_scalars(1, {"loss": 1.0})
        if error is not None:
            raise error


def write_on(folder, asked):
    with metrics.open_writer(folder) as writer:
        for step in itertools.count():
            asked.append(step)
            writer.write_scalars(step, {})
            time.sleep(0.02)


def test_a_full_disk_is_reported_in_one_line(full):
    message = r"cannot write metrics to runs/a \(No space left on device\): free space there"
    with pytest.raises(UserError, match=message) as caught:
        write("runs/a")
    assert "\n" not in str(caught.value)


def test_all_writes_are_done_when_the_error_is_raised(full, caplog):
    """A write that finds the error of the one before is made all the same, in clu's thread."""
    full.slow, asked = 0.05, []
    with pytest.raises(UserError, match="No space left"):
        write_on("runs/a", asked)
    assert full.began == len(asked)
    assert full.closed
    assert not caplog.records


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_a_disk_that_is_full_at_the_end(full, monkeypatch, error):
    """clu flushes once more in the caller's thread: what that raises is TensorFlow's own."""
    monkeypatch.setattr(full, "flush", lambda: full.write_scalars(0, {}))
    with pytest.raises(type(error) if error else UserError, match=None if error else "No space"):
        write("runs/a", error)


def test_an_error_of_the_run_comes_first(full):
    with pytest.raises(ZeroDivisionError):
        write("runs/a", ZeroDivisionError())


def test_the_devices_of_a_tensorflow_that_is_in_use_are_left_alone(full, monkeypatch):
    def used(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", used)
    with metrics.open_writer("runs/a"):
        pass
    assert full.closed


def test_a_silent_writer_writes_nothing(tmp_path):
    with metrics.open_writer(str(tmp_path), writes=False) as writer:
        writer.write_scalars(1, {"loss": 1.0})
        writer.write_images(1, {})
    assert list(tmp_path.iterdir()) == []


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


def test_the_time_left_counts_later_steps_by_their_work(monkeypatch):
    """Two steps of one unit and two of three: a mean step is of two."""
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    clock = metrics.Stopwatch(0, 4, pairs=20, work=[0.0, 0.5, 1.0, 2.5, 4.0].__getitem__)
    now[0] += 5
    assert clock.look(2) == {"step_ms": 2500.0, "pairs_per_s": 4.0, "eta_s": 15.0}
    now[0] += 7.5
    assert clock.look(3) == {"step_ms": 7500.0, "pairs_per_s": 4.0, "eta_s": 7.5}
