"""The published figures are those of the papers' tables."""

import pytest

from kip_flax import algorithms
from kip_flax.modes.compare import published

# Test accuracy in %, with 1, 10 and 50 images per class.
TABLES = {
    ("Label Solve", "cifar10", "kernel"): (26.09, 53.59, 65.89),
    ("Label Solve", "mnist", "kernel"): (73.35, 96.39, 98.28),
    ("KIP", "cifar10", "kernel"): (64.7, 75.6, 80.6),
    ("KIP", "cifar100", "kernel"): (34.9, 49.5, None),
    ("KIP", "cifar10", "network"): (49.9, 62.7, 68.6),
    ("KIP", "cifar100", "network"): (15.7, 28.3, None),
    ("DC", "mnist", "network"): (91.7, 97.4, 98.8),
    ("DC", "cifar10", "network"): (28.3, 44.9, 53.9),
    ("DSA", "fashion_mnist", "network"): (70.6, 84.6, 88.7),
    ("DSA", "cifar10", "network"): (28.8, 52.1, 60.6),
    ("RFAD", "cifar10", "network"): (53.6, 66.3, 71.1),
    ("RFAD", "mnist", "network"): (94.4, 98.5, 98.8),
    ("RFAD", "fashion_mnist", "network"): (78.6, 87.0, 88.8),
    ("BPTT", "cifar10", "network"): (53.2, 69.4, 75.3),
    ("FRePo", "cifar10", "network"): (46.8, 65.5, 71.7),
    ("FRePo", "mnist", "network"): (93.0, 98.6, 99.2),
}


@pytest.mark.parametrize(("method", "dataset", "measured_by"), TABLES)
def test_figures_are_those_of_the_papers(method, dataset, measured_by):
    for images_per_class, expected in zip(
        (1, 10, 50), TABLES[method, dataset, measured_by], strict=True
    ):
        found = published.accuracy(method, dataset, images_per_class)
        values = [value for value, one in found if one.measured_by == measured_by]
        assert values == ([] if expected is None else [expected])


def test_kip_is_second_hand_where_its_table_is_of_others():
    """Networks on other data than CIFAR were not read at the source."""
    kip = [one for one in published.figures() if one.method == "KIP"]
    of = {(one.measured_by, name): one.first_hand for one in kip for name in one.accuracies}
    assert of["kernel", "mnist"]
    assert of["network", "cifar10"]
    assert not of["network", "mnist"]


def test_methods_are_the_titles_of_algorithms():
    titles = {algorithms.facts(name).title for name in algorithms.NAMES}
    assert {one.method for one in published.figures()} <= titles


def test_what_nobody_published_is_an_empty_list():
    assert published.accuracy("KIP", "cifar10", 2.5) == []
    assert published.accuracy("KIP", "digits", 1) == []
    assert published.accuracy("mine", "mnist", 1) == []
