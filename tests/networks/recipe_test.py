"""Names of networks and kernels in transfer.networks."""

import importlib.machinery
import sys
import types

import pytest

from kip_flax import architectures
from kip_flax.networks import recipe
from kip_flax.runtime.errors import UserError


@pytest.fixture
def foreign(monkeypatch):
    """An architecture of one's own."""
    module = types.ModuleType("mine.tiny")
    module.build = lambda depth: architectures.fc(depth + 1)
    module.__spec__ = importlib.machinery.ModuleSpec("mine.tiny", None)
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    monkeypatch.setitem(sys.modules, "mine.tiny", module)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("kernel", architectures.fc(2)),
        ("convnet:2", architectures.convnet(2)),
        ("mine.tiny:1", architectures.fc(2)),
        ("convnet_in", None),
        ("krr", None),
        ("krr:convnet:2", None),
        ("krr:mine.tiny:1", None),
    ],
)
def test_a_name_stands_for_a_description_or_has_none(foreign, name, spec):
    assert recipe.spec_of(name, "fc", 2) == spec
    assert recipe.is_kernel(name) == name.startswith("krr")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vit", "unknown network 'vit': transfer.networks takes krr, kernel, fc:DEPTH"),
        ("mine.tiny", "unknown network 'mine.tiny'"),
        ("mine.none:1", "kernel.architecture is 'mine.none': take one of fc"),
        ("krr:vit:1", "unknown kernel krr:vit:1: write krr, or for example krr:convnet:3"),
        ("myrtle:6", "myrtle has depth 5, 7 or 10, not 6"),
    ],
)
def test_a_name_without_a_network_is_told(foreign, name, told):
    with pytest.raises(UserError, match=told) as caught:
        recipe.spec_of(name, "fc", 2)
    assert "\n" not in str(caught.value)
