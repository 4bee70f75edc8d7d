"""A trial of a set: networks are trained on it and tested on real images.

Of several rates and L2 the best on held-out images is chosen first, by one network of few steps
each. Then the seeds are trained with it. Trainings go side by side, one on each device, in rounds,
and every round in parts of a few seconds. After a part the trial can be saved, and told to stop; it
goes on from there to the same bits.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kip_flax.data import Targets
from kip_flax.networks import train
from kip_flax.networks.build import Tree
from kip_flax.networks.recipe import Recipe
from kip_flax.runtime.console import duration
from kip_flax.runtime.waiting import Stopped, Watch

PART = 3.0  # Seconds that a part of a training should take.
_POWER_STEPS = 20  # Steps of a training that finding a largest rate takes, on as many images.
_PROBE = 0.3  # Seconds that are enough to tell what a step takes.
_GROWTH = 4  # By which a part may be longer than the one before.
_SAVE_EVERY = 30.0  # Seconds.
_SAVE_SHARE = 0.05  # Of the time that saving may take.


class Diverged(Exception):
    """The training diverged with every rate and L2."""


@dataclass(frozen=True)
class Measured:
    """What one training gave.

    Attributes:
        rate, l2: the candidate.
        seed: of weights, batches and draw.
        largest: the largest rate that its tangent kernel bears; None if it was not asked for.
        choice: whether it was one of the short trainings by which is chosen.
        accuracy: on the validation images of a choice, otherwise on the test images, 0 to 1; None
            if it diverged.
    """

    rate: float
    l2: float
    seed: int
    largest: float | None
    choice: bool
    accuracy: float | None

    @property
    def learning_rate(self) -> float:
        """The rate as an absolute number."""
        return self.rate if self.largest is None else self.rate * self.largest


@dataclass(frozen=True)
class Outcome:
    """What a trial found.

    Attributes:
        rate, l2: the candidate that was chosen.
        trained: its trainings, by seed.
        tried: the short trainings of all candidates; [] of a single one.
    """

    rate: float
    l2: float
    trained: list[Measured]
    tried: list[Measured]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies of the seeds, 0 to 1."""
        return [one.accuracy for one in self.trained if one.accuracy is not None]


@dataclass
class Progress:
    """The state of a trial: all that it needs to go on.

    Attributes:
        measured: trainings that are finished.
        states, step: of the round at work, after so many steps; None: it has not begun.
    """

    measured: list[Measured] = field(default_factory=list)
    states: Tree | None = None
    step: int = 0


@dataclass(frozen=True)
class Trained:
    """A network that a seed trained.

    Attributes:
        seed: of weights and batches.
        held_out, test: accuracies on the images that choices are made on, and on the test images.
        weights: reads its weights from the device, see `train.weights_of`.
    """

    seed: int
    held_out: float
    test: float
    weights: Callable[[], Tree]


