"""That the check of an accelerator tells a wrong kernel from a right one."""

import json

import pytest

from benchmarks import accelerator
from kip_flax import architectures, kernels


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(accelerator, "SPEC", architectures.fc(1))


def make_with(mistake):
    """`make_kernel`, where the kernel of the machine differs from the reference by `mistake`."""
    make_kernel = kernels.make_kernel

    def make(spec, **options):
        kernel = make_kernel(spec, **options)
        if options.get("implementation") == "neural_tangents":
            return kernel
        return lambda x1, x2: mistake(kernel(x1, x2), x1, x2)

    return make


@pytest.mark.parametrize(
    ("mistake", "right"),
    [
        (lambda k, x1, x2: k, True),
        (lambda k, x1, x2: k * (1 + 1e-4), False),
        (lambda k, x1, x2: k + 0.01 * (x1 - x2)[0, 0, 0, 0], False),
    ],
    ids=["none", "values", "gradients"],
)
def test_a_wrong_kernel_is_detected(monkeypatch, mistake, right):
    monkeypatch.setattr(kernels, "make_kernel", make_with(mistake))
    rows = accelerator.errors("xla")
    assert rows["ordinary"]["right"] == right
    noisy = {f"noise of {scale:g}" for scale in (1e-1, 1e-2, 1e-3, 1e-6)}
    assert set(rows) == {"ordinary", "equal", *noisy}


@pytest.mark.slow
def test_the_whole_of_it(monkeypatch, tmp_path, capsys):
    """On the machine at hand; the JSON holds what is printed."""
    monkeypatch.setattr(accelerator, "STEPS", ("frepo",))
    path = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["accelerator", "--size=8", "--targets=16", f"--json={path}"])
    assert accelerator.main() == 0
    found = json.loads(path.read_text())
    assert set(found["steps"]) == {"frepo"}
    assert all(row["ms"] > 0 and row["mib"] >= 0 for row in found["pairs"].values())
    few, many = found["collectives"].values()
    assert few == many > 0
    assert "the kernel is right on this machine" in capsys.readouterr().out
