"""`--mode=compare`: distilled sets side by side, on the same test images, kernels and networks.

Every set is used in its own preprocessing. Sets that share one share the real images that are drawn
beside them ('random', 'herding', 'kmeans' of `config.transfer.baselines`), of the same number.
Networks are trained as `config.transfer` says, all alike. A finished figure is kept in
comparison.json, an unfinished training in a checkpoint: the same command goes on from there, also
with more sets or networks.
"""

import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import preprocess
from kip_flax.data import Dataset, Targets
from kip_flax.modes.compare import page as compare_page
from kip_flax.modes.compare import published
from kip_flax.modes.compare import sets as compare_sets
from kip_flax.modes.compare import table as compare_table
from kip_flax.modes.compare.sets import Entry, Made
from kip_flax.modes.transfer import mode as transfer
from kip_flax.modes.transfer import rows as transfer_rows
from kip_flax.modes.transfer import sets as transfer_sets
from kip_flax.modes.transfer import table as transfer_table
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.networks import fields as transfer_fields
from kip_flax.preprocess import Preprocess
from kip_flax.runs import checkpoint
from kip_flax.runs import setup as prepare
from kip_flax.runtime import hardware, sharding, signals
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

FILE = "comparison.json"
BASELINES = ("random", "kmeans", "herding")


@dataclass(frozen=True, eq=False)
class Group:
    """Sets that share a preprocessing."""

    fitted: Preprocess
    entries: list[Entry]


def compare(
    config: ConfigDict, paths: Sequence[str], workdir: str, console: Console | None = None
) -> list[compare_table.Line]:
    """Compares the distilled sets that `paths` name, files or folders of runs.

    Returns:
        The lines of the table, which is also written as markdown, csv and html to `workdir`.
        Figures are missing if a signal stopped it.

    Raises:
        UserError: sets, data set, networks and folder do not fit together.
    """
    _check_baselines(config)
    with prepare.own_folder(workdir) as workdir:
        return _compare(config, paths, workdir, console or Console())


def _compare(
    config: ConfigDict, paths: Sequence[str], workdir: str, console: Console
) -> list[compare_table.Line]:
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    dataset = prepare.load(config)
    entries = _entries(paths)
    groups = _groups(config, entries, dataset)
    table = transfer_table.Table(workdir, _identity(config, dataset), list(paths), FILE)
    makers, kernels = transfer.contenders(config, dataset, mesh, console)
    console.say(_summary(config, entries, dataset, workdir))
    lines: list[compare_table.Line] = []
    asked: list[ImageSet] = []
    done = True
    folder = os.path.join(workdir, "transfer")
    with checkpoint.open_manager(folder, keep=1) as manager, signals.stop_signals() as stopping:
        session = transfer_rows.Session(manager, stopping, console)
        for group in groups:
            problem, pool, key_draw = transfer.make_problem(config, dataset, group.fitted, mesh)
            sets = _sets(config, group, pool, key_draw)
            images = [image_set for image_set, _ in sets.values()]
            asked += images
            done = done and transfer.fill(table, problem, images, kernels, makers, session)
            lines += _lines(table, problem, group.fitted, sets.values())
    networks = tuple(config.transfer.networks)
    compare_table.mark(lines, networks)
    compare_page.write(workdir, lines, networks, _notes(config, lines, dataset), dataset.name)
    if not done:
        console.outcome("stopped and saved: the same command goes on from there")
        return lines
    shutil.rmtree(folder, ignore_errors=True)  # All figures are in the table.
    console.outcome(compare_table.markdown(lines, networks, dataset.name))
    console.say(f"written {', '.join(os.path.join(workdir, name) for name in compare_page.FILES)}")
    table.check_diverged(networks, asked, config.transfer.lr_factor)
    return lines


def _check_baselines(config: ConfigDict) -> None:
    for name in config.transfer.baselines:
        if name not in BASELINES:
            raise UserError(
                f"transfer.baselines names {name!r}: a comparison draws {', '.join(BASELINES)}; "
                f"name other sets in --compare, such as the file of step 0 or a run of ls."
            )


