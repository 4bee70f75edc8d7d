"""What a run has before its first step: its data, and what an earlier part of it left."""

from dataclasses import dataclass
from typing import Any

import orbax.checkpoint as ocp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import algorithms
from kip_flax import config as config_lib
from kip_flax.data import Dataset
from kip_flax.modes.train import length
from kip_flax.runs import checkpoint, setup
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import multihost
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

_TESTS = "tests"  # In a checkpoint: the fingerprint of what the run is tested on.


@dataclass(frozen=True)
class Opened:
    """A run before the first step of this process.

    Attributes:
        config: the experiment; `num_steps` is what a time limit made of it.
        folder: its folder.
        dataset: its data.
        mesh: its devices.
        console: prints its messages.
        total: steps from its beginning to its end.
        meta: what is saved with its states.
        restored: the state to go on from; None: the run begins.
    """

    config: ConfigDict
    folder: RunFolder
    dataset: Dataset
    mesh: Mesh
    console: Console
    total: int
    meta: dict[str, Any]
    restored: checkpoint.Restored | None

    @property
    def resumed(self) -> bool:
        """Whether the run goes on from a state that an earlier process saved."""
        return self.restored is not None

    def is_finished(self, step: int) -> bool:
        """Whether nothing is left after `step`; after the last one its evaluation may be missing.

        Raises:
            UserError: its time limit ended the run, and its last checkpoint is lost.
        """
        result = self.folder.earlier_result()
        limit = result.get("ended_by_time_limit")
        by_limit = limit is not None and limit == self.config.time_limit
        if by_limit and step < (last := result["evaluations"][-1]["step"]):
            raise UserError(
                f"time_limit={limit:g} ended {self.folder.path} at step {last}, whose checkpoint "
                f"is lost: the set is there; give more to go on from step {step}, or take another "
                f"--workdir."
            )
        ended = step == self.total or by_limit
        return step > self.total or (ended and result.get("status") == "finished")

    def with_start_at_hand(self) -> ConfigDict:
        """`config`; in a run that goes on, `support.init` is the run's own set of step 0.

        Such a run takes only shapes and a picture from it. The file may be gone or another.
        """
        if not self.resumed or not config_lib.from_a_file(self.config):
            return self.config
        try:
            own = self.folder.distilled()[0]
        except (UserError, KeyError):  # A kill came before it was written.
            return self.config
        config = self.config.copy_and_resolve_references()
        config.support.init = str(own)
        return config


def open_run(
    config: ConfigDict,
    folder: RunFolder,
    manager: ocp.CheckpointManager,
    mesh: Mesh,
    console: Console,
) -> Opened:
    """Reads the data, and what an earlier part of the run saved in `folder`.

    Raises:
        UserError: data or folder do not fit the configuration.
    """
    saved, asked = checkpoint.restore_meta(manager), config.num_steps
    if saved is not None:
        config = length.with_kept_length(config, saved, str(folder.path))
        config_lib.check_same_experiment(saved["config"], config, str(folder.path))
    dataset = _load_data(config)
    if saved is None and config.time_limit and config_lib.length_decides(config):
        config = length.with_length_that_fits(config, dataset, mesh, console)
    algorithm = algorithms.find(config.algorithm)
    total = algorithm.total_steps(config, len(dataset.train_labels))
    asked = (saved or {}).get(length.ASKED, asked)
    meta = {"config": config.to_dict(), length.ASKED: asked, **_shared_fingerprints(dataset)}
    restored = _restore(config, dataset, manager, meta)
    with multihost.raise_everywhere():
        after = -1 if restored is None else restored.step
        lost = {step for step in _steps_of_sets(folder) if step > after}
        algorithm.check_beginning(config, lost)
    if restored is not None:
        _check_not_beyond(restored.step, total, folder)
    return Opened(config, folder, dataset, mesh, console, total, meta, restored)


def _steps_of_sets(folder: RunFolder) -> set[int]:
    """The steps of an earlier run's sets, which may have been moved away since."""
    evaluations = folder.earlier_result().get("evaluations", [])
    return {*folder.steps_in_names(), *(row["step"] for row in evaluations)}


def _check_not_beyond(step: int, total: int, folder: RunFolder) -> None:
    """Raises UserError if a run was stopped after more steps than it is now to have."""
    if step > total and folder.earlier_result().get("status") != "finished":
        raise UserError(
            f"{folder.path} was stopped at step {step}, beyond num_steps={total}: give "
            f"--config.num_steps={step} to end it there, or more."
        )


def _load_data(config: ConfigDict) -> Dataset:
    dataset = setup.load(config)
    config_lib.check_data(config, dataset)
    return dataset


def _shared_fingerprints(dataset: Dataset) -> dict[str, int]:
    """Those of the training set and of the tests; UserError if a process has others."""
    found = {"data": setup.fingerprint(dataset), _TESTS: setup.fingerprint_of_tests(dataset)}
    for what, name in (("data set", "data"), ("test images of", _TESTS)):
        multihost.check_same(f"the {what} {dataset.name}", b"%d" % found[name])
    return found


def _restore(
    config: ConfigDict, dataset: Dataset, manager: ocp.CheckpointManager, meta: dict[str, Any]
) -> checkpoint.Restored | None:
    """The state to resume from, or None; UserError if it was made from other data.

    `meta`: what is saved with states from now on.
    """
    train_size = len(dataset.train_labels)
    like = setup.state_template(config, dataset.image_shape, dataset.num_classes, train_size)
    restored = checkpoint.restore(manager, like)
    if restored is None:
        return None
    workdir = manager.directory.parent
    if restored.meta["data"] != meta["data"]:
        raise UserError(f"{workdir} was made from other data: take another --workdir.")
    if restored.meta.get(_TESTS, meta[_TESTS]) != meta[_TESTS]:
        raise UserError(
            f"{workdir} was tested on other images or labels, or has classes of other names: take "
            f"another --workdir."
        )
    return restored
