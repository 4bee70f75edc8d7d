"""The cache folder and the versions that a result names."""

from pathlib import Path

import jax
import numpy as np

import kip_flax
from kip_flax.runtime import hardware


def test_the_cache_lies_where_xdg_says_or_in_the_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/caches")
    assert hardware.cache_folder() == Path("/tmp/caches/kip_flax")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert hardware.cache_folder() == Path("/home/someone/.cache/kip_flax")


def test_versions_are_those_at_work():
    found = hardware.versions()
    assert found["kip_flax"] == kip_flax.__version__
    assert (found["jax"], found["numpy"]) == (jax.__version__, np.__version__)


def test_hardware_counts_devices_and_cores():
    assert hardware.hardware().startswith(f"{jax.device_count()} x cpu (")
    assert hardware.hardware().endswith(f", {hardware.usable_cores()} cores)")
