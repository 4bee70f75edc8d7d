"""A run, from its configuration to its files.

The algorithm's module computes a step; `runs.loop` goes through the steps.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import __version__, algorithms, data, export, kernels, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms.interface import Problem, State
from kip_flax.data import Dataset
from kip_flax.export import card
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.plan.mode import forecast
from kip_flax.modes.report import page as report
from kip_flax.modes.report.facts import Frames
from kip_flax.preprocess import Preprocess
from kip_flax.runs import analysis, checkpoint, evaluate, networks, setup
from kip_flax.runs.exporter import Exporter, SupportArrays
from kip_flax.runs.folder import RunFolder
from kip_flax.runs.loop import Training
from kip_flax.runs.record import Recorder, WriteReport
from kip_flax.runs.setup import Distillation
from kip_flax.runtime import hardware, metrics, multihost, sharding, signals
from kip_flax.runtime.console import Console, count, duration
from kip_flax.runtime.errors import UserError

_ASKED = "asked_steps"  # In a checkpoint: `num_steps` as it was given, before a time limit.
_TESTS = "tests"  # In a checkpoint: the fingerprint of what the run is tested on.


def train_and_evaluate(config: ConfigDict, workdir: str, console: Console | None = None) -> State:
    """Runs the experiment of `config`, or resumes it, until it is finished or a signal stops it.

    On SIGTERM or SIGINT the step is finished, the state saved, and the function returns as usual.

    Args:
        config: a configuration that passes `config.validate`.
        workdir: folder for checkpoints, metrics and artefacts.
        console: prints the messages; None: to stdout, from the first process.

    Returns:
        The last state.

    Raises:
        UserError: data, devices or folder do not fit the configuration, another run is at work in
            the folder, or the loss is not finite.
    """
    console = console or Console(silent=not multihost.is_first())
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    multihost.check_same("the configuration", json.dumps(config.to_dict()).encode())
    with (
        setup.own_folder(workdir, config) as workdir,
        checkpoint.open_manager(workdir, config.checkpoint.keep) as manager,
    ):
        folder, algorithm = RunFolder(workdir), algorithms.find(config.algorithm)

        # The data, and the state that an earlier part of the run saved.
        saved, asked = checkpoint.restore_meta(manager), config.num_steps
        if saved is not None:
            config = _with_kept_length(config, saved, workdir)
            config_lib.check_same_experiment(saved["config"], config, workdir)
        dataset = _load_data(config)
        if saved is None and config.time_limit and config_lib.length_decides(config):
            config = _with_length_that_fits(config, dataset, mesh, console)
        total = algorithm.total_steps(config, len(dataset.train_labels))
        asked = (saved or {}).get(_ASKED, asked)
        meta = {"config": config.to_dict(), _ASKED: asked, **_shared_fingerprints(dataset)}
        restored = _restore(config, dataset, manager, meta)
        if restored is None:
            with multihost.raise_everywhere():
                algorithm.check_beginning(config, folder.steps_in_names())
        else:
            _check_not_beyond(restored.step, total, folder)
        if restored is not None and _is_finished(restored.step, total, folder, config.time_limit):
            finished = f"finished at step {restored.step}"
            if not _report_is_incomplete(folder, config):
                console.outcome(f"{finished}: nothing to do in {workdir}")
                return restored.state
            console.outcome(f"{finished}: completing the report of {workdir}")
            _complete_report(folder, config, dataset, mesh, console)
            return restored.state

        # Preprocessing, kernel, algorithm.
        at_hand = config if restored is None else _with_start_at_hand(config, folder)
        fitted = setup.kept_preprocessing(at_hand, dataset, workdir, resumed=restored is not None)
        of_networks = networks.make_network_evaluate(config, dataset, fitted, mesh)
        kernel = shard_kernel(setup.make_kernel(config, console), mesh)
        algorithm.prepare(config, console.say)
        distillation, initial = _make_distillation(at_hand, dataset, fitted, kernel, mesh)
        measure = evaluate.on_test_images(config, dataset, fitted, kernel, mesh)
        _write_config(folder, config)
        console.say(*_summary(config, dataset, mesh, distillation, workdir))

        # The steps.
        begun = initial if restored is None else _as_begun(config, initial)
        exporter = Exporter(folder, config, dataset, fitted, begun, restored is not None)
        saver = checkpoint.Saver(manager, meta, config.checkpoint.every_steps)
        with _open_recorder(exporter, restored) as recorder:
            longest = 0.0 if restored is None else restored.meta.get(checkpoint.EVALUATION, 0.0)
            training = Training(
                distillation=distillation,
                measure=measure,
                recorder=recorder,
                saver=saver,
                console=console,
                log_every=config.log.every_steps,
                network_evaluate=of_networks,
                time_limit=config.time_limit,
                longest_evaluation=longest,
            )
            if restored is None:
                state = training.run(distillation.start(), 0)
            else:
                console.say(f"going on from the checkpoint of step {restored.step}")
                recorder.go_on()
                state = training.run(sharding.replicate(mesh, restored.state), restored.step)

        # All is saved: if this fails, --mode=report can do it later.
        if recorder.finished:
            with signals.stop_signals():  # The first signal does not interrupt it.
                analysis.analyse_run(folder, config, dataset, fitted, kernel, mesh)
            recorder.report()
            console.say(f"report  {folder.report}")
        return state


def _report_is_incomplete(folder: RunFolder, config: ConfigDict) -> bool:
    """Whether the report of a finished run lacks its analysis, or was to be written again."""
    waits = analysis.is_missing(folder, config) or report.reloads(folder.path)
    return bool(multihost.of_first(np.array(waits)))


def _complete_report(
    folder: RunFolder, config: ConfigDict, dataset: Dataset, mesh: Mesh, console: Console
) -> None:
    """Does for a finished run what its own process did not come to: analysis and report."""
    at_hand = _with_start_at_hand(config, folder)
    fitted = setup.kept_preprocessing(at_hand, dataset, str(folder.path), resumed=True)
    kernel = shard_kernel(setup.make_kernel(config, console), mesh)
    with signals.stop_signals():
        analysis.analyse_run(folder, config, dataset, fitted, kernel, mesh)
    with multihost.raise_everywhere():
        if multihost.is_first():
            report.write(folder.path, {})
    console.say(f"report  {folder.report}")


def _is_finished(step: int, total: int, folder: RunFolder, time_limit: float) -> bool:
    """Whether nothing is left to do; after the last step its evaluation may be missing.

    Raises:
        UserError: its time limit ended the run, and its last checkpoint is lost.
    """
    result = folder.earlier_result()
    limit = result.get("ended_by_time_limit")
    by_limit = limit is not None and limit == time_limit
    if by_limit and step < (last := result["evaluations"][-1]["step"]):
        raise UserError(
            f"time_limit={limit:g} ended {folder.path} at step {last}, whose checkpoint is lost: "
            f"the set is there; give more to go on from step {step}, or take another --workdir."
        )
    ended = step == total or by_limit
    return step > total or (ended and result.get("status") == "finished")


def _check_not_beyond(step: int, total: int, folder: RunFolder) -> None:
    """Raises UserError if a run was stopped after more steps than it is now to have."""
    if step > total and folder.earlier_result().get("status") != "finished":
        raise UserError(
            f"{folder.path} was stopped at step {step}, beyond num_steps={total}: give "
            f"--config.num_steps={step} to end it there, or more."
        )


def _with_kept_length(config: ConfigDict, saved: dict[str, Any], workdir: str) -> ConfigDict:
    """`config` with the number of steps that `_with_length_that_fits` gave the run when it began.

    Raises:
        UserError: the run began with another time limit or number of steps, which its schedule was
            made for.
    """
    asked, kept = saved.get(_ASKED), saved["config"]
    earlier = kept.get("time_limit", 0.0)
    if not config_lib.length_decides(config) or not (earlier or config.time_limit):
        return config
    if earlier != config.time_limit:
        raise UserError(
            f"the schedule of {workdir} was laid out for time_limit={earlier:g} and it is now "
            f"{config.time_limit:g}: take another --workdir, or {earlier:g} to go on."
        )
    if asked is not None and config.num_steps not in (asked, kept["num_steps"]):
        raise UserError(
            f"{workdir} began with num_steps={asked} and a schedule for its time_limit; num_steps "
            f"is now {config.num_steps}: take another --workdir, or {asked} to go on."
        )
    return _with_steps(config, kept["num_steps"])


def _with_length_that_fits(
    config: ConfigDict, dataset: Dataset, mesh: Mesh, console: Console
) -> ConfigDict:
    """`config` with as many steps as fit the time limit, at most `num_steps`.

    A schedule has to know its last step in advance, so a probe measures the time of a step.
    """
    console.say("measuring a step, to lay the schedule out for time_limit")
    kernel = shard_kernel(setup.make_kernel(config, console), mesh)
    found = forecast(config, dataset, kernel, mesh, console)
    steps = int(multihost.of_first(np.array(found.steps_in_time(config))))
    expected = duration(found.of_steps(max(1, steps), config).seconds)
    if found.steps and not steps:
        raise UserError(
            f"time_limit={config.time_limit:g} (hours) leaves no time for a step: nine tenths of "
            f"it are planned for, and one step with its evaluations takes {expected}. Give more."
        )
    console.say(f"{steps} steps are expected to take {expected}")
    return _with_steps(config, steps)


def _with_steps(config: ConfigDict, steps: int) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.num_steps = steps
    return config


def _with_start_at_hand(config: ConfigDict, folder: RunFolder) -> ConfigDict:
    """`config`, its `support.init` replaced by the run's own set of step 0.

    A run that goes on takes only shapes and a picture from it. The file may be gone or another.
    """
    if not config_lib.from_a_file(config):
        return config
    try:
        own = folder.distilled()[0]
    except (UserError, KeyError):  # A kill came before it was written.
        return config
    config = config.copy_and_resolve_references()
    config.support.init = str(own)
    return config


def _as_begun(config: ConfigDict, initial: SupportArrays) -> SupportArrays:
    """The first images with the labels that the file of `support.init` gave them.

    The run's own set of step 0 may have solved ones. The file may be gone, or another one.
    """
    if not config_lib.from_a_file(config):
        return initial
    try:
        given = export.load_distilled(config.support.init)
    except UserError:
        return initial
    images, _ = initial
    return (images, given.labels) if np.array_equal(given.images, images) else initial


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


def _make_distillation(
    config: ConfigDict, dataset: Dataset, fitted: Preprocess, kernel: Kernel, mesh: Mesh
) -> tuple[Distillation, SupportArrays]:
    """The steps of the algorithm, and the support that they start from."""
    train_images = preprocess.apply(fitted, dataset.train_images)
    targets = data.Targets(train_images, dataset.train_labels, dataset.num_classes)
    key_support, key_steps = setup.keys(config)
    initial = setup.first_support(config, targets, key_support)
    problem = Problem(config, targets, kernel, mesh, key_steps)
    distillation = setup.make_distillation(problem, initial)
    return distillation, (np.asarray(initial[0]), np.asarray(initial[1]))


def _write_config(folder: RunFolder, config: ConfigDict) -> None:
    with multihost.raise_everywhere():
        if multihost.is_first():
            folder.write_config(config.to_dict())


@contextlib.contextmanager
def _open_recorder(exporter: Exporter, restored: checkpoint.Restored | None) -> Iterator[Recorder]:
    """The recorder of the run; on exit TensorBoard's files are flushed."""
    with metrics.open_writer(str(exporter.folder.metrics), multihost.is_first()) as writer:
        writer.write_hparams(config_lib.hyper_parameters(exporter.config))
        resumed, seconds = None, 0.0
        if restored is not None:
            resumed, seconds = restored.step, restored.meta.get(checkpoint.SECONDS, 0.0)
        yield Recorder(exporter, writer, _report_writer(), resumed, seconds)