def _entries(paths: Sequence[str]) -> list[Entry]:
    entries: dict[str, Entry] = {}
    for path in paths:
        entry = compare_sets.read(path)
        if (other := entries.get(entry.key)) is not None:
            raise UserError(
                f"{entry.distilled.path} and {other.distilled.path} hold the same set: name each "
                f"once in --compare."
            )
        entries[entry.key] = entry
    return list(entries.values())


def _groups(config: ConfigDict, entries: list[Entry], dataset: Dataset) -> list[Group]:
    groups: dict[int, Group] = {}
    for entry in entries:
        name = entry.distilled.preprocess_name or config.preprocess
        fitted = prepare.preprocessing_of(entry.distilled, dataset, name)
        arrays = sorted(preprocess.to_arrays(fitted).items())
        key = 0
        for _, array in arrays:
            key = zlib.crc32(np.ascontiguousarray(array).tobytes(), key)
        groups.setdefault(key, Group(fitted, [])).entries.append(entry)
    return list(groups.values())


def _identity(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """What all figures have in common; the preprocessing is each set's own."""
    fields = transfer_fields.deciding(config)
    del fields["preprocess"]
    return fields | {"data (checksum)": prepare.fingerprint(dataset)}


def _sets(
    config: ConfigDict, group: Group, pool: Targets, key: jax.Array
) -> dict[str, tuple[ImageSet, Made]]:
    """The group's sets by name, and real images of as many."""
    sets = {e.key: (transfer_sets.of_file(e.key, e.distilled), e.made) for e in group.entries}
    for size in sorted({image_set.size for image_set, _ in sets.values()}):
        for name in config.transfer.baselines:
            if name == "random":
                drawn = transfer_sets.random_draws(pool, size, config.transfer.seeds, key)
            else:
                drawn = transfer_sets.chosen(name, pool, size)
            label = f"{name} real images, {group.fitted.name}"
            found = ImageSet(label, drawn.images, drawn.labels)
            sets[f"{label}, {size}"] = found, Made(f"{name} real images")
    return sets


def _lines(
    table: transfer_table.Table,
    problem: transfer_rows.Problem,
    fitted: Preprocess,
    sets: Iterable[tuple[ImageSet, Made]],
) -> list[compare_table.Line]:
    lines = []
    for image_set, made in sets:
        names = problem.config.transfer.networks
        rows = {name: table.find(image_set.name, image_set.size, name) for name in names}
        diverged = {n for n in names if table.diverged(image_set.name, image_set.size, n)}
        lines.append(
            compare_table.Line(
                made=made,
                preprocess=fitted.name,
                per_class=image_set.size / image_set.labels.shape[-1],
                size=image_set.size,
                bytes=image_set.images[0].nbytes + image_set.labels[0].nbytes,
                figures={name: row for name, row in rows.items() if row is not None},
                pictures=preprocess.invert(fitted, image_set.images[0]),
                num_test=len(problem.test.labels),
                diverged=frozenset(diverged),
            )
        )
    return lines


def _notes(config: ConfigDict, lines: list[compare_table.Line], dataset: Dataset) -> list[str]:
    notes = compare_table.notes(lines, dataset.name)
    differs = published.data_note(dataset.name, config.dataset.data_dir)
    told = [differs] if differs else []
    options = config.transfer
    return [
        *notes,
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


def _summary(config: ConfigDict, entries: list[Entry], dataset: Dataset, workdir: str) -> str:
    sets = "\n".join(f"  set       {e.made.title}: {e.distilled.path}" for e in entries)
    return f"""comparison in {workdir}
{sets}
  data      {dataset.name}, {len(dataset.test_labels)} test images
  measured  {", ".join(config.transfer.networks)}; {config.transfer.seeds} seeds
  devices   {hardware.hardware()}"""
