"""A run, from its configuration to its files.

The algorithm's module computes a step; `runs.loop` goes through the steps.
"""

import contextlib
import json
from collections.abc import Iterator

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
from kip_flax.modes.report import page as report
from kip_flax.modes.report.facts import Frames
from kip_flax.modes.train.opening import Opened, open_run
from kip_flax.preprocess import Preprocess
from kip_flax.runs import analysis, checkpoint, evaluate, networks, setup
from kip_flax.runs.exporter import Exporter, SupportArrays
from kip_flax.runs.folder import RunFolder
from kip_flax.runs.loop import Training
from kip_flax.runs.record import Recorder, WriteReport
from kip_flax.runs.setup import Distillation
from kip_flax.runtime import hardware, metrics, multihost, sharding, signals
from kip_flax.runtime.console import Console, count
from kip_flax.runtime.errors import UserError


@sharding.with_float64
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
        run = open_run(config, RunFolder(workdir), manager, mesh, console)
        restored = run.restored
        if restored is not None and run.is_finished(restored.step):
            _complete_report(run, restored.step)
            return restored.state
        return _train(run, manager)


def _train(run: Opened, manager: ocp.CheckpointManager) -> State:
    """Goes through the steps that are left, and reports on the run if it comes to its end."""
    config, folder, dataset, mesh = run.config, run.folder, run.dataset, run.mesh

    # Preprocessing, kernel, algorithm.
    at_hand, fitted = _preprocessing(run)
    of_networks = networks.make_network_evaluate(config, dataset, fitted, mesh)
    kernel = _kernel(run)
    algorithms.find(config.algorithm).prepare(config, run.console.say)
    distillation, initial = _make_distillation(at_hand, dataset, fitted, kernel, mesh)
    measure = evaluate.on_test_images(config, dataset, fitted, kernel, mesh)
    _write_config(folder, config)
    run.console.say(*_summary(run, distillation))
    if note := _note_on_start(at_hand):
        run.console.say(note)

    # The steps.
    begun = _as_begun(config, initial) if run.resumed else initial
    exporter = Exporter(folder, config, dataset, fitted, begun, run.resumed)
    saver = checkpoint.Saver(manager, run.meta, config.checkpoint.every_steps)
    with _open_recorder(exporter, run.restored) as recorder:
        training = Training(
            distillation=distillation,
            measure=measure,
            recorder=recorder,
            saver=saver,
            console=run.console,
            log_every=config.log.every_steps,
            network_evaluate=of_networks,
            saves_first=bool(exporter.privacy(0)),
            time_limit=config.time_limit,
            longest_evaluation=_longest_evaluation(run.restored),
        )
        state = _go_through(training, run)

    # All is saved: if this fails, --mode=report can do it later.
    if recorder.finished:
        _analyse(run, fitted, kernel)
        recorder.report()
        run.console.say(f"report  {folder.report}")
    return state


def _go_through(training: Training, run: Opened) -> State:
    """The steps from the first, or from the one after the state that was saved."""
    if run.restored is None:
        return training.run(training.distillation.start(), 0)
    run.console.say(f"going on from the checkpoint of step {run.restored.step}")
    training.recorder.go_on()
    return training.run(sharding.replicate(run.mesh, run.restored.state), run.restored.step)


def _longest_evaluation(restored: checkpoint.Restored | None) -> float:
    """Seconds, of the evaluations before the state that was saved."""
    return 0.0 if restored is None else restored.meta.get(checkpoint.EVALUATION, 0.0)


def _complete_report(run: Opened, step: int) -> None:
    """Does for a run that is finished what its own process did not come to: analysis, report."""
    finished, workdir = f"finished at step {step}", run.folder.path
    if not _report_is_incomplete(run.folder, run.config):
        run.console.outcome(f"{finished}: nothing to do in {workdir}")
        return
    run.console.outcome(f"{finished}: completing the report of {workdir}")
    _, fitted = _preprocessing(run)
    _analyse(run, fitted, _kernel(run))
    with multihost.raise_everywhere():
        if multihost.is_first():
            report.write(run.folder.path, {})
    run.console.say(f"report  {run.folder.report}")


def _report_is_incomplete(folder: RunFolder, config: ConfigDict) -> bool:
    """Whether the report of a finished run lacks its analysis, or was to be written again."""
    waits = analysis.is_missing(folder, config) or report.reloads(folder.path)
    return bool(multihost.of_first(np.array(waits)))


def _preprocessing(run: Opened) -> tuple[ConfigDict, Preprocess]:
    """The run's preprocessing, and its configuration with a start that is there to be read."""
    at_hand, workdir = run.with_start_at_hand(), str(run.folder.path)
    return at_hand, setup.kept_preprocessing(at_hand, run.dataset, workdir, resumed=run.resumed)


def _note_on_start(config: ConfigDict) -> str:
    """A sentence if steps compute another kernel than the run whose set they begin with; or ''."""
    if not (config_lib.from_a_file(config) and algorithms.facts(config.algorithm).uses_kernel):
        return ""
    return setup.note_on_kernel(export.load_distilled(config.support.init), config)


def _kernel(run: Opened) -> Kernel:
    return shard_kernel(setup.make_kernel(run.config, run.console), run.mesh)


def _analyse(run: Opened, fitted: Preprocess, kernel: Kernel) -> None:
    with signals.stop_signals():  # The first signal does not interrupt it.
        analysis.analyse_run(run.folder, run.config, run.dataset, fitted, kernel, run.mesh)


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


def _summary(run: Opened, distillation: Distillation) -> tuple[str, list[tuple[str, str]]]:
    config, dataset = run.config, run.dataset
    size = "x".join(map(str, dataset.image_shape))
    labels = algorithms.find(config.algorithm).labels(config.support.learn_labels)
    pairs = f", {count(distillation.pairs)} pairs each" if distillation.pairs else ""
    axes = run.mesh.shape
    used = kernels.resolve(config.kernel.implementation)
    counts = len(dataset.train_labels), len(dataset.test_labels)
    images = f"{counts[0]} training, {counts[1]} {dataset.split} images"
    sizes = (
        f"{dataset.title}: {images} of {size}, {dataset.num_classes} classes; {config.preprocess}"
    )
    return f"kip_flax {__version__}: {config.algorithm} in {run.folder.path}", [
        ("data", sizes),
        ("support", f"{config.support.size} images, labels {labels}"),
        ("kernel", f"{setup.words_of_kernel(config)}; {used}"),
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
