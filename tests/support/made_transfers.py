"""A short transfer of the digits and the sets that it is given."""

import contextlib
import dataclasses

import numpy as np
import pytest

from configs import kip_digits
from kip_flax import config as config_lib
from kip_flax import export, krr, preprocess
from kip_flax.data import coresets
from kip_flax.networks import progress, rounds, train, trial
from kip_flax.runtime import signals, waiting

NAME = "FC1_ssize10_nozca_l_noaug_ckpt{}.npz"


def make_config(**changes):
    config = kip_digits.get_config()
    config.eval.num_test = 60
    fields = {
        "recipe": "kip",
        "networks": ("krr", "fc:1"),
        "width": 128,
        "num_steps": 300,
        "every_steps": 100,
        "seeds": 3,
        "ntk_inputs": 10,
    }
    config.transfer.update(fields | changes)
    config_lib.validate(config)
    return config


class EvenPace(rounds.Pace):
    """Parts as long as they may be, whatever they took."""

    def __init__(self, most):
        super().__init__(most)
        self._size = 10**9

    def took(self, steps, seconds):
        self.seconds = seconds / steps


class Stop:
    """A signal to stop that comes with the advance of a given number, of all trainings together.

    Nothing is timed, so parts are as long as `every_steps`; `parts` are (first, last) of the
    advances so far.
    """

    def __init__(self, monkeypatch, at=10**9):
        self.at, self.parts = at, []
        monkeypatch.setattr(waiting, "GRACE", 600.0)  # The part may have to compile first.
        make = train.make_trainer

        def counting(*arguments):
            trainer = make(*arguments)

            def advance(*arguments):
                self.parts.append(arguments[-2:])
                return trainer.advance(*arguments)

            return dataclasses.replace(trainer, advance=advance)

        monkeypatch.setattr(train, "make_trainer", counting)
        monkeypatch.setattr(rounds, "Pace", EvenPace)
        monkeypatch.setattr(trial.Trial, "probe", lambda *_: progress.Cost(0, 0, 0, 0))
        monkeypatch.setattr(signals, "stop_signals", self._signals)

    @contextlib.contextmanager
    def _signals(self):
        yield lambda: len(self.parts) >= self.at


def write(path, digits, rows, images=None):
    """A set of the training images `rows`, or of other images with their labels."""
    fitted = preprocess.fit("standard", digits.train_images)
    labels = np.asarray(krr.centered_one_hot(digits.train_labels[rows], 10))
    images = preprocess.apply(fitted, digits.train_images[rows]) if images is None else images
    export.write_distilled(path, images, labels, export.Description(fitted, digits.class_names))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory, digits):
    """A set of nearest-to-mean images, and one of poor ones as its step 0."""
    folder = tmp_path_factory.mktemp("sets")
    good = coresets.kmeans(digits.train_images, digits.train_labels, 10, 10)
    poor = [np.flatnonzero(digits.train_labels == c)[0] for c in range(10)]
    write(folder / NAME.format(0), digits, np.array(poor))
    return write(folder / NAME.format(60), digits, good)
