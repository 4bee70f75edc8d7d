"""The cache folder and the versions that a result names."""

import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_container_may_give_fewer_cores_than_the_machine_has(files, cores, monkeypatch, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "_CONTROL", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert hardware.usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (
            {
                "memory.max": "4000000\n",
                "memory.current": "3000000\n",
                "memory.stat": "anon 1\ninactive_file 500000\nactive_file 7\n",
            },
            1_500_000,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "4000000\n",
                "memory/memory.usage_in_bytes": "3000000\n",
                "memory/memory.stat": "inactive_file 5\ntotal_inactive_file 600000\n",
            },
            1_600_000,
        ),
        ({"memory.max": "max\n", "memory.current": "1\n", "memory.stat": ""}, sys.maxsize),
        ({}, sys.maxsize),
    ],
    ids=["version 2", "version 1", "no limit", "no group"],
)
def test_a_container_may_give_less_memory_than_the_machine_has(files, left, monkeypatch, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "_CONTROL", tmp_path)
    assert hardware._left_of_container() == left
