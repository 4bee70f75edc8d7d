"""Trainings that can be stopped: a checkpoint keeps the current one, to resume from."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from kip_flax.modes.transfer.best import BestNetwork
from kip_flax.networks.progress import Measured, Progress
from kip_flax.runs import checkpoint
from kip_flax.runtime.waiting import Watch

_FOLDER = ".unfinished"  # It is removed at the end: no name that another run's folder has.


class Session:
    """One call of the command; the next call resumes what it leaves unfinished.

    Attributes:
        watch: reports progress and stops the work.
        best: keeps the best network on the distilled set; None keeps none.
    """

    def __init__(
        self,
        manager: ocp.CheckpointManager,
        watch: Watch,
        best: BestNetwork | None,
        identity: int,
    ):
        self._manager, self._identity = manager, identity
        self.watch, self.best = watch, best

    def save(self, job: str, progress: Progress) -> None:
        """Saves the progress of a trial in place of the one saved before.

        Args:
            job: name of the row that the trial is for.
            progress: the progress of the trial.

        Raises:
            UserError: it cannot be written.
        """
        number = (self._manager.latest_step() or 0) + 1  # Counts over all rows.
        leaves = jax.tree.leaves(progress.states)
        meta = {
            "job": job,
            "identity": self._identity,
            "at": progress.step,
            "measured": [dataclasses.asdict(one) for one in progress.measured],
            "shapes": [list(np.shape(leaf)) for leaf in leaves],
            "dtypes": [str(np.dtype(leaf.dtype)) for leaf in leaves],
        }
        checkpoint.save(self._manager, number, leaves or [np.zeros(1)], meta)

    def restore(self, job: str, like: Any) -> Progress:
        """The progress saved for `job`; an empty one if none, or one of something else, was saved.

        Args:
            job: name of the row.
            like: states of the trial; if the saved ones have other shapes (as with another number
                of devices), their round begins anew.

        Raises:
            UserError: no checkpoint can be read.
        """
        meta = checkpoint.restore_meta(self._manager)
        if meta is None or not self._is_of(meta, job):
            return Progress()
        shapes, leaves = meta["shapes"], jax.tree.leaves(like)
        fits = shapes == [list(np.shape(leaf)) for leaf in leaves]
        template = leaves if fits else _zeros(shapes, meta)
        restored = checkpoint.restore(self._manager, template or [np.zeros(1)])
        if restored is None or not self._is_of(restored.meta, job):
            return Progress()
        measured = [Measured(**one) for one in restored.meta["measured"]]
        if not (fits and restored.meta["shapes"]):
            return Progress(measured)
        states = jax.tree.unflatten(jax.tree.structure(like), restored.state)
        return Progress(measured, states, restored.meta["at"])

    def _is_of(self, meta: dict[str, Any], job: str) -> bool:
        """Whether a checkpoint is of this job and transfer; old ones do not name the transfer."""
        return meta["job"] == job and meta.get("identity", self._identity) == self._identity


def _zeros(shapes: list[list[int]], meta: dict[str, Any]) -> list[np.ndarray]:
    """Arrays like the saved ones; in checkpoints that are older than 'dtypes' all are float32."""
    dtypes = meta.get("dtypes", ["float32"] * len(shapes))
    return [np.zeros(*one) for one in zip(shapes, dtypes, strict=True)]


@contextlib.contextmanager
def open_session(
    workdir: str, watch: Watch, best: BestNetwork | None = None, identity: int = 0
) -> Iterator[Session]:
    """A session with its checkpoint in `workdir`; `identity` tells transfers apart."""
    folder, earlier = Path(workdir) / _FOLDER, Path(workdir) / "transfer"
    if not folder.exists() and [path.name for path in earlier.glob("*")] == ["checkpoints"]:
        earlier.rename(folder)  # Its name in older versions.
    with checkpoint.open_manager(str(folder), keep=1) as manager:
        yield Session(manager, watch, best, identity)


def discard(workdir: str) -> None:
    """Removes the checkpoint; call it when all rows are in the table."""
    shutil.rmtree(os.path.join(workdir, _FOLDER), ignore_errors=True)
