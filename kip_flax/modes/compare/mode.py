"""`--mode=compare`: distilled sets side by side, on the same test images, kernels and networks.

Every set is used in its own preprocessing. Real images of the same number are drawn for comparison
('random' and coresets, of `config.transfer.baselines`), once for sets that share a preprocessing.
All networks are trained by the recipe of `config.transfer`. comparison.json keeps finished
accuracies, a checkpoint keeps the unfinished training: the same command resumes from there, also
with more sets or networks.
"""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data, preprocess
from kip_flax.data import Dataset, Targets
from kip_flax.data.coresets import CORESETS
from kip_flax.data.sets import data_note
from kip_flax.modes.compare import entries, page
from kip_flax.modes.compare.entries import Entry, Made
from kip_flax.modes.compare.table import Line, mark, markdown, notes
from kip_flax.modes.transfer import contest, session, sets
from kip_flax.modes.transfer.mode import STOPPED
from kip_flax.modes.transfer.sets import ImageSet, RealImages
from kip_flax.modes.transfer.table import Table
from kip_flax.networks.recipe import LARGE, Recipe
from kip_flax.preprocess import Preprocess
from kip_flax.runs import networks, setup
from kip_flax.runtime import hardware, sharding, signals
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped, Watch

FILE = "comparison.json"
BASELINES = ("random", *CORESETS)


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Sets that share a preprocessing.

    Attributes:
        fitted, entries: the preprocessing, and the sets.
        name: of the preprocessing, with a checksum of its arrays: rows of real images that are
            kept by it hold for no other, now or later.
    """

    fitted: Preprocess
    entries: list[Entry]
    name: str


@sharding.with_float64
def compare(
    config: ConfigDict, paths: Sequence[str], workdir: str, console: Console | None = None
) -> list[Line]:
    """Compares the distilled sets in `paths`, which are files or folders of runs.

    Returns:
        The lines of the table, which is also written as markdown, csv and html to `workdir`. Lines
        or accuracies are missing if a signal stopped it.

    Raises:
        UserError: sets, data set, networks and folder do not fit together, or a training diverged.
    """
    _check_real_images(config)
    console = console or Console()
    with setup.own_folder(workdir, config) as workdir, signals.stop_signals() as stopping:
        try:
            return _compare(config, paths, workdir, Watch(stopping, console))
        except Stopped:  # Before anything could be measured.
            console.outcome(STOPPED)
            return []


def _compare(config: ConfigDict, paths: Sequence[str], workdir: str, watch: Watch) -> list[Line]:
    console = watch.console
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    dataset = watch.wait("reading the data", lambda: setup.load(config))
    compared = _entries(paths, config.preprocess)
    groups = watch.wait("preparing the images", lambda: _groups(config, compared, dataset))
    keys = networks.keys(config.seed)
    _check_coresets(config, groups, dataset, keys.held_out)
    tests = setup.fingerprint_of_tests(dataset)
    table = Table(workdir, _identity(config, dataset), tests, list(paths), FILE)
    contenders = watch.wait(
        "compiling the kernels",
        lambda: contest.make_contest(config, dataset, keys.networks, mesh, console),
    )
    given = [entry.distilled for entry in compared]
    on_kernels = contest.notes_on_kernels(config, contenders.kernels, given)
    recipe_of = contenders.protocol.recipe_of
    console.say(_summary(config, compared, dataset, workdir, recipe_of, on_kernels))

    found: list[Line] = []
    asked: list[ImageSet] = []
    done = True
    table.begin()
    with session.open_session(workdir, watch, identity=table.checksum) as opened:
        for number, group in enumerate(groups):
            prepare = functools.partial(_prepared, config, group, dataset, keys)
            try:
                real, measured = watch.wait("preparing the images", prepare)
            except Stopped:
                if not found:  # There is nothing to show.
                    raise
                done = False
                break
            images = [image_set for image_set, _ in measured]
            asked += images
            try:
                if number == 0:
                    missing = contenders.missing(table, _asked_for(config, groups))
                    if line := contenders.forecast(missing, real, opened):
                        watch.say(line)
                contenders.fill(table, images, real, opened)
            except Stopped:
                done = False
            found += _lines(table, contenders.names, group.fitted, len(real.test.labels), measured)
            if not done:
                break

    names = contenders.names
    mark(found, names)
    notes = _notes(config, found, dataset, on_kernels)
    page.write(workdir, found, names, notes, dataset.title)
    if not done:
        console.outcome(STOPPED)
        return found
    session.discard(workdir)
    console.outcome(markdown(found, names, dataset.title))
    console.say(f"written {', '.join(os.path.join(workdir, name) for name in page.FILES)}")
    table.check_diverged(names, asked, contenders.protocol.recipe_of(LARGE))
    return found


def _prepared(
    config: ConfigDict, group: Group, dataset: Dataset, keys: networks.Keys
) -> tuple[RealImages, list[tuple[ImageSet, Made]]]:
    """Real images in the group's preprocessing, and the sets to measure."""
    held_out, num_test = config.transfer.held_out, config.eval.num_test
    real = sets.real_images(dataset, group.fitted, held_out, num_test, keys.held_out)
    return real, _sets(config, group, real.pool, keys.draws)


