"""Benchmarks run from their command line with the smallest sizes, and write what they measure."""

import json
import math

import pytest
from command import ROOT, python

SMALL = ("--architecture=convnet_plain", "--depth=1", "--size=8", "--channels=1")


def numbers(value):
    """All numbers in nested lists and dicts."""
    if isinstance(value, dict):
        return numbers(list(value.values()))
    if isinstance(value, list):
        return [number for entry in value for number in numbers(entry)]
    return [value] if isinstance(value, (int, float)) else []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags", "keys"),
    [
        (
            "kernels",
            (*SMALL, "--support=2", "--targets=4", "--peer", "2", "3", "--repeats=1"),
            {"measure", "ms_per_pair"},
        ),
        (
            "step",
            (*SMALL, "--support", "2", "--targets=4", "--repeats=1"),
            {"support", "step_s", "kernel_s", "pairs_per_s", "memory_mib"},
        ),
        (
            "features",
            ("--dataset=mnist", "--sizes", "10", "--targets=4", "--networks=2", "--width=8",
             "--repeats=1"),
            {"images", "rfad_s", "rfad_core_s", "kip_s", "kip_core_s"},
        ),
        (
            "convolution",
            ("--sizes", "8", "--images=2", "--width=4", "--steps=1"),
            {"size", "ours", "xla_loop", "xla_calls"},
        ),
        (
            "rivals",
            ("--dataset=digits", "--real=10", "--targets=10", "--repeats=1"),
            {"algorithm", "step_s", "each_s"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_benchmark_writes_its_figures(tmp_path, name, flags, keys):
    file = tmp_path / "figures.json"
    done = python(ROOT, "-m", f"benchmarks.{name}", *flags, f"--json={file}")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    written = json.loads(file.read_text())
    assert f"benchmarks/{name}.py" in written["command"]
    for row in written["rows"]:
        assert keys <= set(row)
    found = numbers(written["rows"])
    assert found
    assert all(math.isfinite(number) and number >= 0 for number in found)
