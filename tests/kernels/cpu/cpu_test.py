"""The compiled kernel as a citizen: threads, devices, processes, what is computed and what is not.

Its numbers are tested with those of 'xla' in `build_test.py` and `plan_test.py`.
"""

import concurrent.futures
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels.cpu import compiled, pairs, threads, warm_up
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.kernels.xla import variances as xla_variances
from kip_flax.runtime import sharding

SPEC = arch.convnet(2)
OPTIONS = kernels.KernelOptions(SPEC, implementation="cpu")
pytestmark = pytest.mark.usefixtures("compiled_kernel")


def images(n, size=8, channels=1, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, size, size, channels))
    return jnp.asarray(x, jnp.float32)


def kernel_and_gradient(kernel, x1, x2):
    weights = np.random.default_rng(1).normal(size=(len(x1), len(x2)))
    k, vjp = jax.vjp(kernel, x1, x2)
    return k, *vjp(jnp.asarray(weights, k.dtype))


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    """Bit for bit: a run can be resumed on another machine."""
    x1, x2 = images(11), images(70, seed=1)
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    results = []
    for count in (1, 3):
        pool = concurrent.futures.ThreadPoolExecutor(count)
        monkeypatch.setattr(threads, "_pool", lambda pool=pool: pool)
        results.append(kernel_and_gradient(kernel, x1, x2))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_devices_share_the_work_and_the_pool():
    x1, x2 = images(9), images(7, seed=1)
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    mesh = sharding.make_mesh(2, 2)
    spread = jax.jit(lambda a, b: kernel_and_gradient(shard_kernel(kernel, mesh), a, b))
    for one, other in zip(spread(x1, x2), kernel_and_gradient(kernel, x1, x2), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * np.abs(other).max())
    assert threads._pool()._max_workers == threads.count()


@pytest.mark.parametrize(("asked", "calls"), [((0,), 1), ((1,), 1), ((0, 1), 2)])
def test_only_the_gradients_that_are_asked_for(monkeypatch, asked, calls):
    seen = []
    original = pairs.gradient
    monkeypatch.setattr(pairs, "gradient", lambda *args: (seen.append(1), original(*args))[1])
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    jax.jit(jax.grad(lambda a, b: kernel(a, b).sum(), asked))(images(3), images(4, seed=1))
    assert len(seen) == calls


def test_a_set_with_itself_computes_one_triangle(monkeypatch):
    seen = []
    original = pairs.tiles_forward

    def counted(*args):
        seen.append(args[7])
        return original(*args)

    monkeypatch.setattr(pairs, "tiles_forward", counted)
    x = images(40)
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    same = kernel(x, x)
    assert all(seen)
    seen.clear()
    np.testing.assert_allclose(same, kernel(x, x + 0), rtol=1e-6)
    assert not any(seen)
    np.testing.assert_array_equal(same, same.T)


@pytest.mark.parametrize(
    ("spec", "size"), [(arch.convnet(2), 9), (arch.myrtle(5), 9), (arch.conv(2), 6)]
)
def test_variances_against_xla(spec, size):
    """Two programs for the same numbers: values and gradients in float64."""
    x = np.random.default_rng(0).normal(size=(18, size, size, 2))
    plan = make_plan(kernels.KernelOptions(spec, w_std=1.3, b_std=0.2), x.shape[1:])
    programs = pairs.make_programs(plan, channels=2, tangent=True)
    found, ends = pairs.variances(programs, x.reshape(18, -1))

    def plain(x):
        levels, _ = xla_variances.variances(plan, x)
        return jnp.concatenate([v.reshape(18, -1) for maps in levels for v in maps], axis=1)

    @jax.jit
    def plain_and_gradient(x, g):
        values, vjp = jax.vjp(plain, x)
        return values, vjp(g)[0]

    g = np.random.default_rng(1).normal(size=found.shape)
    want, exact = plain_and_gradient(x, g)
    np.testing.assert_allclose(found, want, rtol=1e-11)
    gradient = pairs.variances_gradient(programs, x.reshape(18, -1), found, g, 0 * ends)
    np.testing.assert_allclose(gradient, np.reshape(exact, (18, -1)), rtol=1e-8, atol=1e-10)


