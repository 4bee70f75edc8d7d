"""`--mode=transfer`: what a distilled set is worth to the networks that are trained on it.

Networks are trained on the distilled set, and on real images in its place, and are tested on the
real test set. What is chosen (learning rate, L2) is chosen on held-out training images. A finished
row of the table is kept in transfer.json, an unfinished one in a checkpoint: the same command goes
on from there.
"""

import os
import shutil
import zlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax import data, export, preprocess
from kip_flax.data import Targets
from kip_flax.modes.transfer import rows as transfer_rows
from kip_flax.modes.transfer import sets as transfer_sets
from kip_flax.modes.transfer import table as transfer_table
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.networks import build as networks
from kip_flax.networks import fields as transfer_fields
from kip_flax.networks.fields import KRR
from kip_flax.preprocess import Preprocess
from kip_flax.runs import checkpoint, evaluate
from kip_flax.runs import setup as prepare
from kip_flax.runs.evaluate import Kernel
from kip_flax.runtime import hardware, sharding, signals
from kip_flax.runtime.console import Console


def transfer_file(
    config: ConfigDict, path: str, workdir: str, console: Console | None = None
) -> list[dict[str, Any]]:
    """Trains and tests what `config.transfer` says on the set in `path`; see the module.

    Returns:
        The rows of the table: `set`, `size`, `network`, test `accuracies`, `mean`, `std`, and how
        they came about. Fewer than asked for, if a signal stopped it.

    Raises:
        UserError: file, data set, networks and folder do not fit together, or a training diverged.
    """
    with prepare.own_folder(workdir) as workdir:
        return _transfer(config, path, workdir, console or Console())


def _transfer(
    config: ConfigDict, path: str, workdir: str, console: Console
) -> list[dict[str, Any]]:
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    distilled = export.load_distilled(path)
    dataset = prepare.load(config)
    evaluate.check_fits(distilled, dataset, config.preprocess)
    table = transfer_table.Table(workdir, identity(config, distilled, dataset), path)
    makers, kernels = contenders(config, dataset, mesh, console)
    fitted = prepare.preprocessing_of(distilled, dataset, config.preprocess)
    problem, pool, key_draw = make_problem(config, dataset, fitted, mesh)
    sets = _sets(config, path, distilled, pool, kernels.get(KRR), key_draw)
    console.say(_summary(config, path, distilled, pool, problem.held_out, problem.test, workdir))

    folder = os.path.join(workdir, "transfer")
    with checkpoint.open_manager(folder, keep=1) as manager, signals.stop_signals() as stopping:
        session = transfer_rows.Session(manager, stopping, console)
        if not fill(table, problem, sets, kernels, makers, session):
            console.outcome("stopped and saved: the same command goes on from there")
            return table.rows
    shutil.rmtree(folder, ignore_errors=True)  # All rows are in the table.
    options = config.transfer
    console.outcome(table.finish(options.networks, sets))
    table.check_diverged(options.networks, sets, options.lr_factor)
    return table.rows


def identity(
    config: ConfigDict, distilled: export.Distilled, dataset: data.Dataset
) -> dict[str, Any]:
    """What all rows of one table have in common: the fields that decide, the set and the data."""
    crc = zlib.crc32(distilled.images.tobytes(), zlib.crc32(distilled.labels.tobytes()))
    sums = {"distilled set (checksum)": crc, "data (checksum)": prepare.fingerprint(dataset)}
    return transfer_fields.deciding(config) | sums


def make_problem(
    config: ConfigDict, dataset: data.Dataset, fitted: Preprocess, mesh: Mesh
) -> tuple[transfer_rows.Problem, Targets, jax.Array]:
    """What to measure on and with, the real images that baselines draw from, and their key."""
    classes = dataset.num_classes
    key_held, key_draw, key_train = jax.random.split(jax.random.key(config.seed), 3)
    real = Targets(preprocess.apply(fitted, dataset.train_images), dataset.train_labels, classes)
    pool, held_out = transfer_sets.hold_out(real, config.transfer.held_out, key_held)
    images, labels = data.test_subset(dataset, config.eval.num_test)
    test = Targets(preprocess.apply(fitted, images), labels, classes)
    return transfer_rows.Problem(config, held_out, test, mesh, key_train), pool, key_draw


