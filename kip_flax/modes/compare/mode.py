"""`--mode=compare`: distilled sets side by side, on the same test images, kernels and networks.

Every set is used in its own preprocessing. Sets that share one share the real images that are drawn
beside them ('random', 'herding', 'kmeans' of `config.transfer.baselines`), of the same number.
Networks are trained as `config.transfer` says, all alike. A finished figure is kept in
comparison.json, an unfinished training in a checkpoint: the same command goes on from there, also
with more sets or networks.
"""

import dataclasses
import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import preprocess
from kip_flax.data import Dataset, Targets
from kip_flax.data.coresets import CORESETS
from kip_flax.data.sets import data_note
from kip_flax.modes.compare import entries, page
from kip_flax.modes.compare.entries import Entry, Made
from kip_flax.modes.compare.table import Line, mark, markdown, notes
from kip_flax.modes.transfer import contest, session, sets
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.modes.transfer.table import Table
from kip_flax.preprocess import Preprocess
from kip_flax.runs import setup
from kip_flax.runtime import hardware, sharding
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

FILE = "comparison.json"
BASELINES = ("random", *CORESETS)


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Sets that share a preprocessing."""

    fitted: Preprocess
    entries: list[Entry]


def compare(
    config: ConfigDict, paths: Sequence[str], workdir: str, console: Console | None = None
) -> list[Line]:
    """Compares the distilled sets that `paths` name, files or folders of runs.

    Returns:
        The lines of the table, which is also written as markdown, csv and html to `workdir`.
        Figures are missing if a signal stopped it.

    Raises:
        UserError: sets, data set, networks and folder do not fit together.
    """
    _check_baselines(config)
    with setup.own_folder(workdir) as workdir:
        return _compare(config, paths, workdir, console or Console())


def _compare(
    config: ConfigDict, paths: Sequence[str], workdir: str, console: Console
) -> list[Line]:
    options = config.transfer
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    dataset = setup.load(config)
    compared = _entries(paths)
    groups = _groups(config, compared, dataset)
    table = Table(workdir, _identity(config, dataset), list(paths), FILE)
    keys = sets.keys(config.seed)
    contenders = contest.make_contest(config, dataset, keys.networks, mesh, console)
    console.say(_summary(config, compared, dataset, workdir))

    found: list[Line] = []
    asked: list[ImageSet] = []
    done = True
    with session.open_session(workdir, console) as opened:
        for group in groups:
            real = sets.real_images(
                dataset, group.fitted, options.held_out, config.eval.num_test, keys.held_out
            )
            measured = _sets(config, group, real.pool, keys.draws)
            images = [image_set for image_set, _ in measured]
            asked += images
            done = done and contenders.fill(table, images, real, opened)
            tested = len(real.test.labels)
            found += _lines(table, contenders.names, group.fitted, tested, measured)

    names = contenders.names
    mark(found, names)
    page.write(workdir, found, names, _notes(config, found, dataset), dataset.name)
    if not done:
        console.outcome("stopped and saved: the same command goes on from there")
        return found
    session.discard(workdir)
    console.outcome(markdown(found, names, dataset.name))
    console.say(f"written {', '.join(os.path.join(workdir, name) for name in page.FILES)}")
    table.check_diverged(names, asked, options.lr_factor)
    return found


def _check_baselines(config: ConfigDict) -> None:
    for name in config.transfer.baselines:
        if name not in BASELINES:
            raise UserError(
                f"transfer.baselines names {name!r}: a comparison draws {', '.join(BASELINES)}; "
                f"name other sets in --compare, such as the file of step 0 or a run of ls."
            )


def _entries(paths: Sequence[str]) -> list[Entry]:
    found: dict[str, Entry] = {}
    for path in paths:
        entry = entries.read(path)
        if (other := found.get(entry.key)) is not None:
            raise UserError(
                f"{entry.distilled.path} and {other.distilled.path} hold the same set: name each "
                f"once in --compare."
            )
        found[entry.key] = entry
    return list(found.values())


def _groups(config: ConfigDict, compared: list[Entry], dataset: Dataset) -> list[Group]:
    groups: dict[int, Group] = {}
    for entry in compared:
        name = entry.distilled.preprocess_name or config.preprocess
        fitted = setup.preprocessing_of(entry.distilled, dataset, name)
        arrays = sorted(preprocess.to_arrays(fitted).items())
        key = 0
        for _, array in arrays:
            key = zlib.crc32(np.ascontiguousarray(array).tobytes(), key)
        groups.setdefault(key, Group(fitted, [])).entries.append(entry)
    return list(groups.values())


def _identity(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """What all figures have in common; the preprocessing is each set's own."""
    fields = contest.deciding(config)
    del fields["preprocess"]
    return fields | {"data (checksum)": setup.fingerprint(dataset)}


def _sets(
    config: ConfigDict, group: Group, pool: Targets, key: jax.Array
) -> list[tuple[ImageSet, Made]]:
    """The group's sets, and real images of as many."""
    found = [(sets.of_file(e.key, e.distilled), e.made) for e in group.entries]
    for size in sorted({image_set.size for image_set, _ in found}):
        for name in config.transfer.baselines:
            if name == "random":
                drawn = sets.random_draws(pool, size, config.transfer.seeds, key)
            else:
                drawn = sets.chosen(name, pool, size)
            label = f"{name} real images, {group.fitted.name}"
            drawn = dataclasses.replace(drawn, name=label)
            found.append((drawn, Made(f"{name} real images")))
    return found


def _lines(
    table: Table,
    names: Sequence[str],
    fitted: Preprocess,
    num_test: int,
    measured: Iterable[tuple[ImageSet, Made]],
) -> list[Line]:
    found = []
    for image_set, made in measured:
        rows = {name: table.find(image_set.name, image_set.size, name) for name in names}
        diverged = {n for n in names if table.diverged(image_set.name, image_set.size, n)}
        found.append(
            Line(
                made=made,
                preprocess=fitted.name,
                per_class=image_set.size / image_set.labels.shape[-1],
                size=image_set.size,
                bytes=image_set.images[0].nbytes + image_set.labels[0].nbytes,
                figures={name: row for name, row in rows.items() if row is not None},
                pictures=preprocess.invert(fitted, image_set.images[0]),
                num_test=num_test,
                diverged=frozenset(diverged),
            )
        )
    return found


def _notes(config: ConfigDict, found: list[Line], dataset: Dataset) -> list[str]:
    differs = data_note(dataset.name, config.dataset.data_dir)
    told = [differs] if differs else []
    options = config.transfer
    return [
        *notes(found, dataset.name),
        *told,
        f"Networks: {options.num_steps} steps of {options.batch_size}, {options.loss} on "
        f"{options.labels} labels, augmented by {_augmented(config)}, "
        f"{options.seeds} seeds; rate and L2 chosen on held-out training images.",
        f"Seconds are those of each run on its own machine; this comparison ran on "
        f"{hardware.hardware()}.",
    ]


def _augmented(config: ConfigDict) -> str:
    options = config.transfer
    one = "one of " if options.augment_draw == "one" else ""
    return one + options.augment if options.augment else "nothing"


def _summary(config: ConfigDict, compared: list[Entry], dataset: Dataset, workdir: str) -> str:
    told = "\n".join(f"  set       {e.made.title}: {e.distilled.path}" for e in compared)
    return f"""comparison in {workdir}
{told}
  data      {dataset.name}, {len(dataset.test_labels)} test images
  measured  {", ".join(config.transfer.networks)}; {config.transfer.seeds} seeds
  devices   {hardware.hardware()}"""
