"""The files for pip agree with one another."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def requirements(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_light_ones_are_the_others_without_the_reference():
    light = requirements("requirements-light.txt")
    tensorflow = [line for line in light if line.startswith("tensorflow")]
    assert [line.split("==")[0] for line in tensorflow] == ["tensorflow-cpu", "tensorflow"]
    (version,) = {re.sub(r".*==(\S+);.*", r"\1", line) for line in tensorflow}
    rest = [line for line in light if line not in tensorflow]
    left_out = {"neural-tangents"}
    full = requirements("requirements.txt")
    kept = [line for line in full if line.split("==")[0] not in left_out]
    assert sorted([*rest, f"tensorflow=={version}"]) == sorted(kept)
    assert len(full) == len(kept) + len(left_out)


@pytest.mark.parametrize("name", ["cuda", "tpu"])
def test_an_accelerators_jax_is_the_version_of_the_others(name):
    included, jax = requirements(f"requirements-{name}.txt")
    assert included == "-r requirements.txt"
    (version,) = [line for line in requirements("requirements.txt") if line.startswith("jax==")]
    assert re.sub(r"\[.*\]", "", jax) == version
