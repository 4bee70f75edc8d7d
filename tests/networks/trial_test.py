"""A trial with networks that only count: choices, rounds, parts by time, stops and going on."""

import dataclasses
import io
import time
import types

import jax
import numpy as np
import pytest

from kip_flax.data import Targets
from kip_flax.networks import recipe, rounds, train, trial
from kip_flax.networks.progress import Hooks, Measured, Progress
from kip_flax.runtime import sharding, waiting
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

DEVICES = 2


class Clock:
    """Time that passes in `sleep` alone."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(rounds, "time", types.SimpleNamespace(monotonic=lambda: self.now))

    def sleep(self, seconds):
        self.now += seconds


class Counting:
    """In the place of a trainer: a state is the rate times the steps taken, and its calls are kept.

    Accuracies are 2^-(|state - 100| / 10), so the rate that comes to 100 in the end is the best; of
    states above `bears` they are NaN. A step takes `seconds`.
    """

    def __init__(self, bears=np.inf, seconds=0.0, clock=None):
        self.bears, self.seconds, self.clock = bears, seconds, clock
        self.advances, self.tested, self.trainings = [], [], []

    def trainer(self):
        return train.Trainer(self.start, self.largest, self.advance, self.count)

    def start(self, keys):
        return {"sum": np.zeros(len(keys), np.float32)}

    def largest(self, states, images):
        self.inputs = np.asarray(images)
        return np.arange(2.0, 2 + DEVICES)

    def advance(self, states, trainings, recipe, first, last):
        self.trainings.append(trainings)
        self.advances.append((first, last, recipe.num_steps))
        if self.clock is not None:
            self.clock.sleep(self.seconds * (last - first))
        added = (last - first) * np.asarray(trainings.rates)
        return {"sum": states["sum"] + added}

    def count(self, states, images, labels, first, last):
        number = (np.asarray(labels)[first:last] >= 0).sum()
        self.tested.append(int(number))
        share = number * 2.0 ** -np.round(abs(states["sum"] - 100) / 10)
        return np.where(states["sum"] > self.bears, np.nan, share)


def targets(n):
    images = np.random.default_rng(n).standard_normal((n, 2, 2, 1)).astype(np.float32)
    return Targets(3 * images, np.arange(n) % 2, 2)


def make(counting, seeds=3, most_steps=None, **changes):
    options = {"learning_rate": (1.0,), "num_steps": 100, "choice_steps": 100} | changes
    return trial.Trial(
        counting.trainer(),
        recipe.make("auto", 4, 1, changes=options),
        sharding.make_mesh(DEVICES),
        validation=targets(30),
        test=targets(50),
        key=jax.random.key(0),
        seeds=seeds,
        ntk_inputs=7,
        eval_batch=8,
        most_steps=most_steps,
    )


def a_set(draws=1):
    images = np.arange(draws * 4 * 4, dtype=np.float32).reshape(draws, 4, 2, 2, 1)
    return images, np.tile(np.eye(2, dtype=np.float32)[[0, 1, 0, 1]] - 0.5, (draws, 1, 1))


def watch(stopping=lambda: False):
    stream = io.StringIO()
    return waiting.Watch(stopping, Console(stream))


def seen_by(counting):
    """(first value of its images, rate, L2) of every training, by rounds."""
    return [
        [
            (float(x[0, 0, 0, 0]), float(rate), float(l2))
            for x, rate, l2 in zip(t.images, t.rates, t.l2s, strict=True)
        ]
        for t in counting.trainings
    ]


def test_constant_images_have_no_scale():
    counting = Counting()
    constant = Targets(np.ones((4, 2, 2, 1), np.float32), np.arange(4) % 2, 2)
    made = dataclasses.replace(make(counting, scale_inputs=True), validation=constant)
    with pytest.raises(UserError, match="the held-out images are constant"):
        made.run(*a_set(), watch(), "a network")


def test_of_a_single_candidate_nothing_is_chosen():
    counting = Counting()
    one = make(counting, scale_inputs=False)
    outcome = one.run(*a_set(), watch())
    assert outcome.accuracies == [1.0, 1.0, 1.0]
    assert outcome.tried == []
    assert {m.seed for m in outcome.trained} == {0, 1, 2}
    assert sum(counting.tested) == 2 * 50  # Two rounds, and the test images alone.
    assert (one.rounds, one.trainings) == ((0, 2), 3)


def test_a_candidate_is_chosen_by_one_seed_and_few_steps_on_validation_images():
    counting = Counting()
    one = make(counting, learning_rate=(0.5, 2.0, 9.0), choice_steps=50, num_steps=50)
    outcome = one.run(*a_set(), watch())
    assert (outcome.rate, outcome.l2) == (2.0, 0.0)
    assert [(m.rate, m.seed, m.choice) for m in outcome.tried] == [
        (rate, 0, True) for rate in (0.5, 2.0, 9.0)
    ]
    assert outcome.tried[1].accuracy == 1
    assert outcome.tried[0].accuracy == 2**-8
    assert all((m.rate, m.choice) == (2.0, False) for m in outcome.trained)
    assert sum(counting.tested) == 2 * 30 + 2 * 50  # Rounds of two.
    assert (one.rounds, one.trainings) == ((2, 2), 6)


def test_rates_and_l2s_are_tried_in_pairs_and_draws_in_turn():
    counting = Counting()
    one = make(counting, learning_rate=(1.0, 2.0), l2=(0.0, 0.1), most_steps=100, seeds=2)
    images, labels = a_set(draws=2)
    one.run(images, labels, watch())
    scale = 1 / np.std(one.validation.images)
    rounds = [r for r, a in zip(seen_by(counting), counting.advances, strict=True) if a[0] == 0]
    first = 0.0
    tried = [(first, rate, l2) for rate in (1.0, 2.0) for l2 in (0.0, np.float32(0.1))]
    assert rounds[:2] == [tried[:2], tried[2:]]
    assert rounds[2] == [(first, 1.0, 0.0), (pytest.approx(16 * scale, rel=1e-5), 1.0, 0.0)]


def test_rates_of_the_tangent_kernel_are_measured_once_and_on_validation_images():
    counting = Counting()
    one = make(counting, learning_rate=None, lr_factor=(0.5, 1.0), seeds=2, scale_inputs=True)
    outcome = one.run(*a_set(), watch())
    # All classes are among them, as images may be sorted by class.
    spread = one.validation.images[[0, 5, 10, 14, 19, 24, 29]]
    np.testing.assert_allclose(counting.inputs, spread / np.std(one.validation.images), rtol=1e-5)
    assert one.largest == {0: 2.0, 1: 3.0}
    assert outcome.rate == 0.5
    assert [m.learning_rate for m in outcome.trained] == [1.0, 1.5]
    assert one.largest == {0: 2.0, 1: 3.0}


def test_where_a_seed_diverges_the_next_best_is_taken():
    """At 100 steps the best, of 110 it diverges; then none is left."""
    options = {"learning_rate": (0.2, 1.0), "choice_steps": 100, "num_steps": 110}
    counting = Counting(bears=105)
    outcome = make(counting, **options).run(*a_set(), watch())
    assert outcome.rate == 0.2
    rounds = [a for a in counting.advances if a[0] == 0]
    assert len(rounds) == 1 + 1 + 2  # The third seed of the first candidate is left out.
    with pytest.raises(trial.Diverged, match="net on 4"):
        make(Counting(bears=1), **options).run(*a_set(), watch(), "net on 4")


def test_parts_are_as_long_as_they_may_be(monkeypatch):
    """Three seconds: 60 steps of 0.05 s, but not at once; or one that takes longer."""
    clock = Clock(monkeypatch)
    counting = Counting(seconds=0.05, clock=clock)
    make(counting, seeds=2, num_steps=200).run(*a_set(), watch())
    lengths = [last - first for first, last, _ in counting.advances]
    assert lengths == [1, 4, 16, 60, 60, 59]
    counting = Counting(seconds=20, clock=clock)
    make(counting, seeds=2, num_steps=3).run(*a_set(), watch())
    assert [last - first for first, last, _ in counting.advances] == [1, 1, 1]
    counting = Counting()
    make(counting, seeds=2, most_steps=30).run(*a_set(), watch())
    assert max(last - first for first, last, _ in counting.advances) <= 30


class Stop:
    """Keeps where a trial is, and tells it to stop after so many parts."""

    def __init__(self, counting, parts):
        self.counting, self.parts, self.kept = counting, parts, None

    def stopping(self):
        return len(self.counting.advances) >= self.parts

    def save(self, progress):
        self.kept = dataclasses.replace(progress, measured=list(progress.measured))


@pytest.mark.parametrize("parts", [1, 3, 6])
def test_a_trial_goes_on_where_it_was_stopped(parts):
    options = {"learning_rate": (0.5, 1.0, 2.0), "most_steps": 40, "choice_steps": 60}
    whole = Counting()
    expected = make(whole, **options).run(*a_set(), watch())
    counting = Counting()
    stop = Stop(counting, parts)
    with pytest.raises(waiting.Stopped):
        make(counting, **options).run(*a_set(), watch(stop.stopping), hooks=Hooks(save=stop.save))
    found = make(counting, **options).run(*a_set(), watch(), hooks=Hooks(stop.kept))
    assert found == expected
    taken = [last - first for first, last, _ in counting.advances]
    assert sum(taken) == sum(last - first for first, last, _ in whole.advances)


def test_a_step_that_takes_long_is_left_behind_with_the_state_before_it(monkeypatch):
    """And what is finished stays, as does the state of a test that is stopped."""
    monkeypatch.setattr(waiting, "GRACE", 0.1)
    monkeypatch.setattr(waiting, "_LOOK", 0.02)
    monkeypatch.setattr(waiting.atexit, "register", lambda *_: None)
    counting = Counting()
    one = make(counting, seeds=2)
    stop = Stop(counting, 2)
    advance = counting.advance

    def slow(*arguments):
        found = advance(*arguments)
        time.sleep(0.5 if arguments[-2] > 0 else 0)  # From the second part on.
        return found

    slower = dataclasses.replace(one, trainer=dataclasses.replace(one.trainer, advance=slow))
    with pytest.raises(waiting.Stopped):
        slower.run(*a_set(), watch(stop.stopping), hooks=Hooks(save=stop.save))
    assert stop.kept.step == 1
    np.testing.assert_array_equal(stop.kept.states["sum"], [1, 1])
    outcome = one.run(*a_set(), watch(), hooks=Hooks(stop.kept))
    assert outcome.accuracies == [1.0, 1.0]


def test_it_is_saved_now_and_then_but_not_all_the_time(monkeypatch):
    """Every 30 seconds, and where that takes 3, every 60: a twentieth of the time at most."""
    clock = Clock(monkeypatch)
    for seconds, expected in ((0, [30, 60, 90]), (3, [30, 90])):
        saved = []

        def save(progress, seconds=seconds, saved=saved):
            clock.sleep(seconds)
            saved.append(progress.step)

        counting = Counting(seconds=1.0, clock=clock)
        make(counting, seeds=2, most_steps=1).run(*a_set(), watch(), hooks=Hooks(save=save))
        assert saved == expected


def test_what_is_measured_is_not_trained_again():
    counting = Counting()
    kept = [Measured(1.0, 0.0, seed, None, False, 0.5) for seed in (0, 1)]
    outcome = make(counting).run(*a_set(), watch(), hooks=Hooks(Progress(kept)))
    assert outcome.accuracies == [0.5, 0.5, 1.0]
    assert len([a for a in counting.advances if a[0] == 0]) == 1


def test_the_time_is_estimated_from_a_few_steps(monkeypatch):
    counting = Counting(seconds=0.02, clock=Clock(monkeypatch))
    one = make(counting, seeds=5, learning_rate=(0.5, 1.0, 2.0), choice_steps=10)
    cost = one.probe(*a_set(), watch(), "timing")
    assert cost.step == pytest.approx(0.02)
    assert cost.once == 0
    exact = dataclasses.replace(cost, step=0.02, image=0.001)
    # Two rounds of 10 steps and 30 images, three of 100 steps and 50 images.
    assert one.seconds(exact) == pytest.approx(2 * (0.2 + 0.03) + 3 * (2 + 0.05))
    # The largest rate on 7 images of three rounds, where a step has 4.
    options = {"learning_rate": None, "lr_factor": (1.0,), "seeds": 5}
    cost = make(counting, **options).probe(*a_set(), watch(), "timing")
    assert cost.once == pytest.approx(3 * 20 * 7 / 4 * cost.step)
