"""The account of a private run: the exact Gaussian curve, and the library's own examples."""

import numpy as np
import pytest
from scipy.stats import norm

from kip_flax.algorithms import _privacy
from kip_flax.algorithms._privacy import Release
from kip_flax.runtime.errors import UserError


def delta_of(epsilon, noise):
    """Exact for one step without sampling (Balle and Wang, ICML 2018, theorem 8)."""
    upper = norm.cdf(1 / (2 * noise) - epsilon * noise)
    return upper - np.exp(epsilon) * norm.cdf(-1 / (2 * noise) - epsilon * noise)


@pytest.mark.parametrize(("noise", "steps"), [(0.7, 1), (2.0, 1), (5.0, 9), (10.0, 100)])
def test_without_sampling_it_is_the_gaussian_mechanism(noise, steps):
    """`steps` steps are one with the noise divided by their root."""
    spent = _privacy.epsilon(Release(1.0, noise, steps, 1e-5))
    alone = noise / np.sqrt(steps)
    assert delta_of(spent, alone) <= 1e-5
    assert delta_of(0.995 * spent, alone) > 1e-5


@pytest.mark.parametrize(("rate", "noise", "delta"), [(1.0, 3**0.5, 0.126936), (0.2, 0.5, 0.15594)])
def test_three_steps_of_the_librarys_own_tests_spend_an_epsilon_of_one(rate, noise, delta):
    """Gaussian and Poisson-sampled: dp_accounting/pld/pld_privacy_accountant_test.py."""
    assert _privacy.epsilon(Release(rate, noise, 3, delta)) == pytest.approx(1, abs=1e-3)


def test_means_before_the_steps_are_one_more_gaussian_mechanism():
    """Precisions of noise add up where nothing is sampled."""
    spent = _privacy.epsilon(Release(1.0, 9.0, 5, 1e-5, means=4.0))
    alone = (1 / 4.0**2 + 4 / 9.0**2) ** -0.5
    assert delta_of(spent, alone) <= 1e-5
    assert delta_of(0.995 * spent, alone) > 1e-5
    only_means = _privacy.epsilon(Release(0.1, 1.0, 1, 1e-5, 4.0))
    assert only_means == pytest.approx(_privacy.epsilon(Release(1.0, 4.0, 1, 1e-5)), rel=1e-9)
    assert _privacy.epsilon(Release(0.1, 1.0, 0, 1e-5, 4.0)) == 0


def test_the_least_noise_beside_means():
    noise = _privacy.noise_multiplier(0.05, 20, 0.5, 1e-5, means=20.0)
    assert _privacy.epsilon(Release(0.05, noise, 20, 1e-5, 20.0)) <= 0.5
    assert _privacy.epsilon(Release(0.05, 0.99 * noise, 20, 1e-5, 20.0)) > 0.5
    assert _privacy.noise_multiplier(0.05, 1, 0.5, 1e-5, means=20.0) == 0


def test_sampling_costs_less_than_the_bound_of_renyi_and_more_than_nothing():
    import dp_accounting
    from dp_accounting import rdp

    event = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.0))
    accountant = rdp.RdpAccountant()
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, 200))
    spent = _privacy.epsilon(Release(0.01, 1.0, 200, 1e-5))
    assert 0.5 * accountant.get_epsilon(1e-5) < spent < accountant.get_epsilon(1e-5)
    assert (
        spent
        < _privacy.epsilon(Release(0.02, 1.0, 200, 1e-5))
        < _privacy.epsilon(Release(0.02, 1.0, 400, 1e-5))
    )
    assert _privacy.epsilon(Release(0.01, 1.0, 0, 1e-5)) == 0


@pytest.mark.parametrize("budget", [0.5, pytest.param(8.0, marks=pytest.mark.slow)])
def test_the_least_noise_within_a_budget(budget):
    noise = _privacy.noise_multiplier(0.05, 60, budget, 1e-5)
    assert _privacy.epsilon(Release(0.05, noise, 60, 1e-5)) <= budget
    assert _privacy.epsilon(Release(0.05, 0.99 * noise, 60, 1e-5)) > budget


def test_a_budget_that_no_noise_keeps():
    with pytest.raises(UserError, match=r"no noise keeps 60 steps within privacy.epsilon=1e-09"):
        _privacy.noise_multiplier(1.0, 60, 1e-9, 1e-12)
