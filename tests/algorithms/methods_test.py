"""Every algorithm of the program has a name for readers; others keep their own."""

import pytest

from kip_flax import algorithms
from kip_flax.algorithms import _methods as methods

ALL = algorithms.NAMES


@pytest.mark.parametrize("algorithm", ALL)
def test_an_algorithm_has_a_name(algorithm):
    assert methods.name(algorithm) != algorithm
    assert methods.in_full(algorithm).startswith(("Kernel Ind", "Label Solve", "Dataset Cond"))
    # Those that learn images by gradients of a network compute no kernel entries.
    assert methods.computes_kernels(algorithm) == (algorithm not in ("dc", "dsa"))


def test_what_tells_methods_apart():
    told = [(methods.name(algorithm), methods.variant(algorithm)) for algorithm in ALL]
    assert len(set(told)) == len(ALL)
    assert methods.in_full("kip_newton") == "Kernel Inducing Points (KIP), Gauss-Newton"
    assert methods.is_kip("kip_newton")
    assert not methods.is_kip("ls")


def test_ones_own_algorithm_keeps_its_name():
    assert methods.name("mine") == methods.in_full("mine") == "mine"
    assert not methods.is_kip("mine")
