"""Trainings that may be stopped: a checkpoint keeps the one at work, which goes on from there."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from kip_flax.runs import checkpoint
from kip_flax.runtime import signals
from kip_flax.runtime.console import Console, duration

_FOLDER = "transfer"


class Session:
    """One call of the command; what it leaves unfinished, the next call finishes.

    Attributes:
        stopping: () -> whether a signal asked to stop.
        console: what is told goes there.
    """

    def __init__(
        self, manager: ocp.CheckpointManager, stopping: Callable[[], bool], console: Console
    ):
        self._manager = manager
        self.stopping, self.console = stopping, console

    def save(self, job: str, step: int, states: Any, results: list[dict[str, Any]]) -> None:
        """Keeps a training in the place of the one that was kept before.

        Args:
            job: names the row that the training is for.
            step: steps taken.
            states: a tree of arrays.
            results: of the candidates that `job` has finished, JSON values.
        """
        number = (self._manager.latest_step() or 0) + 1  # Over all rows; the newest is kept.
        meta = {"job": job, "at": step, "results": results}
        checkpoint.save(self._manager, number, jax.tree.leaves(states), meta)

    def restore(self, job: str, like: Any) -> tuple[tuple[Any, int] | None, list[dict[str, Any]]]:
        """What `save` kept of `job`: states and step, and the results; (None, []) of another."""
        meta = checkpoint.restore_meta(self._manager)
        if meta is None or meta["job"] != job:
            return None, []
        restored = checkpoint.restore(self._manager, jax.tree.leaves(like))
        if restored is None or restored.meta["job"] != job:
            return None, []
        states = jax.tree.unflatten(jax.tree.structure(like), restored.state)
        return (states, restored.meta["at"]), restored.meta["results"]

    def progress(self, training: str, step: int, total: int, seconds: float) -> None:
        """Shows how far a training is; `seconds`: of one of its steps."""
        left = duration(seconds * (total - step))
        pace = f"{1e3 * seconds:.1f} ms/step"
        self.console.progress(f"{training}: step {step}/{total}", pace, f"ETA {left}")


@contextlib.contextmanager
def open_session(workdir: str, console: Console) -> Iterator[Session]:
    """A session whose checkpoint lies in `workdir`; a first signal no longer ends the program."""
    folder = os.path.join(workdir, _FOLDER)
    with checkpoint.open_manager(folder, keep=1) as manager, signals.stop_signals() as stopping:
        yield Session(manager, stopping, console)


def discard(workdir: str) -> None:
    """Removes the checkpoint, once all rows are in the table."""
    shutil.rmtree(os.path.join(workdir, _FOLDER), ignore_errors=True)