@dataclass(frozen=True)
class Kept:
    """The progress that a trial goes on from, and the functions that keep it.

    Attributes:
        progress: where an earlier part of it ended, as `save` was given it.
        save: is called now and then, and when told to stop, with where the trial is.
        trained: is called with every network that a seed trained; None: nothing is.
    """

    progress: Progress = field(default_factory=Progress)
    save: Callable[[Progress], None] = lambda _: None
    trained: Callable[[Trained], None] | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds that the trainings of a trial take, as timed; compiling is apart.

    Attributes:
        compiling: that finding it out took, most of it compiling, which is over then.
        step: of a step, on all devices at once.
        image: of an image that is evaluated, the same.
        once: for all sets together: finding the largest rates that the tangent kernels bear.
    """

    compiling: float
    step: float
    image: float
    once: float


@dataclass(frozen=True, eq=False)
class Trial:
    """A network and a recipe for sets of one shape; `run` tries a set.

    Attributes:
        trainer: of the network, by the recipe.
        recipe: how it is trained and chosen.
        mesh: the devices; each trains a network.
        validation: real images that choices are made on; the inputs' deviation and the largest
            rates come from them too.
        test: accuracies are measured on them.
        key: of weights, batches and augmentations; those of a seed depend on its number alone.
        seeds: networks that are trained on a set.
        ntk_inputs: validation images that the largest rates are measured on.
        eval_batch: images that one pass of the network evaluates, at most.
        most_steps: of a part; None: as many as take `PART` seconds.
        largest: by seed, the rates that were measured; may be shared by trials of the same network,
            key and validation images.
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
        """Rounds of short trainings, and of those of the seeds."""
        choices = len(self.recipe.candidates)
        choices = 0 if choices == 1 else choices
        return math.ceil(choices / self.mesh.size), math.ceil(self.seeds / self.mesh.size)

    @property
    def trainings(self) -> int:
        """How many there are, short ones too."""
        choices = len(self.recipe.candidates)
        return self.seeds + (0 if choices == 1 else choices)

    def seconds(self, cost: Cost) -> float:
        """How long a set will take at such a cost, without what is done once."""
        choices, rounds = self.rounds
        short = choices * self.recipe.choosing().num_steps
        images = choices * len(self.validation.labels) + rounds * len(self.test.labels)
        steps = short + rounds * self.recipe.num_steps
        return steps * cost.step + images * cost.image

    def seconds_to_hand_over(self, cost: Cost) -> float:
        """How much longer it takes where `Kept.trained` asks for the networks of the seeds."""
        return self.rounds[1] * len(self.validation.labels) * cost.image

    def run(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        watch: Watch,
        what: str = "training",
        kept: Kept | None = None,
    ) -> Outcome:
        """Tries a set.

        Args:
            images: (D, n, H, W, C): D draws of it, which the seeds take in turn.
            labels: (D, n, classes), centred.
            watch: reports progress and stops it.
            what: names the trial in lines of progress.
            kept: keeps it; None: nothing does, and it begins anew.

        Raises:
            Stopped: told to stop; where the trial is has been saved.
            Diverged: the training diverged with every candidate.
        """
        work = _Work(self, (images, labels), watch, what, kept or Kept())
        candidates = self.recipe.candidates
        if len(candidates) > 1:
            jobs = [_Job(rate, l2, 0, True) for rate, l2 in candidates]
            tried = work.do(jobs)
            fine = [one for one in tried if one.accuracy is not None]
            best = sorted(fine, key=lambda one: -(one.accuracy or 0.0))
            candidates = [(one.rate, one.l2) for one in best]
        else:
            tried = []
        for rate, l2 in candidates:
            trained = work.do([_Job(rate, l2, seed, False) for seed in range(self.seeds)])
            if len(trained) == self.seeds and all(one.accuracy is not None for one in trained):
                return Outcome(rate, l2, trained, tried)
        raise Diverged(what)

    def probe(self, images: np.ndarray, labels: np.ndarray, watch: Watch, what: str) -> Cost:
        """Times a few steps on a set like that of `run`, which compiles what it needs."""
        return _Work(self, (images, labels), watch, what, Kept()).probe()

    @property
    def template(self) -> Tree:
        """Shapes and dtypes of the states of a round."""
        return jax.eval_shape(self.trainer.start, self.keys(0, [0] * self.mesh.size))

    @functools.cached_property
    def scale(self) -> np.float32:
        """What images are multiplied by."""
        if not self.recipe.scale_inputs:
            return np.float32(1)
        return np.float32(1 / np.std(self.validation.images, dtype=np.float64))

    def keys(self, part: int, seeds: Sequence[int]) -> jax.Array:
        """Keys (R,) of weights (part 0), or of batches and augmentations (1)."""
        key = jax.random.fold_in(self.key, part)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.array(seeds))
        return train.put_each(self.mesh, keys)


@dataclass(frozen=True)
class _Job:
    """One training."""

    rate: float
    l2: float
    seed: int
    choice: bool


class _Saver:
    """Saves now and then: not so often that saving takes much of the time."""

    def __init__(self, save: Callable[[Progress], None]):
        self._save, self._due = save, time.monotonic() + _SAVE_EVERY

    def now_and_then(self, progress: Progress) -> None:
        if time.monotonic() >= self._due:
            self.now(progress)

    def now(self, progress: Progress) -> None:
        began = time.monotonic()
        self._save(progress)
        took = time.monotonic() - began
        self._due = began + took + max(_SAVE_EVERY, took / _SAVE_SHARE)


class _Pace:
    """Seconds of a step, and how many steps make a part."""

    def __init__(self, most: int | None):
        self._most, self._size, self.seconds = most, 1, float("nan")

    def part(self, left: int) -> int:
        size = self._size if self._most is None else min(self._size, self._most)
        return min(size, left)

    def took(self, steps: int, seconds: float) -> None:
        """Records the seconds of a part; the first part also compiles."""
        self.seconds = seconds / steps
        fitting = max(1, int(PART / max(self.seconds, 1e-9)))
        self._size = min(fitting, _GROWTH * steps)


