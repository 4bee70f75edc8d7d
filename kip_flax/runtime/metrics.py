"""The metrics of a run: clu's writers and the stopwatch."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from kip_flax.runtime import disk
from kip_flax.runtime.errors import UserError


class Writer(Protocol):
    """The part of clu's `MetricWriter` that a run uses."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None: ...

    def write_images(self, step: int, images: Mapping[str, Any]) -> None: ...

    def write_hparams(self, hparams: Mapping[str, Any]) -> None: ...


class Silent:
    """A writer that writes nothing, for all processes but the first."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes nothing."""

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Writes nothing."""

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes nothing."""


@contextlib.contextmanager
def open_writer(folder: str, writes: bool = True) -> Iterator[Writer]:
    """clu's default writers: TensorBoard files in `folder`, and log lines (`--verbosity=0`).

    Without `writes` it yields a silent writer, for processes that leave writing to the first.

    Writing is asynchronous; leaving the context flushes. Only this function loads TensorFlow, which
    writes the TensorBoard files and is kept off the accelerators, unless a caller has used it.

    Raises:
        UserError: the files cannot be written.
    """
    if not writes:
        yield Silent()
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silenced_stderr():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # A caller has used it: its devices stay.
            for kind in ("GPU", "TPU"):
                tf.config.set_visible_devices([], kind)
        from clu import asynclib, metric_writers

        writer = metric_writers.create_default_writer(folder, asynchronous=True)
    unwritten = (asynclib.AsyncError, tf.errors.OpError)
    with disk.unlogged("clu"):
        try:
            try:
                yield writer
            except BaseException:
                with contextlib.suppress(*unwritten):  # The error being raised comes first.
                    writer.close()  # Waits for its thread.
                raise
            writer.close()
        except unwritten as error:
            raise _unwritable(folder, error) from error


def _unwritable(folder: str, error: Exception) -> UserError:
    """A UserError with the reason, which follows a semicolon in TensorFlow's text."""
    reason = str(error.__cause__ or error).splitlines()[0].split("; ")[-1][:200]
    return UserError(
        f"cannot write metrics to {folder} ({reason}): free space there; the same command goes on "
        f"from the last checkpoint."
    )


@contextlib.contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Drops the messages that TensorFlow's C++ code prints on loading at any log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Stopwatch:
    """Measures the time per step, without pauses, and estimates the time that is left.

    Args:
        step: steps taken before the clock starts.
        total: steps of the whole run.
        pairs: kernel entries that one step computes, on average over the run.
        work: number of steps -> the work of so many first steps, in steps of average work; it is
            their number unless steps differ.
    """

    def __init__(self, step: int, total: int, pairs: int, work: Callable[[int], float] = float):
        self._step, self._total, self._pairs, self._work = step, total, pairs, work
        self._since = time.perf_counter()
        self._figures: dict[str, float] = {}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent in this context, such as evaluation and writing."""
        begin = time.perf_counter()
        yield
        self._since += time.perf_counter() - begin

    def restart(self, step: int) -> None:
        """Starts again after `step` steps: those before, which compiled, count for nothing."""
        self._step, self._since = step, time.perf_counter()

    def look(self, step: int) -> dict[str, float]:
        """After `step` steps: `step_ms` and `pairs_per_s` since the last look, and `eta_s`.

        Without a step since the last look it returns the same figures again; {} without any.
        """
        if step == self._step:
            return self._figures
        now = time.perf_counter()
        seconds, steps = now - self._since, step - self._step
        of_average_step = seconds / (self._work(step) - self._work(self._step))
        self._step, self._since = step, now
        self._figures = {
            "step_ms": 1e3 * seconds / steps,
            "pairs_per_s": self._pairs / of_average_step,
            "eta_s": of_average_step * (self._work(self._total) - self._work(step)),
        }
        return self._figures
