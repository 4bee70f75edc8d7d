"""Compiling ahead: its messages, who does it, and that nothing is left to the first step."""

import errno
import threading
from pathlib import Path

import pytest
from own_process import output_of

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels import jacobian
from kip_flax.kernels.cpu import compiled, warm_up

OPTIONS = kernels.KernelOptions(arch.convnet(2), implementation="cpu")
pytestmark = pytest.mark.usefixtures("compiled_kernel")


def test_a_cold_start_says_that_it_compiles(monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr(warm_up, "is_cold", lambda *_: True)
    kernels.warm_up(OPTIONS, lines.append)
    assert "about a minute, on the first run only" in lines[0]
    assert "compiled in" in lines[1]
    lines.clear()
    # A fully connected network has nothing to compile, however cold the start is.
    kernels.warm_up(kernels.KernelOptions(arch.fc(1), implementation="cpu"), lines.append)
    monkeypatch.undo()
    kernels.warm_up(OPTIONS, lines.append)  # Kept by the call before.
    assert lines == []
    code = "from kip_flax.kernels.cpu import warm_up; print(warm_up.is_cold(*warm_up._LAST))"
    assert output_of(code).strip() == "False"
    assert output_of(code, XDG_CACHE_HOME=str(tmp_path)).strip() == "True"


def test_code_of_another_folder_of_sources_is_not_this_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = compiled.code_folder.__wrapped__()
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    for path in Path(kernels.__file__).parent.glob("cpu/*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert compiled.code_folder.__wrapped__() != here


def test_half_is_compiled_by_another_process_wherever_it_starts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with warm_up._in_another_process("call_for_near_duplicates") as process:
        pass
    assert process.returncode == 0
    with warm_up._in_another_process("no_such_function") as process:
        pass
    assert process.returncode == 1


def test_a_second_caller_waits_for_the_one_that_compiles(monkeypatch):
    monkeypatch.setattr(warm_up, "is_cold", lambda *_: True)
    lines = []
    second = threading.Thread(target=warm_up.warm_up, args=[lines.append])
    with warm_up._one_at_a_time():
        second.start()
        second.join(timeout=0.5)
        assert second.is_alive()
    monkeypatch.setattr(warm_up, "is_cold", lambda *_: False)
    second.join(timeout=60)
    assert not second.is_alive()
    assert "compiled in" in lines[-1]


def test_a_disk_without_locks_only_costs_time(monkeypatch):
    def unlocked(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(warm_up, "is_cold", lambda *_: True)
    monkeypatch.setattr(warm_up.fcntl, "flock", unlocked)
    lines = []
    kernels.warm_up(OPTIONS, lines.append)
    assert "compiled in" in lines[-1]
    jacobian.warm_up(OPTIONS, lines.append)
    assert "kernel's gradients" in lines[-1]


def test_a_step_compiles_nothing_that_was_not_compiled_ahead():
    """In a process of its own: arrays from JAX, slices of pairs, more than one task of each."""
    code = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from kip_flax import architectures, kernels
from kip_flax.kernels import jacobian
from kip_flax.kernels.cpu import pair_gradients, pairs
options = kernels.KernelOptions(architectures.convnet(1), implementation="cpu")
kernels.warm_up(options, lambda text: None)
jacobian.warm_up(options, lambda text: None)
names = ("forward", "backward", "squared_distances", "tiles_jacobian")
known = vars(pairs) | vars(pair_gradients)
entries = [value for name, value in known.items() if name.endswith(names)]
before = [len(entry.signatures) for entry in entries]
kernel = kernels.make_kernel(architectures.convnet(1), implementation="cpu")
x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("f")
step = jax.jit(jax.value_and_grad(lambda a, b: kernel(a, a).sum() + kernel(b, a).sum()))
jax.block_until_ready(step(x, 1.001 * x))
jax.block_until_ready(jax.jit(jacobian.make_jacobian(options))(1.5 * x, x))
print(len(entries), before == [len(entry.signatures) for entry in entries])
"""
    assert output_of(code).strip() == "8 True"
