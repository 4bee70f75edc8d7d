"""The accuracy of networks that are trained on the sets of a run.

During a run, networks are tested on the run's validation images or on held-out training images. The
test images are read once, after the last step; a run with validation images does not read them.
Held-out images and keys are those of `--mode=transfer`, so that both give the same accuracies.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import data, preprocess
from kip_flax.algorithms import base
from kip_flax.data import Dataset, Targets, augment
from kip_flax.networks import figures, named
from kip_flax.networks import recipe as recipes
from kip_flax.networks.recipe import Recipe
from kip_flax.preprocess import Preprocess
from kip_flax.runtime.waiting import Watch, stopping_together

if TYPE_CHECKING:
    from kip_flax.networks.build import Make
    from kip_flax.networks.train import Trainer


@dataclass(frozen=True, eq=False)
class NetworkEvaluate:
    """Trains networks on supports of one shape, and tests them.

    Attributes:
        config: a valid configuration that names networks.
        dataset, fitted: the run's data and preprocessing.
        mesh: the devices of this process; each trains a network.
        makers: functions that make a network, by its name.
        recipe: how the networks are trained.
        watched: images that networks are tested on during the run.
        on: the kind of these images, `figures.VALIDATION` or `figures.HELD_OUT`.
    """

    config: ConfigDict
    dataset: Dataset
    fitted: Preprocess
    mesh: Mesh
    makers: dict[str, Make]
    recipe: Recipe
    watched: Targets
    on: str
    _trainers: dict[str, Trainer] = field(default_factory=dict)
    _largest: dict[str, dict[int, float]] = field(default_factory=dict)

    def measure(
        self, images: np.ndarray, labels: np.ndarray, last: bool, watch: Watch
    ) -> list[figures.Row]:
        """Trains and tests the networks; every process of a run calls it and trains them all.

        Args:
            images, labels: the support (S, H, W, channels), (S, classes).
            last: whether the run ends here; test images then follow held-out ones.
            watch: reports progress, and stops at a signal to this process.

        Returns:
            A row for each network, see `networks.figures`; with test images, a second one each.

        Raises:
            Stopped: a signal stopped one of the processes.
        """
        rows: list[figures.Row] = []
        for tested, on in self._parts(last):
            for name in self.makers:
                with stopping_together():
                    rows.append(self._measured(name, (images, labels), tested, on, watch))
        return rows

    def seconds(self, images: np.ndarray, labels: np.ndarray, watch: Watch) -> tuple[float, float]:
        """Expected seconds of `measure` during the run and at its end, without compiling.

        It times a few steps of each network on a support of the same shapes.

        Raises:
            Stopped: a signal asked to stop.
        """
        before_end, at_end, parts = 0.0, 0.0, self._parts(last=True)
        for name in self.makers:
            trials = [self._trial(name, tested, on) for tested, on in parts]
            cost = trials[0].probe(images[None], labels[None], watch, name)
            seconds = [trial.seconds(cost) for trial in trials]
            before_end, at_end = before_end + seconds[0], at_end + sum(seconds)
        return before_end, at_end

    @property
    def at_end(self) -> float:
        """How many times as long as others the last evaluation takes: it trains more networks."""
        if self.on != figures.HELD_OUT:
            return 1.0
        counts = (self.config.transfer.seeds, self.config.eval.network_seeds)
        rounds, earlier = (math.ceil(count / self.mesh.size) for count in counts)
        return 1 + rounds / earlier

    def tests_on(self, last: bool) -> tuple[str, ...]:
        """The kinds of images that `measure` tests on."""
        return tuple(on for _, on in self._parts(last))

    def _parts(self, last: bool) -> list[tuple[Targets, str]]:
        """Images that networks are tested on, each with its kind."""
        parts = [(self.watched, self.on)]
        if last and self.on == figures.HELD_OUT:
            parts.append((self._test_images(), figures.TEST))
        return parts

    def _measured(
        self,
        name: str,
        support: tuple[np.ndarray, np.ndarray],
        tested: Targets,
        on: str,
        watch: Watch,
    ) -> figures.Row:
        from kip_flax.networks.trial import Diverged

        images, labels = support
        trial = self._trial(name, tested, on)
        shared = {
            "network": name,
            "on": on,
            "recipe": f"{self.config.transfer.recipe}: {self.recipe.words}",
            "training": self._training(on),
            "width": self.recipe.width if self._is_described(name) else None,
        }
        try:
            what = f"{name} for {figures.words(on)}"
            found = trial.run(images[None], labels[None], watch, what)
        except Diverged:
            return shared | figures.summary([])
        chosen = {"learning_rate": found.rate, "l2": found.l2}
        return shared | figures.summary(found.accuracies) | chosen

    def _training(self, on: str) -> int:
        """CRC-32 of all that decides how networks are trained, and which images judge them."""
        options = self.config.transfer
        judges = {
            figures.HELD_OUT: (HELD_OUT_VERSION, options.held_out),
            figures.VALIDATION: (self.config.eval.num_test,),
        }
        others = (options.parameterization, options.ntk_inputs, *judges.get(on, ()))
        settled = recipes.resolved(options.to_dict()), *others
        return zlib.crc32(json.dumps(settled, sort_keys=True, default=str).encode())

    def _is_described(self, name: str) -> bool:
        """Whether the network has the recipe's width; networks of the zoo have their own."""
        kernel = self.config.kernel
        return named.spec_of(name, kernel.architecture, kernel.depth) is not None

    def _trial(self, name: str, tested: Targets, on: str) -> Any:
        from kip_flax.networks import build, train
        from kip_flax.networks.trial import Trial

        options = self.config.transfer
        if name not in self._trainers:
            net = build.functions(self.makers[name])
            self._trainers[name] = train.make_trainer(net, self.recipe, self.mesh)
        return Trial(
            self._trainers[name],
            self.recipe,
            self.mesh,
            validation=self.watched,
            test=tested,
            key=keys(self.config.seed).networks,
            seeds=options.seeds if on == figures.TEST else self.config.eval.network_seeds,
            ntk_inputs=options.ntk_inputs,
            eval_batch=options.eval_batch_size,
            most_steps=options.every_steps,
            largest=self._largest.setdefault(name, {}),
        )

    def _test_images(self) -> Targets:
        pixels, labels = data.test_subset(self.dataset, self.config.eval.num_test)
        return Targets(preprocess.apply(self.fitted, pixels), labels, self.dataset.num_classes)