def contenders(
    config: ConfigDict, dataset: data.Dataset, mesh: Mesh, console: Console
) -> tuple[dict[str, networks.Make], dict[str, Kernel]]:
    """What makes the networks, and the kernels, by their names in `transfer.networks`.

    Raises:
        UserError: the images are too small for one of them.
    """
    names = config.transfer.networks
    makers = {
        name: transfer_rows.maker(config, name, dataset.image_shape, dataset.num_classes)
        for name in names
        if not transfer_fields.is_kernel(name)
    }
    asked = [name for name in names if transfer_fields.is_kernel(name)]
    if "label_solve" in config.transfer.baselines and KRR not in asked:
        asked.append(KRR)
    described = {name: transfer_fields.kernel_config(config, name) for name in asked}
    for one in described.values():
        config_lib.check_pools(one, dataset)
    kernels = {
        name: sharding.shard_kernel(prepare.make_kernel(one, console), mesh)
        for name, one in described.items()
    }
    return makers, kernels


def fill(
    table: transfer_table.Table,
    problem: transfer_rows.Problem,
    sets: list[ImageSet],
    kernels: dict[str, Kernel],
    makers: dict[str, networks.Make],
    session: transfer_rows.Session,
) -> bool:
    """Computes the rows that are not there; False when told to stop before the last.

    A training that diverges is noted in the table, and the others go on.
    """
    for name in problem.config.transfer.networks:
        missing = [s for s in sets if not table.has(s.name, s.size, name)]
        if not missing:
            continue
        compute: Callable[[ImageSet], dict[str, Any] | None]
        if name in kernels:
            compute = transfer_rows.krr_row(problem, kernels[name])
        else:
            compute = transfer_rows.network_row(problem, name, makers[name], session)
        for image_set in missing:
            try:
                row = None if session.stopping() else compute(image_set)
            except transfer_rows.Diverged as error:
                table.add_diverged(image_set.name, image_set.size, name)
                session.console.say(f"{error}: diverged")
                continue
            if row is None:
                return False
            table.add({"set": image_set.name, "size": image_set.size, "network": name, **row})
            session.console.say(transfer_table.line(table.rows[-1]))
    return True


def _sets(
    config: ConfigDict,
    path: str,
    distilled: export.Distilled,
    pool: Targets,
    kernel: Kernel | None,
    key: jax.Array,
) -> list[ImageSet]:
    size, draws = len(distilled.images), config.transfer.seeds
    sets = [transfer_sets.of_file("distilled", distilled)]
    for name in config.transfer.baselines:
        if name == "initial":
            sets.append(transfer_sets.initial(path))
        elif name == "label_solve":
            assert kernel is not None
            start = transfer_sets.initial(path)
            sets.append(transfer_sets.label_solved(start, pool, kernel, config.reg))
        elif name != "random":
            sets.append(transfer_sets.chosen(name, pool, size))
    sizes = {size} if "random" in config.transfer.baselines else set()
    for count in sorted(sizes | set(config.transfer.ladder)):
        sets.append(transfer_sets.random_draws(pool, count, draws, key))
    return sets


def _summary(
    config: ConfigDict,
    path: str,
    distilled: export.Distilled,
    pool: Targets,
    held_out: Targets,
    test: Targets,
    workdir: str,
) -> str:
    options = config.transfer
    return f"""transfer of {path}, in {workdir}
  set       {len(distilled.images)} images; {config.dataset.name}: {len(pool.labels)} real ones to \
draw from, {len(held_out.labels)} held out, {len(test.labels)} to test on
  networks  {", ".join(options.networks)}; width {options.width}
  training  {options.num_steps} steps of {options.batch_size}, {options.loss} on {options.labels} \
labels, {options.seeds} seeds
  devices   {hardware.hardware()}"""
