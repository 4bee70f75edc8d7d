"""Runs of `dp_kip` on the digits, and an accountant that is quick."""

import functools

from dp_accounting import pld
from whole_runs import small

from kip_flax.algorithms import _privacy


def account_coarsely(monkeypatch):
    """A grid of losses that is 100 times coarser, and as much faster; privacy_test has the fine."""
    coarse = functools.partial(pld.PLDAccountant, value_discretization_interval=1e-2)
    monkeypatch.setattr(_privacy, "_accountant", coarse)
    for figure in (_privacy.epsilon, _privacy.noise_multiplier):
        monkeypatch.setattr(_privacy, figure.__name__, functools.cache(figure.__wrapped__))


def private(**changes):
    """Four steps on the digits whose noise can be repeated."""
    fields = {
        "algorithm": "dp_kip",
        "preprocess": "none",
        "support__init": "noise",
        "num_steps": 4,
        "eval__steps": (2,),
        "checkpoint__every_steps": 1,
        "privacy__noise_seed": 3,
        "privacy__delta": 1e-4,
        "privacy__start": "noise",
    }
    return small(**(fields | changes))