def run(code, **environment):
    """What `code` prints, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=os.environ | environment,
    ).stdout


def test_threads_are_the_cores_of_the_process_or_fewer():
    code = "from kip_flax.kernels.cpu import threads; print(threads.count())"
    assert int(run(code)) == len(os.sched_getaffinity(0))
    assert int(run(code, NUMBA_NUM_THREADS="1")) == 1
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + code
    assert int(run(pinned)) == 1


def test_one_core_is_enough():
    """JAX's callbacks wait for arrays: not for the thread that they run on."""
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np
from kip_flax import architectures, kernels
kernel = kernels.make_kernel(architectures.convnet(1), implementation="cpu")
x = np.random.default_rng(0).normal(size=(3000, 16, 16, 3)).astype("f")
step = jax.jit(jax.value_and_grad(lambda a, b: kernel(b, a).sum()))
for _ in range(3):
    value, gradient = step(x[:2], x)
print(np.isfinite(gradient).all())
"""
    assert run(code).strip() == "True"


def test_a_cold_start_says_that_it_compiles(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(warm_up, "is_cold", lambda *_: True)
    kernels.warm_up(OPTIONS, told.append)
    assert "about a minute, on the first run only" in told[0]
    assert "compiled in" in told[1]
    told.clear()
    monkeypatch.undo()
    kernels.warm_up(OPTIONS, told.append)  # Kept by the call before.
    kernels.warm_up(kernels.KernelOptions(arch.fc(1), implementation="cpu"), told.append)
    assert told == []
    code = "from kip_flax.kernels.cpu import warm_up; print(warm_up.is_cold(*warm_up._LAST))"
    assert run(code).strip() == "False"
    assert run(code, XDG_CACHE_HOME=str(tmp_path)).strip() == "True"


def test_half_is_compiled_by_another_process_wherever_it_starts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with warm_up._in_another_process("call_for_near_duplicates") as process:
        pass
    assert process.returncode == 0
    with warm_up._in_another_process("no_such_function") as process:
        pass
    assert process.returncode == 1


def test_who_comes_second_waits_for_who_compiles(monkeypatch):
    monkeypatch.setattr(warm_up, "is_cold", lambda *_: True)
    told = []
    second = threading.Thread(target=warm_up.warm_up, args=[told.append])
    with warm_up._one_at_a_time():
        second.start()
        second.join(timeout=0.5)
        assert second.is_alive()
    monkeypatch.setattr(warm_up, "is_cold", lambda *_: False)
    second.join(timeout=60)
    assert not second.is_alive()
    assert "compiled in" in told[-1]


def test_a_step_compiles_nothing_that_was_not_compiled_ahead():
    """In a process of its own: arrays from JAX, slices of pairs, more than one task of each."""
    code = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from kip_flax import architectures, kernels
from kip_flax.kernels.cpu import pairs
options = kernels.KernelOptions(architectures.convnet(1), implementation="cpu")
kernels.warm_up(options, lambda text: None)
names = ("forward", "backward", "squared_distances")
entries = [value for name, value in vars(pairs).items() if name.endswith(names)]
before = [len(entry.signatures) for entry in entries]
kernel = kernels.make_kernel(architectures.convnet(1), implementation="cpu")
x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("f")
step = jax.jit(jax.value_and_grad(lambda a, b: kernel(a, a).sum() + kernel(b, a).sum()))
jax.block_until_ready(step(x, 1.001 * x))
print(len(entries), before == [len(entry.signatures) for entry in entries])
"""
    assert run(code).strip() == "7 True"


def test_compiled_code_is_kept_apart_for_each_version_of_the_sources(monkeypatch, tmp_path):
    assert compiled.code_folder() == compiled.code_folder()
    (tmp_path / "rows.py").write_text("other\n")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    one = compiled.code_folder.__wrapped__()
    (tmp_path / "rows.py").write_text("another\n")
    assert one != compiled.code_folder.__wrapped__() != compiled.code_folder()
