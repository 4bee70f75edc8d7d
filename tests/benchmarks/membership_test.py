"""The attack on distilled sets: its parts against scikit-learn and closed forms, and the whole."""

import jax
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from benchmarks import membership
from kip_flax.algorithms import dp_kip


def test_the_area_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    members = rng.random(50) < 0.4
    scores = np.round(rng.standard_normal(50) + members, 1)  # With ties.
    assert membership.area(scores, members) == pytest.approx(roc_auc_score(members, scores))


def test_the_attack_finds_what_two_normal_distributions_give_away():
    """Losses that are smaller by one deviation inside: the area is Phi(1 / sqrt(2))."""
    rng = np.random.default_rng(1)
    members = rng.random((60, 400)) < 0.5
    losses = rng.standard_normal((60, 400)) - members + rng.standard_normal(400)
    ratios = membership.likelihood_ratios(losses, members)
    found = np.mean([membership.area(*pair) for pair in zip(ratios, members, strict=True)])
    assert found == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.03)
    nothing = membership.likelihood_ratios(losses + members, members)
    found = np.mean([membership.area(*pair) for pair in zip(nothing, members, strict=True)])
    assert found == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
def test_the_largest_area_without_delta(epsilon):
    """Two straight lines, of slopes e^epsilon and e^-epsilon, that meet at 1 / (1 + e^epsilon)."""
    knee = 1 / (1 + np.exp(epsilon))
    power = 1 - knee
    exact = knee * power / 2 + (1 - knee) * (power + 1) / 2
    assert membership.largest_area(epsilon, 0.0) == pytest.approx(exact)
    assert membership.largest_area(epsilon, 0.1) > exact


def test_a_set_that_begins_at_means_begins_at_those_of_its_own_members(monkeypatch):
    monkeypatch.setattr(dp_kip._private_budget, "means_noise", lambda _: 0.0)
    problem, _ = membership._problem(1.0, "means")
    rng = np.random.default_rng(0)
    members = rng.random((2, membership.IMAGES)) < 0.5
    labels, images = problem.targets.labels, problem.targets.images
    states = membership._first_states(problem, jax.random.split(jax.random.key(0), 2))
    moved = membership._at_means(problem, states, members)
    pairs = membership.SUPPORT // 10  # Images of one class share its members between them.
    for found, own in zip(np.asarray(moved.params["images"]), members, strict=True):
        of_classes = found.reshape(10, pairs, *images.shape[1:]).mean(1)
        expected = np.stack([images[own & (labels == label)].mean(0) for label in range(10)])
        assert np.corrcoef(of_classes.ravel(), expected.ravel())[0, 1] > 0.97


def test_an_attack_can_be_repeated_and_its_sets_share_no_noise():
    problem, _ = membership._problem(1.0, "means")
    first, again = (
        membership._first_states(problem, jax.random.split(jax.random.key(1), 3)) for _ in range(2)
    )
    np.testing.assert_array_equal(first.secret, again.secret)
    assert len(np.unique(np.asarray(first.secret), axis=0)) == 3


@pytest.mark.slow
def test_sets_give_their_images_away_unless_they_are_private():
    open_, private = membership.attack(None, 12), membership.attack(1.0, 12)
    assert open_.area > 0.8
    assert private.area < membership.largest_area(1.0, 1e-3) < open_.area
    assert private.area == pytest.approx(0.5, abs=4 * private.error)