class _Work:
    """The trainings of one set."""

    def __init__(
        self,
        trial: Trial,
        drawn: tuple[np.ndarray, np.ndarray],
        watch: Watch,
        what: str,
        kept: Kept,
    ):
        self.trial, self.watch, self.what, self.at = trial, watch, what, kept.progress
        self.saver, self.trained = _Saver(kept.save), kept.trained
        self.images = drawn[0] * trial.scale
        self.labels = np.stack([train.training_labels(y, trial.recipe) for y in drawn[1]])
        self.evaluated: dict[bool, tuple[Any, Any]] = {}
        self.pace = _Pace(trial.most_steps)
        self.eval_pace = _Pace(None)
        self.rounds_left = 0

    def do(self, jobs: list[_Job]) -> list[Measured]:
        """The results of the jobs; measured ones are not trained again.

        Where a seed diverged the seeds after it are left out.
        """
        size = self.trial.mesh.size
        total = math.ceil(len(jobs) / size)
        while missing := [job for job in jobs if self._measured(job) is None]:
            found = [one for job in jobs if (one := self._measured(job)) is not None]
            if not jobs[0].choice and any(one.accuracy is None for one in found):
                return found
            self.rounds_left = math.ceil(len(missing) / size) - 1
            self.at.measured += self._round(
                missing[:size], f"round {total - self.rounds_left} of {total}"
            )
            self.at.states, self.at.step = None, 0
            self.saver.now_and_then(self.at)
        return [one for job in jobs if (one := self._measured(job)) is not None]

    def probe(self) -> Cost:
        """See `Trial.probe`."""
        trial, began = self.trial, time.monotonic()
        label = f"{self.what}, timing a few steps"
        jobs = self._filled([_Job(0.0, 0.0, seed, False) for seed in range(trial.seeds)])
        states = self._wait(label, lambda: self._start(jobs))
        trainings = self._trainings(jobs, [None] * len(jobs))
        recipe, advance = trial.recipe, trial.trainer.advance
        step = self._timed(label, lambda n: advance(states, trainings, recipe, 0, n), 2**30)
        images, labels, _ = self._evaluated(False)
        count = trial.trainer.count_right
        batch = self._timed(label, lambda n: count(states, images, labels, 0, n), len(labels))
        once = 0.0
        if recipe.relative:
            inputs = min(trial.ntk_inputs, len(trial.validation.labels))
            batches = inputs / min(recipe.batch_size, self.images.shape[1])
            once = trial.rounds[1] * _POWER_STEPS * batches * step
        return Cost(time.monotonic() - began, step, batch / labels.shape[1], once)

    def _timed(self, label: str, repeat: Callable[[int], Any], most: int) -> float:
        """Seconds of one of the things that `repeat` does n times, at most so many."""
        self._wait(label, lambda: repeat(1))
        number, seconds = 1, 0.0
        while True:
            began = time.monotonic()
            self._wait(label, functools.partial(repeat, number))
            seconds = time.monotonic() - began
            if seconds > _PROBE or number == most:
                return seconds / number
            number = min(most, 4 * number)

    def _measured(self, job: _Job) -> Measured | None:
        fields = dataclasses.asdict(job)
        for one in self.at.measured:
            if fields == {name: getattr(one, name) for name in fields}:
                return one
        return None

    def _round(self, jobs: list[_Job], name: str) -> list[Measured]:
        """Trains and measures at most as many jobs as there are devices."""
        filled = self._filled(jobs)
        recipe = self.trial.recipe.choosing() if jobs[0].choice else self.trial.recipe
        kind = "choosing, " if jobs[0].choice else ""
        label = f"{self.what}, {kind}{name}"
        states = self._wait(f"{label}: drawing weights", lambda: self._start(filled))
        largest = self._largest(filled, states, label)
        if self.at.states is not None:
            states = train.put_each(self.trial.mesh, self.at.states)
        trainings = self._trainings(filled, largest)
        states = self._advance(states, trainings, recipe, label)
        accuracies = self._accuracies(states, recipe, jobs[0].choice, label)
        if self.trained is not None and not jobs[0].choice:
            self._hand_over(jobs, states, accuracies, label)
        return [
            Measured(**dataclasses.asdict(job), largest=rate, accuracy=accuracy)
            for job, rate, accuracy in zip(jobs, largest, accuracies, strict=False)
        ]

    def _hand_over(
        self, jobs: list[_Job], states: Tree, test: list[float | None], label: str
    ) -> None:
        """Gives every network that did not diverge to who asked for it."""
        assert self.trained is not None
        recipe = self.trial.recipe
        held_out = self._accuracies(states, recipe, True, f"{label}, on held-out images")
        for place, job in enumerate(jobs):
            found, tested = held_out[place], test[place]
            if found is not None and tested is not None:
                weights = functools.partial(train.weights_of, recipe, states, place)
                self.trained(Trained(job.seed, found, tested, weights))

    def _filled(self, jobs: list[_Job]) -> list[_Job]:
        """As many as there are devices: some are trained twice where there are fewer."""
        return [jobs[i % len(jobs)] for i in range(self.trial.mesh.size)]

    def _start(self, jobs: list[_Job]) -> Tree:
        return self.trial.trainer.start(self.trial.keys(0, [job.seed for job in jobs]))

    def _trainings(self, jobs: list[_Job], largest: list[float | None]) -> train.Trainings:
        seeds = [job.seed for job in jobs]
        draws = [seed % len(self.images) for seed in seeds]
        rates = [
            job.rate * (1 if top is None else top) for job, top in zip(jobs, largest, strict=True)
        ]
        arrays = (
            self.images[draws],
            self.labels[draws],
            np.array(rates, np.float32),
            np.array([job.l2 for job in jobs], np.float32),
        )
        return train.Trainings(self.trial.keys(1, seeds), *train.put_each(self.trial.mesh, arrays))

    def _largest(self, jobs: list[_Job], states: Tree, label: str) -> list[float | None]:
        """The largest rates that the networks bear, where the recipe asks for them."""
        trial, known = self.trial, self.trial.largest
        if not trial.recipe.relative:
            return [None] * len(jobs)
        if any(job.seed not in known for job in jobs):
            inputs = trial.validation.images[: trial.ntk_inputs] * trial.scale
            put = train.put_all(trial.mesh, inputs)
            found = self._wait(
                f"{label}: the largest rate", lambda: trial.trainer.largest_rate(states, put)
            )
            for job, rate in zip(jobs, np.asarray(found), strict=True):
                known.setdefault(job.seed, float(rate))
        return [known[job.seed] for job in jobs]

    def _advance(
        self, states: Tree, trainings: train.Trainings, recipe: Recipe, label: str
    ) -> Tree:
        """Trains to the last step, part by part; saves now and then, and when told to stop."""
        advance, at, last = self.trial.trainer.advance, self.at, recipe.num_steps
        at.states = states
        while at.step < last:
            first, there = at.step, at.step + self.pace.part(last - at.step)
            began = time.monotonic()
            at.states = self._wait(
                f"{label}: after step {first}/{last}",
                functools.partial(advance, at.states, trainings, recipe, first, there),
            )
            at.step = there
            self.pace.took(there - first, time.monotonic() - began)
            self.watch.progress(
                f"{label}: step {there}/{last}",
                f"{1e3 * self.pace.seconds:.1f} ms/step",
                f"ETA {duration(self.pace.seconds * (last - there + self.rounds_left * last))}",
            )
            self._stop_or_save()
        return at.states

    def _accuracies(
        self, states: Tree, recipe: Recipe, choice: bool, label: str
    ) -> list[float | None]:
        """Shares of right answers; None where a training diverged."""
        images, labels, count = self._evaluated(choice)
        count_right = self.trial.trainer.count_right
        total, done = np.zeros(self.trial.mesh.size), 0
        while done < len(labels) and not np.isnan(total).all():
            first, there = done, done + self.eval_pace.part(len(labels) - done)
            began = time.monotonic()
            found = self._wait(
                f"{label}: testing",
                functools.partial(count_right, states, images, labels, first, there),
            )
            total, done = total + np.asarray(found, np.float64), there
            self.eval_pace.took(there - first, time.monotonic() - began)
            self.watch.progress(f"{label}: tested {done / len(labels):.0%}")
        return [None if np.isnan(right) else float(right / count) for right in total]

    def _evaluated(self, choice: bool) -> tuple[Any, Any, int]:
        """Batches of the images that a training is judged on, and how many images they hold."""
        trial = self.trial
        part = trial.validation if choice else trial.test
        if choice not in self.evaluated:
            arrays = train.batches(part.images * trial.scale, part.labels, trial.eval_batch)
            self.evaluated = {choice: train.put_all(trial.mesh, arrays)}
        return *self.evaluated[choice], len(part.labels)

    def _wait(self, what: str, compute: Callable[[], Any]) -> Any:
        """See `Watch.wait`; where it stops the trial is saved as it was before."""
        try:
            return self.watch.wait(what, compute)
        except Stopped:
            self.saver.now(self._held())
            raise

    def _stop_or_save(self) -> None:
        if self.watch.stopping():
            self.saver.now(self._held())
            raise Stopped
        self.saver.now_and_then(self._held())

    def _held(self) -> Progress:
        """The trial's progress, in the host's memory: devices may still be at work."""
        return dataclasses.replace(self.at, states=jax.device_get(self.at.states))
