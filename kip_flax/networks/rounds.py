"""The trainings of a set in rounds: side by side, one on each device, in parts of a few seconds.

After each part the rounds can be saved and stopped; they resume from there with the same bits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from kip_flax.data import evenly
from kip_flax.networks import train
from kip_flax.networks.build import Tree
from kip_flax.networks.progress import Cost, Hooks, Measured, Progress, Trained
from kip_flax.networks.recipe import Recipe
from kip_flax.runtime.console import duration
from kip_flax.runtime.waiting import Stopped, Watch

if TYPE_CHECKING:
    from kip_flax.networks.trial import Trial

PART = 3.0  # Seconds that a part of a training should take.
_POWER_STEPS = 20  # The cost of finding a largest rate, in training steps on as many images.
_PROBE = 0.3  # Seconds of repetition that measure a step well enough.
_GROWTH = 4  # A part has at most this many times the steps of the one before.
_SAVE_EVERY = 30.0  # Seconds.
_SAVE_SHARE = 0.05  # Largest share of the time spent on hooks.


@dataclass(frozen=True)
class Job:
    """One training: a candidate, a seed, and whether it serves to choose the candidate."""

    rate: float
    l2: float
    seed: int
    choice: bool


class Saver:
    """Saves now and then, so rarely that hooks takes little of the time."""

    def __init__(self, save: Callable[[Progress], None]):
        self._save, self._due = save, time.monotonic() + _SAVE_EVERY

    def now_and_then(self, progress: Callable[[], Progress]) -> None:
        if time.monotonic() >= self._due:
            self.now(progress())

    def now(self, progress: Progress) -> None:
        began = time.monotonic()
        self._save(progress)
        took = time.monotonic() - began
        self._due = began + took + max(_SAVE_EVERY, took / _SAVE_SHARE)


class Pace:
    """The seconds of a step, and the number of steps in the next part."""

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


class Rounds:
    """The trainings of one set."""

    def __init__(
        self,
        trial: Trial,
        drawn: tuple[np.ndarray, np.ndarray],
        watch: Watch,
        what: str,
        hooks: Hooks,
    ):
        self.trial, self.watch, self.what, self.at = trial, watch, what, hooks.progress
        self.saver, self.trained = Saver(hooks.save), hooks.trained
        self.images = drawn[0] * trial.scale
        self.labels = np.stack([train.training_labels(y, trial.recipe) for y in drawn[1]])
        self.evaluated: dict[bool, tuple[Any, Any]] = {}
        self.pace = Pace(trial.most_steps)
        self.eval_pace = Pace(None)
        self.rounds_left = 0

    def do(self, jobs: list[Job]) -> list[Measured]:
        """The results of the jobs; those that were measured already are not trained again.

        Once a seed has diverged, later rounds of seeds are left out.
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
            self.saver.now_and_then(lambda: self.at)
        return [one for job in jobs if (one := self._measured(job)) is not None]

    def probe(self) -> Cost:
        """See `Trial.probe`."""
        trial, began = self.trial, time.monotonic()
        label = f"{self.what}, timing a few steps"
        jobs = self._filled([Job(0.0, 0.0, seed, False) for seed in range(trial.seeds)])
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
        """Seconds of one repetition, where `repeat(n)` does n of them and n is at most `most`."""
        self._wait(label, lambda: repeat(1))
        number, seconds = 1, 0.0
        while True:
            began = time.monotonic()
            self._wait(label, functools.partial(repeat, number))
            seconds = time.monotonic() - began
            if seconds > _PROBE or number == most:
                return seconds / number
            number = min(most, 4 * number)

    def _measured(self, job: Job) -> Measured | None:
        fields = dataclasses.asdict(job)
        for one in self.at.measured:
            if fields == {name: getattr(one, name) for name in fields}:
                return one
        return None

    def _round(self, jobs: list[Job], name: str) -> list[Measured]:
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
        self, jobs: list[Job], states: Tree, test: list[float | None], label: str
    ) -> None:
        """Passes every network that did not diverge to `Hooks.trained`."""
        assert self.trained is not None
        recipe = self.trial.recipe
        held_out = self._accuracies(states, recipe, True, f"{label}, on held-out images")
        for place, job in enumerate(jobs):
            found, tested = held_out[place], test[place]
            if found is not None and tested is not None:
                weights = functools.partial(train.weights_of, recipe, states, place)
                self.trained(Trained(job.seed, found, tested, weights))

    def _filled(self, jobs: list[Job]) -> list[Job]:
        """As many jobs as devices; if there are fewer jobs, some of them are repeated."""
        return [jobs[i % len(jobs)] for i in range(self.trial.mesh.size)]

    def _start(self, jobs: list[Job]) -> Tree:
        return self.trial.trainer.start(self.trial.keys(0, [job.seed for job in jobs]))

    def _trainings(self, jobs: list[Job], largest: list[float | None]) -> train.Trainings:
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

    def _largest(self, jobs: list[Job], states: Tree, label: str) -> list[float | None]:
        """The largest rates that the tangent kernels allow; None unless the recipe uses them."""
        trial, known = self.trial, self.trial.largest
        if not trial.recipe.relative:
            return [None] * len(jobs)
        if any(job.seed not in known for job in jobs):
            images = trial.validation.images  # They may be sorted by class.
            inputs = images[evenly(len(images), trial.ntk_inputs)] * trial.scale
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
        """Trains to the last step, part by part; saves now and then, and on a request to stop."""
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
        """Batches of the images that a training is tested on, and the number of these images."""
        trial = self.trial
        part = trial.validation if choice else trial.test
        if choice not in self.evaluated:
            arrays = train.batches(part.images * trial.scale, part.labels, trial.eval_batch)
            self.evaluated = {choice: train.put_all(trial.mesh, arrays)}
        return *self.evaluated[choice], len(part.labels)

    def _wait(self, what: str, compute: Callable[[], Any]) -> Any:
        """The result of `Watch.wait`; if that stops, the progress before the call is saved."""
        try:
            return self.watch.wait(what, compute)
        except Stopped:
            self.saver.now(self._held())
            raise

    def _stop_or_save(self) -> None:
        if self.watch.stopping():
            self.saver.now(self._held())
            raise Stopped
        self.saver.now_and_then(self._held)

    def _held(self) -> Progress:
        """The trial's progress, with its states copied to the host's memory."""
        return dataclasses.replace(self.at, states=jax.device_get(self.at.states))
