"""The file of a transfer's rows."""

import pytest

from kip_flax.modes.transfer.table import Table
from kip_flax.runtime.errors import UserError


def test_a_folder_belongs_to_a_transfer_that_has_begun(tmp_path):
    """What was refused before may be asked for otherwise."""
    Table(str(tmp_path), {"transfer.held_out": 0.5}, 1, "a.npz")
    assert not list(tmp_path.iterdir())
    table = Table(str(tmp_path), {"transfer.held_out": 0.1}, 2, "b.npz")
    table.begin()
    with pytest.raises(UserError, match=r"held_out was 0\.1 and is now 0\.5: take another folder"):
        Table(str(tmp_path), {"transfer.held_out": 0.5}, 2, "a.npz")
    with pytest.raises(UserError, match=r"another transfer: test images \(checksum\)"):
        Table(str(tmp_path), {"transfer.held_out": 0.1}, 1, "b.npz")
    table.add({"set": "kip", "size": 10, "network": "fc:1", "accuracies": [0.5]})
    again = Table(str(tmp_path), {"transfer.held_out": 0.1}, 2, "b.npz")
    assert again.has("kip", 10, "fc:1")
