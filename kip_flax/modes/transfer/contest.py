"""The networks and kernels of `transfer.networks`, by which sets are measured."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax import export
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.transfer import rows
from kip_flax.modes.transfer.session import Session
from kip_flax.modes.transfer.sets import ImageSet, RealImages
from kip_flax.modes.transfer.table import Table, line
from kip_flax.networks import build, named, train
from kip_flax.networks import recipe as recipes
from kip_flax.networks.named import KRR, is_kernel
from kip_flax.networks.recipe import Recipe
from kip_flax.networks.transfer_fields import OF_RECIPES
from kip_flax.networks.trial import Diverged, Trial
from kip_flax.runs import networks as run_networks
from kip_flax.runs import setup
from kip_flax.runtime.console import Console, duration
from kip_flax.runtime.waiting import Stopped

Need = tuple[str, int]  # A network and a number of images.
# Fields that choose the rows, or how they are computed, but do not change results.
_FREE = (
    *("transfer.networks", "transfer.baselines", "transfer.ladder", "transfer.every_steps"),
    *("transfer.eval_batch_size", "dataset.data_dir", "kernel.implementation"),
)


@dataclass(frozen=True)
class Protocol:
    """How the networks of all rows are trained and chosen.

    Attributes:
        recipe_of: number of images -> the recipe for sets of that size.
        seeds: networks per row.
        key: key of their weights and batches.
        ntk_inputs: held-out images that the largest learning rate is computed on.
        eval_batch_size: images per evaluation pass of a network.
        every_steps: most steps between two looks at a training; None: as many as take some seconds.
    """

    recipe_of: Callable[[int], Recipe]
    seeds: int
    key: jax.Array
    ntk_inputs: int
    eval_batch_size: int
    every_steps: int | None


@dataclass(frozen=True, eq=False)
class Contest:
    """Contenders (networks and kernels), and how they are measured.

    Attributes:
        names: names of the contenders, in the order of the table.
        kernels, makers: by name, kernels over the mesh, and functions that make networks.
        reg, batch_size: of kernel ridge regression, as in `evaluate.make_evaluate`.
        protocol: how networks are trained.
        mesh: the devices.
    """

    names: tuple[str, ...]
    kernels: dict[str, Kernel]
    makers: dict[str, build.Make]
    reg: float
    batch_size: int
    protocol: Protocol
    mesh: Mesh
    # Compiled trainers by network and recipe; largest learning rates by images and network.
    _trainers: dict[tuple[str, Recipe], train.Trainer] = field(default_factory=dict)
    _largest: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)

    def contender(self, name: str, real: RealImages, session: Session) -> rows.Contender:
        """A function that computes the rows of `name`; nothing runs before its first call."""
        if name in self.kernels:
            return rows.krr_row(
                real.test,
                self.kernels[name],
                reg=self.reg,
                batch_size=self.batch_size,
                mesh=self.mesh,
                session=session,
            )
        return rows.network_row(name, functools.partial(self.trial, name, real), session)

    def trial(self, name: str, real: RealImages, size: int) -> Trial:
        """The trial of the network `name` on sets of `size` images."""
        protocol = self.protocol
        recipe = protocol.recipe_of(size)
        # Numbers of steps, learning rates and L2 are arguments of the compiled functions.
        alike = dataclasses.replace(
            recipe, num_steps=1, choice_steps=1, warmup_steps=0, rates=(), l2s=()
        )
        if (name, alike) not in self._trainers:
            net = build.functions(self.makers[name])
            self._trainers[name, alike] = train.make_trainer(net, recipe, self.mesh)
        return Trial(
            self._trainers[name, alike],
            recipe,
            self.mesh,
            validation=real.held_out,
            test=real.test,
            key=protocol.key,
            seeds=protocol.seeds,
            ntk_inputs=protocol.ntk_inputs,
            eval_batch=protocol.eval_batch_size,
            most_steps=protocol.every_steps,
            largest=self._largest.setdefault(real, {}).setdefault(name, {}),
        )

    def lacks(self, table: Table, name: str, size: int) -> bool:
        """Whether a row on the set of this name and size is missing in the table."""
        return not all(table.has(name, size, contender) for contender in self.names)

    def missing(self, table: Table, sets: Iterable[tuple[str, int]]) -> Counter[Need]:
        """The number of rows missing in the table, by network and number of images.

        Args:
            table: the table.
            sets: names and sizes.
        """
        return Counter(
            (name, size)
            for name in self.makers
            for kind, size in sets
            if not table.has(kind, size, name)
        )

    def forecast(self, missing: Counter[Need], real: RealImages, session: Session) -> str:
        """A line on how long the networks will take, from a few steps of each; '' without networks.

        Raises:
            Stopped: a signal asked to stop.
        """
        seconds, spent, trainings = 0.0, 0.0, 0
        for (name, size), count in missing.items():
            trial = self.trial(name, real, size)
            images, labels = real.pool.take(np.resize(np.arange(len(real.pool.labels)), size))
            cost = trial.probe(images[None], labels[None], session.watch, f"{name} on {size}")
            seconds += count * trial.seconds(cost) + cost.once
            if session.best is not None and size == session.best.size:
                seconds += trial.seconds_to_hand_over(cost)
            spent += cost.compiling
            trainings += count * trial.trainings
        if not trainings:
            return ""
        names = ", ".join(dict.fromkeys(name for name, _ in missing))
        return (
            f"about {_roughly(seconds)}: {trainings} trainings of {names}, {self.mesh.size} at a "
            f"time (compiling and timing them took {duration(spent)})"
        )

    def fill(
        self, table: Table, sets: Sequence[ImageSet], real: RealImages, session: Session
    ) -> None:
        """Computes the rows that are not in the table.

        A training that diverges is noted in the table, and the others go on.

        Raises:
            Stopped: a signal asked to stop.
            UserError: a file cannot be written, or a kernel matrix is not positive definite.
        """
        watch = session.watch
        for name in self.names:
            missing = [s for s in sets if not table.has(s.name, s.size, name)]
            if not missing:
                continue
            contender = self.contender(name, real, session)
            for image_set in missing:
                if watch.stopping():
                    raise Stopped
                try:
                    row = contender(image_set)
                except Diverged as error:
                    table.add_diverged(image_set.name, image_set.size, name)
                    watch.say(f"{error}: diverged")
                    continue
                table.add({"set": image_set.name, "size": image_set.size, "network": name, **row})
                watch.say(line(table.rows[-1], real.split))


def _roughly(seconds: float) -> str:
    """A duration without needless seconds: 8 s, 12 min, 2 h 05 min."""
    return f"{round(seconds / 60)} min" if 90 <= seconds < 3600 else duration(seconds)


def make_contest(
    config: ConfigDict, dataset: Dataset, key: jax.Array, mesh: Mesh, console: Console
) -> Contest:
    """The contest that a valid configuration describes; its kernels are compiled ahead.

    Args:
        config: the configuration.
        dataset: provides the shape of images and the number of classes.
        key: key of the networks' weights and batches.
        mesh: the devices.
        console: gets a line if compiling takes long.

    Raises:
        UserError: the images are too small for one of the contenders.
    """
    names = config.transfer.networks
    recipe_of = run_networks.make_recipes(config, dataset)
    width = recipe_of(recipes.LARGE).width
    shape = (dataset.image_shape, dataset.num_classes)
    like = run_networks.network_options(config, width)
    makers = {name: named.maker(name, *shape, like) for name in names if not is_kernel(name)}
    asked = [name for name in names if is_kernel(name)]
    if "label_solve" in config.transfer.baselines and KRR not in asked:
        asked.append(KRR)
    configs = {name: kernel_config(config, name) for name in asked}
    for one in configs.values():
        config_lib.check_kernel(one, dataset)
    kernels = {
        name: shard_kernel(setup.make_kernel(one, console), mesh) for name, one in configs.items()
    }
    return Contest(
        tuple(names),
        kernels,
        makers,
        config.reg,
        config.eval.batch_size,
        _protocol(config.transfer, recipe_of, key),
        mesh,
    )


def deciding(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """The fields, by dotted name, that change the results of a row, and the data's checksum.

    That of the tests is not among them: see `Table`.
    """
    nested = {name: config[name] for name in ("dataset", "kernel", "transfer")}
    flat = config_lib.flatten(nested)
    flat |= {name: config[name] for name in ("seed", "preprocess", "reg")}
    flat["eval.num_test"] = config.eval.num_test
    flat["held-out images (version)"] = run_networks.HELD_OUT_VERSION
    of_recipe = ("transfer.recipe", *(f"transfer.{name}" for name in OF_RECIPES))
    kept = {name: value for name, value in flat.items() if name not in (*_FREE, *of_recipe)}
    data = {"data (checksum)": setup.fingerprint(dataset)}
    return kept | recipes.resolved(config.transfer.to_dict()) | data


def kernel_config(config: ConfigDict, name: str) -> ConfigDict:
    """The configuration with the kernel named by 'krr' (its own) or 'krr:fc:1'."""
    _, _, rest = name.partition(":")
    if not rest:
        return config
    kind, _, number = rest.partition(":")
    changed = config.copy_and_resolve_references()
    changed.kernel.architecture, changed.kernel.depth = kind, int(number)
    return changed


def notes_on_kernels(
    config: ConfigDict, names: Collection[str], compared: Iterable[export.Distilled]
) -> list[str]:
    """'krr is by convnet, depth 3, ntk; reg 1e-06.' and so on; then sets of another kernel."""
    kernels = [f"{name} is by {setup.words_of_krr(kernel_config(config, name))}." for name in names]
    notes = [setup.note_on_kernel(one, config) for one in compared] if KRR in names else []
    return kernels + [note for note in notes if note]


def _protocol(options: ConfigDict, recipe_of: Callable[[int], Recipe], key: jax.Array) -> Protocol:
    return Protocol(
        recipe_of=recipe_of,
        seeds=options.seeds,
        key=key,
        ntk_inputs=options.ntk_inputs,
        eval_batch_size=options.eval_batch_size,
        every_steps=options.every_steps,
    )