def _check_real_images(config: ConfigDict) -> None:
    if config.transfer.ladder:
        raise UserError(
            "transfer.ladder is for --mode=transfer: a comparison looks for no set's worth in real "
            "images; leave it out."
        )
    for name in config.transfer.baselines:
        if name not in BASELINES:
            raise UserError(
                f"transfer.baselines names {name!r}: a comparison draws {', '.join(BASELINES)}; "
                f"name other sets in --compare, such as the file of step 0 or a run of ls."
            )


def _entries(paths: Sequence[str], preprocess_name: str) -> list[Entry]:
    found: dict[str, Entry] = {}
    for path in paths:
        entry = entries.read(path, preprocess_name)
        if (other := found.get(entry.key)) is not None:
            raise UserError(
                f"{entry.distilled.path} and {other.distilled.path} hold the same set: name each "
                f"once in --compare."
            )
        found[entry.key] = entry
    return list(found.values())


def _groups(config: ConfigDict, compared: list[Entry], dataset: Dataset) -> list[Group]:
    groups: dict[int, Group] = {}
    preprocessing = setup.preprocessings(config, dataset)
    for entry in compared:
        fitted = preprocessing(entry.distilled, entry.preprocess)
        arrays = sorted(preprocess.to_arrays(fitted).items())
        key = 0
        for _, array in arrays:
            key = zlib.crc32(np.ascontiguousarray(array).tobytes(), key)
        name = f"{fitted.name} {key:08x}"
        groups.setdefault(key, Group(fitted, [], name)).entries.append(entry)
    return list(groups.values())


def _check_coresets(
    config: ConfigDict, groups: list[Group], dataset: Dataset, key: jax.Array
) -> None:
    """Raises UserError, before any training, if a class is too small for a coreset."""
    labels, classes = dataset.train_labels, dataset.num_classes
    held_out = networks.held_out_rows(labels, classes, config.transfer.held_out, key)
    counts = np.bincount(np.delete(labels, held_out), minlength=classes)
    for group in groups:
        for name, _, size in _drawn(config, group):
            if name in CORESETS:
                sets.check_coreset(name, counts, size)


def _identity(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """Fields that all accuracies depend on, without the preprocessing, which is each set's own."""
    fields = contest.deciding(config, dataset)
    del fields["preprocess"]
    return fields


def _sets(
    config: ConfigDict, group: Group, pool: Targets, key: jax.Array
) -> list[tuple[ImageSet, Made]]:
    """The group's sets, and sets of as many real images."""
    found = [(sets.of_file(e.key, e.distilled), e.made) for e in group.entries]
    for name, label, size in _drawn(config, group):
        if name == "random":
            drawn = sets.random_draws(pool, size, config.transfer.seeds, key)
        else:
            drawn = sets.chosen(name, pool, size)
        found.append((dataclasses.replace(drawn, name=label), Made(f"{name} real images")))
    return found


def _drawn(config: ConfigDict, group: Group) -> list[tuple[str, str, int]]:
    """Sets of real images to compare a group with: how they are drawn, name and size."""
    return [
        (name, f"{name} real images, {group.name}", size)
        for size in sorted({len(e.distilled.images) for e in group.entries})
        for name in config.transfer.baselines
    ]


def _asked_for(config: ConfigDict, groups: list[Group]) -> list[tuple[str, int]]:
    """Names and sizes of all sets to measure."""
    found = [(e.key, len(e.distilled.images)) for group in groups for e in group.entries]
    return found + [drawn[1:] for group in groups for drawn in _drawn(config, group)]


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
                images_per_class=image_set.size / image_set.labels.shape[-1],
                size=image_set.size,
                bytes=image_set.images[0].nbytes + image_set.labels[0].nbytes,
                figures={name: row for name, row in rows.items() if row is not None},
                pictures=preprocess.invert(fitted, image_set.images[0]),
                num_test=num_test,
                diverged=frozenset(diverged),
            )
        )
    return found


def _notes(
    config: ConfigDict, found: list[Line], dataset: Dataset, on_kernels: Iterable[str]
) -> list[str]:
    differs = data_note(dataset.name, config.dataset.data_dir)
    on_data = [differs] if differs else []
    options = config.transfer
    recipe_of = networks.make_recipes(config, dataset)
    trained = [
        f"Networks on {size} images, width {recipe_of(size).width} where they are described: "
        f"{recipe_of(size).words}; {options.seeds} seeds."
        for size in sorted({line.size for line in found})
    ]
    measured = "Measured on held-out training images (dataset.validation), not on test images."
    held_out = [measured] if dataset.split == "validation" else []
    return [
        *held_out,
        *on_kernels,
        *notes(found, dataset.title),
        *on_data,
        *trained,
        f"Seconds are those of each run on its own machine; this comparison ran on "
        f"{hardware.hardware()}.",
    ]


def _summary(
    config: ConfigDict,
    compared: list[Entry],
    dataset: Dataset,
    workdir: str,
    recipe_of: Callable[[int], Recipe],
    on_kernels: Iterable[str],
) -> str:
    options = config.transfer
    sets = "\n".join(f"  set       {e.made.title}: {e.distilled.path}" for e in compared)
    recipe = recipe_of(len(compared[0].distilled.images))
    _, tested = data.test_subset(dataset, config.eval.num_test)
    kernels = "".join(f"\n  kernel    {note}" for note in on_kernels)
    return f"""comparison in {workdir}
{sets}
  data      {dataset.title}, {len(tested)} {dataset.split} images
  measured  {", ".join(options.networks)}; width {recipe.width}, {options.seeds} seeds
  training  {options.recipe}: {recipe.words}{kernels}
  devices   {hardware.hardware()}"""