def make_network_evaluate(
    config: ConfigDict, dataset: Dataset, fitted: Preprocess, mesh: Mesh
) -> NetworkEvaluate | None:
    """The evaluation by the networks of `eval.networks`; None if it names none.

    Args:
        config: a valid configuration.
        dataset, fitted: its data and preprocessing.
        mesh: the run's mesh.

    Raises:
        UserError: the images are too small for one of the networks.
    """
    if not config.eval.networks:
        return None
    recipe = make_recipes(config, dataset)(config.support.size)
    like, shape = network_options(config, recipe.width), (dataset.image_shape, dataset.num_classes)
    watched, on = _watched(config, dataset, fitted)
    own = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    return NetworkEvaluate(
        config=config,
        dataset=dataset,
        fitted=fitted,
        mesh=Mesh(np.array(own), ("networks",)),
        makers={name: named.maker(name, *shape, like) for name in config.eval.networks},
        recipe=recipe,
        watched=watched,
        on=on,
    )


HELD_OUT_VERSION = 2  # Of the rule by which images are held out: 1 held out those of a start.


class Keys(NamedTuple):
    """Keys of the held-out images, the random draws and the networks."""

    held_out: jax.Array
    draws: jax.Array
    networks: jax.Array


def keys(seed: int) -> Keys:
    """The keys that follow from `seed`, for all code that trains networks on sets."""
    first, draws, networks = jax.random.split(jax.random.key(seed), 3)
    # `first` itself is also the first key of `setup.keys`, which draws the support.
    return Keys(jax.random.fold_in(first, 1), draws, networks)


def make_recipes(config: ConfigDict, dataset: Dataset) -> Callable[[int], Recipe]:
    """A function from the size of a set in images to the recipe of `config.transfer`.

    Raises:
        UserError: `transfer.augment` mirrors images that may not be mirrored.
    """
    options, channels = config.transfer.to_dict(), dataset.image_shape[2]
    names = augment.parse(options["augment"] or "", "transfer.augment")
    augment.check_effect(names, dataset.image_shape, "transfer.augment")
    if "flip" in names:
        others = "--config.transfer.augment=scale,rotate --config.transfer.augment_draw=one"
        base.check_mirrorable(dataset, "transfer.augment", others)

    def recipe_of(size: int) -> Recipe:
        return recipes.make(options["recipe"], size, channels, dataset.mirrorable, options)

    return recipe_of


def network_options(config: ConfigDict, width: int) -> named.NetworkOptions:
    """The settings of networks that are built from a description, not taken from the zoo."""
    from kip_flax.networks import build

    kernel = config.kernel
    weights = build.Weights(kernel.w_std, kernel.b_std, config.transfer.parameterization)
    return named.NetworkOptions(kernel.architecture, kernel.depth, width, weights)


def held_out_rows(labels: np.ndarray, classes: int, share: float, key: jax.Array) -> np.ndarray:
    """Sorted row numbers of the held-out training images, balanced over the classes.

    Of a small class at most half are held out, or `share` if that is more; but at least one image.
    """
    count = max(1, round(share * len(labels)))
    rows = data.balanced_draw(labels, count, classes, key)
    most = (max(share, 0.5) * np.bincount(labels, minlength=classes)).astype(int)
    kept = [rows[labels[rows] == number][: most[number]] for number in range(classes)]
    if not any(map(len, kept)):
        return np.flatnonzero(labels == np.argmax(most))[:1]
    return np.sort(np.concatenate(kept))


def _watched(config: ConfigDict, dataset: Dataset, fitted: Preprocess) -> tuple[Targets, str]:
    if dataset.split == figures.VALIDATION:
        (pixels, labels), on = data.test_subset(dataset, config.eval.num_test), figures.VALIDATION
    else:
        known, key = dataset.train_labels, keys(config.seed).held_out
        rows = held_out_rows(known, dataset.num_classes, config.transfer.held_out, key)
        (pixels, labels), on = (dataset.train_images[rows], known[rows]), figures.HELD_OUT
    return Targets(preprocess.apply(fitted, pixels), labels, dataset.num_classes), on
