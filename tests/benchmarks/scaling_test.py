"""What many devices are estimated to be worth, against the same by hand."""

import argparse

import pytest

from benchmarks import scaling

_OPTIONS = argparse.Namespace(images=10, run_targets=50_000, bytes=271_632)


def test_tiles_and_exchanges_are_counted():
    a_pair = 4.35 / (10 * (960 + 16))
    ups = scaling._estimate(_OPTIONS, a_pair)
    assert len(ups) == 6
    assert all(up[0] == 1 for up in ups.values())

    # 512 devices: 98 targets each, in 7 tiles of 16, and a tile of K_ss.
    slow = ups["this core", "TPU v5e, 1,600 Gbit/s a chip"]
    assert slow[-1] == pytest.approx((50_000 + 16) / (7 * 16 + 16), rel=1e-3)

    alone = (50_000 + 16) * 10 * a_pair / 1000
    exchange = 2 * 271_632 / 1.25e9 + 10 * 9 * 30e-6
    share = 8 * 16 * 10 * a_pair / 1000
    fast = ups["1,000 times as fast", "Ethernet, 10 Gbit/s"]
    assert fast[-1] == pytest.approx(alone / (share + exchange))
