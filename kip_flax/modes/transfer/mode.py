"""`--mode=transfer`: networks trained on a distilled set, compared with real images.

Networks are trained on the distilled set and on sets of real images, and tested on the real test
set. Learning rate and L2 are chosen on held-out training images. A forecast of the time is printed
first. transfer.json keeps finished rows of the table, a checkpoint keeps the unfinished one: the
same command resumes from there.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kip_flax import export
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.modes.transfer import contest, session, sets
from kip_flax.modes.transfer.best import FOLDER, TRANSFER, BestNetwork
from kip_flax.modes.transfer.sets import ImageSet, RealImages
from kip_flax.modes.transfer.table import Table
from kip_flax.networks.named import KRR
from kip_flax.networks.recipe import LARGE, Recipe
from kip_flax.runs import networks, setup
from kip_flax.runtime import hardware, sharding, signals
from kip_flax.runtime.console import Console
from kip_flax.runtime.waiting import Stopped, Watch

# (name of a set, its size) -> whether a row on it is missing in the table.
Lacks = Callable[[str, int], bool]

STOPPED = "stopped and saved: the same command goes on from there"


@sharding.with_float64
def transfer_file(
    config: ConfigDict, path: str, workdir: str, console: Console | None = None
) -> list[dict[str, Any]]:
    """Trains and tests the networks of `config.transfer` on the set in `path`; see the module.

    Returns:
        The rows of the table: `set`, `size`, `network`, test `accuracies` (0 to 1), `mean`, `std`,
        and how they were trained. Fewer than asked for if a signal stopped it.

    Raises:
        UserError: file, data set, networks and folder do not fit together, or a training diverged.
    """
    console = console or Console()
    with setup.own_folder(workdir, config) as workdir, signals.stop_signals() as stopping:
        table: list[Table] = []
        try:
            _transfer(config, path, workdir, Watch(stopping, console), table)
        except Stopped:
            console.outcome(STOPPED)
        return table[0].rows if table else []


def _transfer(
    config: ConfigDict, path: str, workdir: str, watch: Watch, tables: list[Table]
) -> None:
    console = watch.console
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    distilled = export.load_distilled(path)
    dataset = watch.wait("reading the data", lambda: setup.load(config))
    export.check_fits(distilled, dataset, config.preprocess)
    tests = setup.fingerprint_of_tests(dataset)
    table = Table(workdir, identity(config, distilled, dataset), tests, path)
    tables.append(table)
    keys = networks.keys(config.seed)
    contenders = watch.wait(
        "compiling the kernels",
        lambda: contest.make_contest(config, dataset, keys.networks, mesh, console),
    )
    krr = contenders.kernels.get(KRR)
    lacks = functools.partial(contenders.lacks, table)
    real, measured = watch.wait(
        "preparing the images", lambda: _prepared(config, path, distilled, dataset, krr, lacks)
    )
    recipe = contenders.protocol.recipe_of(len(distilled.images))
    on_kernels = contest.notes_on_kernels(config, contenders.kernels, [distilled])
    watch.say(_summary(config, distilled, real, workdir, recipe, on_kernels))

    best = BestNetwork(
        folder=Path(workdir) / FOLDER,
        like=networks.network_options(config, recipe.width),
        dataset=dataset,
        fitted=real.fitted,
        facts={
            "dataset": dataset.name,
            "set": path,
            "images": len(distilled.images),
            TRANSFER: table.checksum,
        },
        size=len(distilled.images),
    )
    table.begin()
    with session.open_session(workdir, watch, best, table.checksum) as opened:
        missing = contenders.missing(table, [(s.name, s.size) for s in measured])
        if line := contenders.forecast(missing, real, opened):
            watch.say(line)
        contenders.fill(table, measured, real, opened)
    session.discard(workdir)
    console.outcome("\n".join(filter(None, (table.finish(contenders.names, measured), best.words))))
    table.check_diverged(contenders.names, measured, contenders.protocol.recipe_of(LARGE))


def _prepared(
    config: ConfigDict,
    path: str,
    distilled: export.Distilled,
    dataset: Dataset,
    kernel: Kernel | None,
    lacks: Lacks,
) -> tuple[RealImages, list[ImageSet]]:
    """Real images, and the sets to measure."""
    keys, size = networks.keys(config.seed), len(distilled.images)
    fitted = setup.preprocessing_of(distilled, config, dataset, config.preprocess)
    held_out, num_test = config.transfer.held_out, config.eval.num_test
    real = sets.real_images(dataset, fitted, held_out, num_test, keys.held_out)
    return real, [
        sets.of_file(sets.DISTILLED, distilled),
        *_baselines(config, path, size, real, kernel, lacks),
        *_random_draws(config, size, real, keys.draws),
    ]


def identity(config: ConfigDict, distilled: export.Distilled, dataset: Dataset) -> dict[str, Any]:
    """Fields that all rows of a table depend on, and checksums of the set and the data."""
    crc = zlib.crc32(distilled.images.tobytes(), zlib.crc32(distilled.labels.tobytes()))
    return contest.deciding(config, dataset) | {"distilled set (checksum)": crc}


def _baselines(
    config: ConfigDict,
    path: str,
    size: int,
    real: RealImages,
    kernel: Kernel | None,
    lacks: Lacks,
) -> list[ImageSet]:
    """Sets of `size` images to compare the set in `path` with, the same for all seeds."""
    found = []
    for name in config.transfer.baselines:
        if name == "initial":
            found.append(sets.initial(path))
        elif name == "label_solve":
            assert kernel is not None
            start = sets.initial(path)
            if lacks(name, start.size):
                found.append(sets.label_solved(start, real.pool, kernel, config.reg))
            else:  # Its labels, which may take an hour, are not looked at again.
                found.append(dataclasses.replace(start, name=name))
        elif name != "random":
            found.append(sets.chosen(name, real.pool, size))
    return found


def _random_draws(
    config: ConfigDict, size: int, real: RealImages, key: jax.Array
) -> list[ImageSet]:
    """Random real images: as many as the distilled set if asked for, and those of the ladder."""
    options = config.transfer
    sizes = {size} if "random" in options.baselines else set()
    return [
        sets.random_draws(real.pool, count, options.seeds, key)
        for count in sorted(sizes | set(options.ladder))
    ]


def _summary(
    config: ConfigDict,
    distilled: export.Distilled,
    real: RealImages,
    workdir: str,
    recipe: Recipe,
    on_kernels: Iterable[str],
) -> str:
    options = config.transfer
    kernels = "".join(f"\n  kernel    {note}" for note in on_kernels)
    return f"""transfer of {distilled.path}, in {workdir}
  set       {len(distilled.images)} images; {config.dataset.name}: {len(real.pool.labels)} real \
ones to draw from, {len(real.held_out.labels)} held out, {len(real.test.labels)} {real.split} images
  networks  {", ".join(options.networks)}; width {recipe.width}
  training  {options.recipe}: {recipe.words}; {options.seeds} seeds{kernels}
  devices   {hardware.hardware()}"""