def _report_writer() -> WriteReport:
    frames: Frames = {}  # Kept between calls: a run adds one set at a time.

    def write(folder: RunFolder, awaited: bool) -> None:
        report.write(folder.path, frames, awaited)

    return write


def _summary(
    config: ConfigDict, dataset: Dataset, mesh: Mesh, distillation: Distillation, workdir: str
) -> tuple[str, list[tuple[str, str]]]:
    size = "x".join(map(str, dataset.image_shape))
    labels = algorithms.find(config.algorithm).labels(config.support.learn_labels)
    pairs = f", {count(distillation.pairs)} pairs each" if distillation.pairs else ""
    kernel, axes = config.kernel, mesh.shape
    used = kernels.resolve(kernel.implementation)
    counts = len(dataset.train_labels), len(dataset.test_labels)
    images = f"{counts[0]} training, {counts[1]} {dataset.split} images"
    sizes = (
        f"{dataset.title}: {images} of {size}, {dataset.num_classes} classes; {config.preprocess}"
    )
    return f"kip_flax {__version__}: {config.algorithm} in {workdir}", [
        ("data", sizes),
        ("support", f"{config.support.size} images, labels {labels}"),
        ("kernel", f"{kernel.architecture}, depth {kernel.depth}, {kernel.kind}; {used}"),
        ("devices", f"{hardware.hardware()}; mesh {axes['data']} x {axes['support']}"),
        ("steps", f"{distillation.total}{pairs}"),
        *_privacy(config, dataset, distillation.total),
    ]


def _privacy(config: ConfigDict, dataset: Dataset, total: int) -> list[tuple[str, str]]:
    """A line on the privacy that the run will spend; [] if the algorithm protects no images."""
    stated = algorithms.find(config.algorithm).declared(config, len(dataset.train_labels), total)
    if not stated:
        return []
    private = stated["epsilon"] is not None
    spent = card.spent_privacy(stated) if private else "none: the noise can be repeated"
    noise = f"noise multiplier {stated['noise_multiplier']:.4g}"
    if "means_noise_multiplier" in stated:
        noise += f", of the first step's means {stated['means_noise_multiplier']:.4g}"
    return [("privacy", f"{spent}; {noise}")]
