"""Checkpoints of a run: Orbax writes them in the background, and reading verifies a checksum.

A checkpoint holds the state (support, optimiser, step) and, as JSON, the configuration, the seconds
of the run so far and of its longest evaluation, fingerprints of the data and a checksum. If it
cannot be read, the one before it is used. The preprocessing is the same for all checkpoints and
lies in the run's folder once.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import disk, multihost
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped

State = TypeVar("State")
# In the JSON of a run's checkpoints: its time so far, over all parts, and its longest evaluation.
SECONDS, EVALUATION = "seconds", "evaluation_seconds"
_HALF_WRITTEN = ".orbax-checkpoint-tmp"  # Marks folders that Orbax has not finished.
# Errors of Orbax and TensorStore for files that are missing, cut off or altered.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read.

    Attributes:
        step: steps taken.
        state: NumPy arrays in the structure of the template.
        meta: the JSON saved with it.
    """

    step: int
    state: Any
    meta: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Saver:
    """Saves the states of one run.

    Attributes:
        manager: from `open_manager`.
        meta: JSON values saved with each state: configuration and data.
        every: steps between checkpoints.
    """

    manager: ocp.CheckpointManager
    meta: dict[str, Any]
    every: int

    @property
    def newest(self) -> int | None:
        """Step of the newest checkpoint; None if there is none."""
        return self.manager.latest_step()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` steps."""
        return step % self.every == 0

    def save(self, step: int, state: Any, seconds: float, evaluation: float = 0.0) -> None:
        """Saves the state after `step` steps and `seconds` in the background; see `save` below.

        `evaluation`: seconds of the longest evaluation.
        """
        times = {SECONDS: round(seconds, 1), EVALUATION: round(evaluation, 1)}
        save(self.manager, step, state, self.meta | times)

    def wait(self) -> None:
        """Waits until the last save is on the disk; UserError if it could not be written."""
        wait(self.manager)


@contextlib.contextmanager
def open_manager(workdir: str | os.PathLike[str], keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints in `workdir` (absolute), of which the newest `keep` are kept.

    Entering removes what a killed run left half written. Leaving waits for saves in progress, but
    not after an error of one of several processes.
    """
    folder = RunFolder(workdir).checkpoints
    # Orbax's own clean-up thread would outlive an error raised before the first save.
    with multihost.raise_everywhere():
        if multihost.is_first():
            for left in folder.glob(f"*{_HALF_WRITTEN}*"):
                shutil.rmtree(left)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.LatestN(keep),
        enable_async_checkpointing=True,
    )
    with disk.quiet():
        manager = ocp.CheckpointManager(folder, options=options)
        try:
            yield manager
        except Stopped:  # It is raised at all processes.
            with disk.writing(str(manager.directory)):
                manager.close()
            raise
        except UserError:
            _close_after_an_error(manager)
            raise
        except BaseException:  # KeyboardInterrupt too: a process that lives on may call again.
            if jax.process_count() == 1:
                _close_after_an_error(manager)
            raise
        with disk.writing(str(manager.directory)):
            manager.close()


def save(manager: ocp.CheckpointManager, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Saves the state after `step` steps in the background, unless that step is saved already.

    The arrays are copied first, because the next step may reuse their memory. They are the same at
    all processes, each of which writes a part.

    Raises:
        UserError: the disk is full, or this save or the one before it could not be written.
            Earlier checkpoints are kept.
    """
    if step in manager.all_steps():
        return
    arrays = jax.tree.map(_copied, state)
    meta = json.loads(json.dumps({**meta, "step": step}))
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(arrays),
        meta=ocp.args.JsonSave({**meta, "checksum": checksum(arrays, meta)}),
    )
    with multihost.raise_everywhere():
        disk.check_space(
            str(manager.directory), sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
        )
    with disk.writing(str(manager.directory)):
        manager.save(step, args=args, force=True)


def wait(manager: ocp.CheckpointManager) -> None:
    """Waits until the last save is on the disk; UserError if it could not be written."""
    with disk.writing(str(manager.directory)):
        manager.wait_until_finished()


def restore_meta(manager: ocp.CheckpointManager) -> dict[str, Any] | None:
    """The JSON of the newest checkpoint in which it is readable; None if there is none."""
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return _read_meta(manager, step)
        except _DAMAGE as error:  # `restore` will warn.
            logging.info("checkpoint %d: %s", step, error)
    return None


def restore(manager: ocp.CheckpointManager, like: State) -> Restored | None:
    """The newest readable checkpoint; None if there are no checkpoints.

    Unreadable ones are moved to unreadable_checkpoints/ with a warning, so that their steps can be
    saved again.

    Args:
        manager: from `open_manager`.
        like: a state of the same structure; only shapes and dtypes are used.

    Raises:
        UserError: there are checkpoints, but none can be read; or one holds numbers of other types,
            and stays where it is.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        restored, reason = None, "another process could not read it"
        try:
            restored = _read(manager, step, like)
        except _DAMAGE as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if not multihost.any_process(restored is None):
            return restored
        with multihost.raise_everywhere():
            _check_types(manager, step, like)
        moved = _move_aside(manager, step)
        logging.warning(
            "checkpoint %d cannot be read (%s); it was moved to %s and the one before is used.",
            step,
            reason,
            moved,
        )
    if steps:
        moved_to = _folder(manager).unreadable_checkpoints.name
        raise UserError(
            f"no checkpoint in {manager.directory} can be read (they were moved to {moved_to}/ "
            f"beside it): take another --workdir, or start again from step 0."
        )
    return None


def checksum(tree: Any, meta: dict[str, Any]) -> int:
    """CRC-32 over `meta` and the names, dtypes, shapes and bytes of all arrays of a tree."""
    content = {name: value for name, value in meta.items() if name != "checksum"}
    crc = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        label = f"{jax.tree_util.keystr(path)} {array.dtype} {np.shape(leaf)}"
        crc = zlib.crc32(array.tobytes(), zlib.crc32(label.encode(), crc))
    return crc


def _close_after_an_error(manager: ocp.CheckpointManager) -> None:
    """Closes the manager and only logs an error of that: the first error is the one to report."""
    try:
        manager.close()
    except Exception as error:  # noqa: BLE001
        logging.info("closing the checkpoints: %s", error)


def _copied(leaf: Any) -> jax.Array | np.ndarray:
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else np.array(leaf)


def _read_meta(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    return manager.restore(step, args=args).meta


def _read(manager: ocp.CheckpointManager, step: int, like: Any) -> Restored:
    template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    try:
        state, meta = _read_like(manager, step, template)
    except ValueError:
        if not hasattr(template, "replace"):  # A transfer's states are a list.
            raise
        # A field that is newer than the checkpoint, and holds no array, is not in it.
        held = {name: value for name, value in vars(template).items() if jax.tree.leaves(value)}
        fields, meta = _read_like(manager, step, held)
        state = template.replace(**fields)
    if checksum(state, meta) != meta.pop("checksum"):
        raise ValueError("its content does not match its checksum")
    return Restored(step, state, meta)


def _read_like(
    manager: ocp.CheckpointManager, step: int, template: Any
) -> tuple[Any, dict[str, Any]]:
    args = ocp.args.Composite(state=ocp.args.StandardRestore(template), meta=ocp.args.JsonRestore())
    restored = manager.restore(step, args=args)
    return jax.tree.map(np.asarray, restored.state), dict(restored.meta)


def _check_types(manager: ocp.CheckpointManager, step: int, like: Any) -> None:
    """Raises UserError if a checkpoint that was not read is whole, and of other types."""
    try:
        held, wanted = _types(manager.item_metadata(step)["state"]), _types(like)
    except _DAMAGE:
        return
    for name in sorted(held.keys() & wanted.keys()):
        if held[name] != wanted[name]:
            raise UserError(
                f"checkpoint {step} in {manager.directory} has {name} in {held[name]}, and here it "
                f"is {wanted[name]}: go on where the run began (TPUs have no float64), or take "
                f"another --workdir."
            )


def _types(tree: Any) -> dict[str, str]:
    """The type of each array of a state, or of what Orbax knows of a saved one, by its place."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {name(path): str(np.dtype(leaf.dtype)) for path, leaf in leaves}


def _move_aside(manager: ocp.CheckpointManager, step: int) -> Path:
    folder = _folder(manager)
    target = folder.unreadable_checkpoints / str(step)
    with multihost.raise_everywhere():
        if multihost.is_first():
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(folder.checkpoints / str(step), target)
    manager.reload()
    return target


def _folder(manager: ocp.CheckpointManager) -> RunFolder:
    return RunFolder(Path(manager.directory).parent)
