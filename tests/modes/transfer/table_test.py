"""The file of a transfer's rows."""

import pytest

from kip_flax.modes.transfer.table import Table
from kip_flax.runtime.errors import UserError

ROW = {"set": "kip", "size": 10, "network": "fc:1", "accuracies": [0.5]}


@pytest.mark.parametrize("diverged", [False, True])
def test_only_a_table_with_results_belongs_to_its_transfer(tmp_path, diverged):
    """What was refused or stopped before its first row may be asked for otherwise."""
    Table(str(tmp_path), {"transfer.held_out": 0.5}, 1, "a.npz")
    table = Table(str(tmp_path), {"transfer.held_out": 0.1}, 2, "b.npz")
    if diverged:
        table.add_diverged("kip", 10, "fc:1")
    else:
        table.add(ROW)
    other_tests = Table(str(tmp_path / "other"), {"transfer.held_out": 0.1}, 1, "b.npz")
    assert other_tests.checksum == table.checksum
    assert other_tests.checksum_with_tests != table.checksum_with_tests
    again = Table(str(tmp_path), {"transfer.held_out": 0.1}, 2, "b.npz")
    assert again.has("kip", 10, "fc:1")
    with pytest.raises(UserError, match=r"held_out was 0\.1 and is now 0\.5: take another folder"):
        Table(str(tmp_path), {"transfer.held_out": 0.5}, 2, "a.npz")
    with pytest.raises(UserError, match=r"another transfer: test images \(checksum\)"):
        Table(str(tmp_path), {"transfer.held_out": 0.1}, 1, "b.npz")
