"""What a run tells, where telling fails."""

import pytest
import tensorflow as tf
from clu import metric_writers

from kip_flax import metrics
from kip_flax.errors import UserError


class FullDisk:
    """TensorFlow's writer on a disk without room."""

    def __init__(self):
        self.closed = False

    def write_scalars(self, step, scalars):
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


def test_a_full_disk_is_told_in_one_line(full):
    told = r"cannot write metrics to runs/a \(No space left on device\): free space there"
    with pytest.raises(UserError, match=told) as caught:
        write("runs/a")
    assert "\n" not in str(caught.value)


def test_an_error_of_the_run_comes_first(full):
    with pytest.raises(ZeroDivisionError):
        write("runs/a", ZeroDivisionError())


def test_a_silent_writer_writes_nothing(tmp_path):
    with metrics.open_writer(str(tmp_path), writes=False) as writer:
        writer.write_scalars(1, {"loss": 1.0})
        writer.write_images(1, {})
    assert list(tmp_path.iterdir()) == []
