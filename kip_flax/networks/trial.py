"""A trial of a set: networks are trained on it and tested on real images.

If there are several candidates (rate and L2), a short training of each chooses the best one on
held-out images first. Then the seeds are trained with it (`rounds`).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.sharding import Mesh

from kip_flax.data import Targets
from kip_flax.networks import train
from kip_flax.networks.build import Tree
from kip_flax.networks.progress import Cost, Hooks, Outcome
from kip_flax.networks.recipe import Recipe
from kip_flax.networks.rounds import Job, Rounds
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Watch


class Diverged(Exception):
    """The training diverged with every rate and L2."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A network and a recipe for sets of one shape; `run` tries a set.

    Attributes:
        trainer: of the network, made for the recipe.
        recipe: how networks are trained and candidates chosen.
        mesh: the devices; each trains a network.
        validation: real images on which choices are made; the inputs' deviation and the largest
            rates come from them too.
        test: real images on which accuracies are measured.
        key: of weights, batches and augmentations; those of a seed depend on its number alone.
        seeds: number of networks that are trained on a set.
        ntk_inputs: number of validation images on which the largest rates are measured.
        eval_batch: largest number of images in one pass of the evaluation.
        most_steps: largest number of steps in a part; None: as many as take `PART` seconds.
        largest: measured largest rates by seed; may be shared by trials of the same network, key
            and validation images.
    """

    trainer: train.Trainer
    recipe: Recipe
    mesh: Mesh
    validation: Targets
    test: Targets
    key: jax.Array
    seeds: int
    ntk_inputs: int = 50
    eval_batch: int = 100
    most_steps: int | None = None
    largest: dict[int, float] = field(default_factory=dict)

    @property
    def rounds(self) -> tuple[int, int]:
        """The numbers of rounds of short trainings, and of rounds of seeds."""
        return math.ceil(self._choices / self.mesh.size), math.ceil(self.seeds / self.mesh.size)

    @property
    def trainings(self) -> int:
        """The number of trainings, short ones included."""
        return self.seeds + self._choices

    @property
    def _choices(self) -> int:
        """The number of short trainings: none where nothing is to be chosen."""
        candidates = len(self.recipe.candidates)
        return 0 if candidates == 1 else candidates

    def seconds(self, cost: Cost) -> float:
        """Seconds that a set will take at `cost`, without `cost.once`."""
        choices, rounds = self.rounds
        short = choices * self.recipe.choosing().num_steps
        images = choices * len(self.validation.labels) + rounds * len(self.test.labels)
        steps = short + rounds * self.recipe.num_steps
        return steps * cost.step + images * cost.image

    def seconds_to_hand_over(self, cost: Cost) -> float:
        """Seconds that a set takes in addition if `Hooks.trained` asks for the networks."""
        return self.rounds[1] * len(self.validation.labels) * cost.image

    def run(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        watch: Watch,
        what: str = "training",
        hooks: Hooks | None = None,
    ) -> Outcome:
        """Trains networks on a set and tests them.

        If a seed diverges with the best candidate, the next best one is taken.

        Args:
            images: (D, n, H, W, C), preprocessed: D draws of the set, which the seeds take in turn.
            labels: (D, n, classes), centred.
            watch: reports progress and stops the trial.
            what: names the trial in lines of progress.
            hooks: earlier progress, and where to save; None: a fresh start, nothing is saved.

        Raises:
            Stopped: a signal asked to stop; the progress has been saved.
            Diverged: the training diverged with every candidate.
        """
        work = Rounds(self, (images, labels), watch, what, hooks or Hooks())
        candidates = self.recipe.candidates
        if len(candidates) > 1:
            jobs = [Job(rate, l2, 0, True) for rate, l2 in candidates]
            tried = work.do(jobs)
            fine = [one for one in tried if one.accuracy is not None]
            best = sorted(fine, key=lambda one: -(one.accuracy or 0.0))
            candidates = [(one.rate, one.l2) for one in best]
        else:
            tried = []
        for rate, l2 in candidates:
            trained = work.do([Job(rate, l2, seed, False) for seed in range(self.seeds)])
            if len(trained) == self.seeds and all(one.accuracy is not None for one in trained):
                return Outcome(rate, l2, trained, tried)
        raise Diverged(what)

    def probe(self, images: np.ndarray, labels: np.ndarray, watch: Watch, what: str) -> Cost:
        """Times a few steps on a set like that of `run`, and so compiles training and evaluation.

        Raises:
            Stopped: a signal asked to stop.
        """
        return Rounds(self, (images, labels), watch, what, Hooks()).probe()

    @property
    def template(self) -> Tree:
        """Shapes and dtypes of the states of a round."""
        return jax.eval_shape(self.trainer.start, self.keys(0, [0] * self.mesh.size))

    @functools.cached_property
    def scale(self) -> np.float32:
        """The factor of the images."""
        if not self.recipe.scale_inputs:
            return np.float32(1)
        deviation = np.std(self.validation.images, dtype=np.float64)
        if not deviation:
            raise UserError(
                "the held-out images are constant, so nothing says how bright the networks' inputs "
                "should be: look at the data, or set transfer.scale_inputs to False."
            )
        return np.float32(1 / deviation)

    def keys(self, part: int, seeds: Sequence[int]) -> jax.Array:
        """Keys (R,) of weights (part 0), or of batches and augmentations (1)."""
        key = jax.random.fold_in(self.key, part)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.array(seeds))
        return train.put_each(self.mesh, keys)
