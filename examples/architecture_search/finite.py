"""A finite network, trained on each set: what it reaches, and what that takes."""

import functools

import jax
import numpy as np

from examples.architecture_search.clock import core_seconds
from examples.architecture_search.images import WHOLE, Images
from examples.architecture_search.kept import Row
from examples.architecture_search.space import Search
from kip_flax.data import Targets
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.networks import build, train, zoo
from kip_flax.networks import recipe as recipes
from kip_flax.networks.build import Tree
from kip_flax.runtime import sharding

_PER_PASS = 100  # Images that are tested at a time.


def measure(
    design: zoo.ConvNet, proxies: dict[str, ImageSet], images: Images, search: Search
) -> Row:
    """Trains a network on the proxies and on the whole.

    Returns:
        By the name of the set its accuracy on the `held_out` images, 0 to 1, mean over the seeds,
        and the core `seconds` of training and testing it. With the whole also its accuracy on the
        `test` images, and apart the core seconds of `compiling` all.
    """
    work = _Work(design, images, search)
    row: Row = {}
    for name, image_set in proxies.items():
        row[name] = work.on_held_out(image_set, None)[0]
    parts = images.whole.take(slice(None))
    whole = ImageSet(WHOLE, *(part[None] for part in parts))
    row[WHOLE], trained = work.on_held_out(whole, search.steps)
    row[WHOLE]["test"] = work.mean_accuracy(trained, images.test)
    return row | {"compiling": work.compiling}


class _Work:
    """The trainings of one design: by the recipe 'auto', a seed on each device."""

    def __init__(self, design: zoo.ConvNet, images: Images, search: Search):
        shape, classes = images.shape, images.held_out.num_classes
        make = functools.partial(zoo.convnet, shape, classes, design=design)
        changes = {"batch_size": search.batch}
        self.recipe_of = functools.partial(
            recipes.make, "auto", channels=shape[2], mirrorable=images.mirrorable
        )
        self.changes, self.seeds = changes, search.seeds
        self.mesh = sharding.make_mesh(min(search.seeds, jax.device_count()))
        net = build.functions(make)
        self.trainer = train.make_trainer(net, self.recipe_of(size=1, changes=changes), self.mesh)
        self.scale = np.float32(1 / np.std(images.held_out.images, dtype=np.float64))
        self.compiling = 0.0
        # Batches of held-out and of test images as one array: what counts is compiled once.
        self.parts = (images.held_out, images.test)
        pairs = [
            train.batches(part.images * self.scale, part.labels, _PER_PASS) for part in self.parts
        ]
        self.batches = [len(labels) for _, labels in pairs]
        tested = tuple(np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        self.tested = train.put_all(self.mesh, tested)

    def on_held_out(self, image_set: ImageSet, steps: int | None) -> tuple[Row, list[Tree]]:
        """What the seeds reach that are trained on a set, and their states, round by round.

        Args:
            image_set: the set.
            steps: of a training; None: as the recipe says for its size.
        """
        trained = [self._trained(image_set, steps, seeds) for seeds in self._rounds()]
        states, seconds = zip(*trained, strict=True)
        accuracy, testing = core_seconds(lambda: self.mean_accuracy(list(states), self.parts[0]))
        return {"held_out": accuracy, "seconds": sum(seconds) + testing}, list(states)

    def mean_accuracy(self, states: list[Tree], targets: Targets) -> float:
        """Share of right answers, mean over the seeds; one that diverged has none.

        Args:
            states: of the seeds, round by round.
            targets: the held-out images or the test images.
        """
        held_out = self.batches[0]
        first, last = (0, held_out) if targets is self.parts[0] else (held_out, sum(self.batches))
        shares: dict[int, float] = {}
        for seeds, state in zip(self._rounds(), states, strict=True):
            right = self.trainer.count_right(state, *self.tested, first, last)
            found = np.nan_to_num(np.asarray(right, np.float64)) / len(targets.labels)
            shares |= dict(zip(seeds, found.tolist(), strict=True))
        return float(np.mean(list(shares.values())))

    def _trained(
        self, image_set: ImageSet, steps: int | None, seeds: list[int]
    ) -> tuple[Tree, float]:
        """States of one round, and its core seconds after all is compiled."""
        changes = self.changes if steps is None else self.changes | {"num_steps": steps}
        recipe = self.recipe_of(size=image_set.size, changes=changes)
        draws = [seed % len(image_set.images) for seed in seeds]
        labels = np.stack([train.training_labels(image_set.labels[i], recipe) for i in draws])
        of_each = (
            image_set.images[draws] * self.scale,
            labels,
            np.full(len(seeds), recipe.rates[0], np.float32),
            np.zeros(len(seeds), np.float32),
        )
        weights, order = (
            jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(part), np.array(seeds))
            for part in (0, 1)
        )
        trainings = train.Trainings(order, *train.put_each(self.mesh, of_each))
        trainer = self.trainer

        def to(last: int) -> Tree:
            states = trainer.start(train.put_each(self.mesh, weights))
            return trainer.advance(states, trainings, recipe, 0, last)

        def compile_all() -> None:
            jax.block_until_ready(trainer.count_right(to(0), *self.tested, 0, 0))

        self.compiling += core_seconds(compile_all)[1]
        return core_seconds(lambda: to(recipe.num_steps))

    def _rounds(self) -> list[list[int]]:
        """Seeds that are trained side by side; some twice, where devices would be idle."""
        size = self.mesh.size
        starts = range(0, self.seeds, size)
        return [[(start + i) % self.seeds for i in range(size)] for start in starts]
