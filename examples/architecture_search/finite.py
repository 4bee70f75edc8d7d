"""Finite networks, trained on each set: their accuracies and costs."""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from examples.architecture_search.clock import core_seconds
from examples.architecture_search.convnets import ConvNets, choose
from examples.architecture_search.images import WHOLE, Images
from examples.architecture_search.kept import Row
from examples.architecture_search.space import ConvNet, Search
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.networks import build, train
from kip_flax.networks import recipe as recipes
from kip_flax.networks.build import Tree
from kip_flax.networks.recipe import Recipe
from kip_flax.networks.train import Trainer
from kip_flax.runtime import sharding

_PER_PASS = 100  # Test images per pass.


class Networks:
    """Trains networks on sets by the recipe 'auto', the seeds side by side on the devices.

    Args:
        proxies: sets by name.
        images: the real images.
        search: the settings of the search.
    """

    def __init__(self, proxies: Mapping[str, ImageSet], images: Images, search: Search):
        self._proxies, self._images, self._search = proxies, images, search
        self._mesh = sharding.make_mesh(min(search.seeds, jax.device_count()))
        self._scale = np.float32(1 / np.std(images.held_out.images, dtype=np.float64))
        self._trainers: dict[tuple[int, int], Trainer] = {}
        # Batches of held-out images, then of test images, in one array: one program for both.
        parts = [
            train.batches(part.images * self._scale, part.labels, _PER_PASS)
            for part in (images.held_out, images.test)
        ]
        self._held_out_batches = len(parts[0][1])
        together = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self._tested = train.put_all(self._mesh, together)

    def measure(self, design: ConvNet) -> Row:
        """Trains a network on the proxies and on the whole.

        Returns:
            For each set, by its name: `held_out`, the accuracy on held-out images (0 to 1, mean
            over the seeds); `score`, which ranks the network and is the same here; `seconds`, the
            core seconds of training and testing. For the whole also `test` and `test_score`, the
            same on test images. `compiling`: the core seconds of compiling, which an earlier
            network may have done.
        """
        row: Row = {"compiling": 0.0}
        for name, image_set in self._proxies.items():
            row[name] = self._on(image_set, design, row)[0]
        whole = self._images.whole.take(slice(None))
        image_set = ImageSet(WHOLE, *(part[None] for part in whole))
        row[WHOLE], states = self._on(image_set, design, row)
        accuracy = self._accuracy(states, design, test=True)
        row[WHOLE] |= {"test": accuracy, "test_score": accuracy}
        return row

    def _on(self, image_set: ImageSet, design: ConvNet, whole: Row) -> tuple[Row, list[Tree]]:
        """The row of a set, and the states by round; adds to the `compiling` of the `whole` row."""
        whole["compiling"] += core_seconds(lambda: self._trained(image_set, design, most=0))[1]
        states, training = core_seconds(lambda: self._trained(image_set, design))
        accuracy, testing = core_seconds(lambda: self._accuracy(states, design))
        row = {"held_out": accuracy, "score": accuracy, "seconds": training + testing}
        return row, states

    def _trained(self, image_set: ImageSet, design: ConvNet, most: int | None = None) -> list[Tree]:
        """States after the last step, or after `most` steps; testing is compiled as well."""
        recipe = self._recipe(image_set)
        trainer = self._trainer(design, recipe)
        found = []
        for seeds in self._rounds():
            states = trainer.start(self._keys(0, seeds))
            states |= {"other": choose(states["other"], design)}
            trainings = self._trainings(image_set, recipe, seeds)
            last = recipe.num_steps if most is None else most
            found.append(trainer.advance(states, trainings, recipe, 0, last))
        jax.block_until_ready(trainer.count_right(found[-1], *self._tested, 0, 0))
        return found

    def _accuracy(self, states: list[Tree], design: ConvNet, test: bool = False) -> float:
        """Accuracy (0 to 1), mean over the seeds; a network that diverged counts as 0."""
        images = self._images.test if test else self._images.held_out
        every, held_out = len(self._tested[1]), self._held_out_batches
        first, last = (held_out, every) if test else (0, held_out)
        shares: dict[int, float] = {}
        for seeds, state in zip(self._rounds(), states, strict=True):
            trainer = self._trainers[design.depth, design.width]
            right = trainer.count_right(state, *self._tested, first, last)
            found = np.nan_to_num(np.asarray(right, np.float64)) / len(images.labels)
            shares |= dict(zip(seeds, found.tolist(), strict=True))
        return float(np.mean(list(shares.values())))

    def _recipe(self, image_set: ImageSet) -> Recipe:
        """The recipe 'auto' for the size of a set; the whole has its own number of steps."""
        steps = self._search.steps if image_set.name == WHOLE else None
        return recipes.make(
            "auto",
            image_set.size,
            self._images.shape[2],
            self._images.mirrorable,
            {
                "batch_size": self._search.batch,
                "num_steps": steps,
                "learning_rate": (self._search.rate,),
            },
        )

    def _trainer(self, design: ConvNet, recipe: Recipe) -> Trainer:
        """The trainer of all networks of this depth and width; steps are an argument of it."""
        key = (design.depth, design.width)
        if key not in self._trainers:
            shape, classes = self._images.shape, self._images.test.num_classes
            make = functools.partial(
                ConvNets, shape, classes, depth=design.depth, width=design.width
            )
            self._trainers[key] = train.make_trainer(build.functions(make), recipe, self._mesh)
        return self._trainers[key]

    def _trainings(self, image_set: ImageSet, recipe: Recipe, seeds: list[int]) -> train.Trainings:
        draws = [seed % len(image_set.images) for seed in seeds]
        labels = [train.training_labels(image_set.labels[draw], recipe) for draw in draws]
        arrays = (
            image_set.images[draws] * self._scale,
            np.stack(labels),
            np.full(len(seeds), recipe.rates[0], np.float32),
            np.full(len(seeds), recipe.l2s[0], np.float32),
        )
        return train.Trainings(self._keys(1, seeds), *train.put_each(self._mesh, arrays))

    def _keys(self, part: int, seeds: list[int]) -> jax.Array:
        """Keys of weights (part 0), or of batches and augmentations (1)."""
        key = jax.random.key(part)
        return train.put_each(
            self._mesh, jax.vmap(jax.random.fold_in, (None, 0))(key, np.array(seeds))
        )

    def _rounds(self) -> list[list[int]]:
        """Seeds that are trained side by side; some twice, so that no device is idle."""
        size, seeds = self._mesh.size, self._search.seeds
        return [[(start + i) % seeds for i in range(size)] for start in range(0, seeds, size)]
