"""A run from its configuration to its artefacts, and the evaluation of a file; reads top to bottom.

What is computed where: `tasks` has the steps of the algorithms, `loop` goes through them.
"""

import json
import os

from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import __version__, data, export, kernels, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms import base as tasks
from kip_flax.algorithms.base import State, Task
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.report import write as report
from kip_flax.preprocess import Preprocess
from kip_flax.runs import analysis, checkpoint, evaluate, loop, record
from kip_flax.runs import setup as prepare
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files, hardware, metrics, multihost, sharding, signals
from kip_flax.runtime.console import Console, count
from kip_flax.runtime.errors import UserError

EVALUATION = "evaluation.json"


def train_and_evaluate(config: ConfigDict, workdir: str, console: Console | None = None) -> State:
    """Runs what `config` says, or goes on with it, until it is finished or told to stop.

    On SIGTERM or SIGINT the step is finished, the state saved, and the function returns as usual.

    Args:
        config: a configuration that passes `config.validate`.
        workdir: folder for checkpoints, metrics and artefacts.
        console: what it says goes there; None: to stdout, from the first process.

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
        prepare.own_folder(workdir) as workdir,
        checkpoint.open_manager(workdir, config.checkpoint.keep) as manager,
    ):
        if (saved := checkpoint.restore_meta(manager)) is not None:
            config_lib.check_same_experiment(saved["config"], config, workdir)
        dataset = prepare.load(config)
        config_lib.check_data(config, dataset)
        total = tasks.total_steps(config, len(dataset.train_labels))
        meta = {"config": config.to_dict(), "data": prepare.fingerprint(dataset)}
        multihost.check_same(f"the data set {dataset.name}", b"%d" % meta["data"])
        like = tasks.template(config, dataset.image_shape, dataset.num_classes)
        restored = checkpoint.restore(manager, like)
        if restored is not None and restored.meta["data"] != meta["data"]:
            raise UserError(f"{workdir} was made from other data: take another --workdir.")
        if restored is not None and restored.step >= total:
            console.outcome(f"finished at step {restored.step}: nothing to do in {workdir}")
            return restored.state

        fitted = prepare.kept_preprocessing(config, dataset, workdir, resumed=restored is not None)
        train_images = preprocess.apply(fitted, dataset.train_images)
        targets = data.Targets(train_images, dataset.train_labels, dataset.num_classes)
        kernel = shard_kernel(prepare.make_kernel(config, console), mesh)
        key_support, key_steps = tasks.keys(config)
        support = tasks.init_support(config, targets, key_support)
        tasks.prepare(config, console.say)
        task = tasks.make_task(config, targets, support, kernel, mesh, key_steps)
        measure = _make_evaluate(config, dataset, fitted, kernel, mesh)
        with multihost.raise_everywhere():
            if multihost.is_first():
                files.write_json(os.path.join(workdir, "config.json"), config.to_dict())
        console.say(*_summary(config, dataset, mesh, task, workdir))
        resumed = None if restored is None else restored.step
        first = multihost.is_first()
        recorder = record.Recorder(workdir, config, dataset, fitted, support, resumed, first)
        with metrics.open_writer(os.path.join(workdir, "metrics"), first) as writer:
            writer.write_hparams(config_lib.hyper_parameters(config))
            run = loop.Run(config, task, measure, manager, meta, recorder, writer, console)
            if restored is None:
                state = loop.run_from(run, loop.begin(run), 0)
            else:
                console.say(f"going on from the checkpoint of step {restored.step}")
                state = sharding.replicate(mesh, restored.state)
                state = loop.run_from(run, state, restored.step)
        if state.step == total:  # All is saved: what follows can be made up for (--mode=report).
            with signals.stop_signals():  # A first signal lets it come to its end.
                analysis.analyse_run(RunFolder(workdir), config, dataset, fitted, kernel, mesh)
            with multihost.raise_everywhere():
                recorder.report()
            console.say(f"report  {os.path.join(workdir, report.REPORT)}")
        return state


def evaluate_file(
    config: ConfigDict, path: str, workdir: str | None = None, console: Console | None = None
) -> dict[str, float]:
    """Test `accuracy` (0 to 1) and `mse` of the distilled set in `path` with the config's kernel.

    The preprocessing is the one in the file, or is fitted on the training images where the file,
    as the published ones, has none. What was measured goes to `evaluation.json` in `workdir`, where
    one is given.

    Raises:
        UserError: the file is broken, or does not fit the data set or the configuration.
    """
    console = console or Console(silent=not multihost.is_first())
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    distilled = export.load_distilled(path)
    dataset = prepare.load(config)
    config_lib.check_pools(config, dataset)
    fitted = prepare.preprocessing_of(distilled, dataset, config.preprocess)
    measures = evaluate.evaluate_distilled(
        distilled,
        dataset,
        fitted,
        shard_kernel(prepare.make_kernel(config, console), mesh),
        reg=config.reg,
        batch_size=config.eval.batch_size,
        num_test=config.eval.num_test,
        mesh=mesh,
    )
    console.outcome(
        f"{path} on {dataset.name}: {dataset.split} accuracy {measures['accuracy']:.2%}, "
        f"mse {measures['mse']:.5f}"
    )
    if workdir and multihost.is_first():
        files.write_json(
            os.path.join(workdir, EVALUATION),
            {
                "distilled": path,
                "dataset": dataset.name,
                "evaluated_on": dataset.split,
                **measures,
                "config": config.to_dict(),
                "hardware": hardware.hardware(),
                "versions": hardware.versions(),
            },
        )
    return measures


def _make_evaluate(
    config: ConfigDict, dataset: Dataset, fitted: Preprocess, kernel: Kernel, mesh: Mesh
) -> evaluate.Evaluate:
    images, labels = data.test_subset(dataset, config.eval.num_test)
    return evaluate.make_evaluate(
        kernel,
        preprocess.apply(fitted, images),
        labels,
        reg=config.reg,
        batch_size=config.eval.batch_size,
        mesh=mesh,
    )


def _summary(
    config: ConfigDict, dataset: Dataset, mesh: Mesh, task: Task, workdir: str
) -> tuple[str, list[tuple[str, str]]]:
    size = "x".join(map(str, dataset.image_shape))
    labels = f"labels {config_lib.labels_are(config_lib.flatten(config))}"
    pairs = f", {count(task.pairs)} pairs each" if task.pairs else ""
    kernel, axes = config.kernel, mesh.shape
    used = kernels.resolve(kernel.implementation)
    counts = len(dataset.train_labels), len(dataset.test_labels)
    images = f"{counts[0]} training, {counts[1]} {dataset.split} images"
    data = f"{dataset.name}: {images} of {size}, {dataset.num_classes} classes; {config.preprocess}"
    return f"kip_flax {__version__}: {config.algorithm} in {workdir}", [
        ("data", data),
        ("support", f"{config.support.size} images, {labels}"),
        ("kernel", f"{kernel.architecture}, depth {kernel.depth}, {kernel.kind}; {used}"),
        ("devices", f"{hardware.hardware()}; mesh {axes['data']} x {axes['support']}"),
        ("steps", f"{task.total}{pairs}"),
    ]
