"""What a plan says, against counting by hand, lines that are known, and a run."""

import dataclasses
import importlib
import json
import types

import numpy as np
import pytest
import quick

from configs import kip_digits, kip_newton_mnist
from kip_flax import algorithms, data
from kip_flax import architectures as arch
from kip_flax.algorithms.interface import KeptGradients, KeptRows
from kip_flax.kernels import KernelOptions
from kip_flax.kernels.plan import make_plan
from kip_flax.modes.plan import arithmetic, mode, probe
from kip_flax.modes.plan.mode import Forecast, plan_run
from kip_flax.modes.plan.probe import LinearTime
from kip_flax.modes.train import mode as train
from kip_flax.networks import progress
from kip_flax.networks.trial import Trial
from kip_flax.runs import setup
from kip_flax.runtime import sharding
from kip_flax.runtime.console import duration


@pytest.mark.parametrize("most", [10, 64, 100, 5000])
def test_a_line_through_two_probes(most):
    """Whatever is measured, the line gives back what is straight."""
    asked = []

    def seconds(count):
        asked.append(count)
        return 0.3 + 0.002 * count

    found = probe.fit(seconds, most)
    assert found.at(most) == pytest.approx(0.3 + 0.002 * most, rel=1e-9)
    assert max(asked) <= most
    if most > 64:
        assert (found.fixed, found.each) == pytest.approx((0.3, 0.002))


def test_noise_makes_no_negative_times():
    found = probe.fit(lambda count: 1.0 if count <= 64 else 0.9, 200)
    assert found.each == 0
    assert found.fixed == 0.9


def test_a_run_is_its_steps_and_evaluations_and_devices_share_what_grows():
    found = Forecast(
        steps=10, evaluations=3, targets=100, most_targets=100, tests=30, labelled=20, support=5,
        step=LinearTime(0.5, 0.01), evaluation=LinearTime(0.1, 0.02),
    )  # fmt: skip
    assert found.seconds == pytest.approx(10 * 1.5 + 3 * 1.1)
    assert found.seconds_on(1) == found.seconds
    assert found.seconds_on(4) == pytest.approx(10 * 0.75 + 3 * 0.35)
    assert found.seconds_on(1e12) == pytest.approx(10 * 0.5 + 3 * 0.1)
    trained = dataclasses.replace(found, networks_before=2.0, networks_after=3.0)
    assert trained.seconds == pytest.approx(found.seconds + 2 * 2 + 3)


@pytest.mark.parametrize(("seconds", "calls"), [(0.1, 3), (1.9, 3), (2.1, 2), (5.0, 1)])
def test_processes_make_as_many_calls_as_the_first_has_time_for(seconds, calls, monkeypatch):
    monkeypatch.setattr(probe.multihost, "of_first", lambda _: np.array(seconds))
    made = []
    assert probe._median(lambda: made.append(1)) == seconds
    assert len(made) == calls


@pytest.mark.parametrize("seconds", [0, 1, 4.9, 5.7, 20, 31, 1e6])
def test_the_most_steps_that_fit_by_trying_all(seconds):
    config = kip_digits.get_config()
    config.eval.steps = (0, 2, 4, 8)
    found = Forecast(
        steps=40, evaluations=5, targets=100, most_targets=100, tests=30, labelled=20, support=5,
        step=LinearTime(0.25, 0.005), evaluation=LinearTime(0.1, 0.02),
    )  # fmt: skip

    def of_run(steps):
        return 0.75 * steps + 1.1 * len({0, steps, *(n for n in (2, 4, 8) if n <= steps)})

    assert found.of_steps(7, config).seconds == pytest.approx(of_run(7))
    fitting = [steps for steps in range(41) if of_run(steps) <= seconds]
    assert found.steps_within(seconds, config) == max(fitting, default=0)


@pytest.mark.parametrize(("schedule", "steps"), [("constant", 9), ("cosine", 8)])
def test_a_plan_says_what_a_limit_of_time_has_time_for(schedule, steps):
    config = kip_digits.get_config()
    config.optimizer.schedule, config.eval.steps, config.time_limit = schedule, (0,), 20 / 3600
    found = Forecast(
        steps=40, evaluations=2, targets=100, most_targets=100, tests=30, labelled=20, support=5,
        step=LinearTime(0, 0.02), evaluation=LinearTime(0, 0.02),
    )  # fmt: skip
    # Two seconds a step and one an evaluation; a schedule is laid out for 18 of the 20 seconds.
    assert mode._of_limit(config, found) == [
        f"  limit      time_limit=0.00555556 h has time for {steps} of these steps"
    ]
    config.time_limit = 0.0
    assert mode._of_limit(config, found) == []


def test_operations_of_a_pair_by_hand():
    spec = (arch.Conv(), arch.Relu(), arch.Conv(), arch.Relu(), arch.Flatten(), arch.Dense())
    operations = arithmetic.pair_flops(make_plan(KernelOptions(spec), (4, 5, 3)), 3)
    # 20 pixels with themselves: products of 3 channels, K's windows, then K's and T's; the mean.
    assert operations == 20 * (6 + (4 + 33) + (8 + 33) + 2)
    # The band of the ConvNet: 2 x 424^2 + 100^2 + 22^2 ReLUs of 33 operations are most of it.
    convnet = make_plan(KernelOptions(arch.convnet(3)), (32, 32, 3))
    relus = 33 * (2 * 424**2 + 100**2 + 22**2)
    assert 1.2 * relus < arithmetic.pair_flops(convnet, 3) < 1.4 * relus


def test_pairs_of_a_step():
    spec, shape = arch.conv(1), (8, 8, 1)
    kip = arithmetic.cost(spec, shape, support=10, targets=200, gradient=True)
    ls = arithmetic.cost(spec, shape, support=10, targets=200, gradient=False)
    assert kip.pairs == len({(i, j) for i in range(10) for j in range(210) if j >= i})
    assert ls.pairs == 2000
    assert kip.flops_per_pair == 4 * ls.flops_per_pair
    by_blocks = arithmetic.cost(spec, shape, support=10, targets=200, gradient=True, blocks=True)
    assert by_blocks.pairs == kip.pairs
    assert by_blocks.flops_per_pair == 5 * ls.flops_per_pair


def test_gradients_of_pairs_kept_apart_are_counted():
    images = np.zeros((300, 8, 8, 1), np.uint8)
    dataset = data.Dataset("some", images, np.zeros(300, int), images, np.zeros(300, int), ())
    summed, apart = (
        arithmetic.memory(arch.conv(1), dataset, 10, 200, 2, kept) for kept in (0, 12_345)
    )
    assert apart.device - summed.device == 12_345
    assert apart.host == summed.host


@pytest.mark.parametrize(("total", "timed"), [(1, {1}), (2, {2}), (500, set(range(2, 11)))])
def test_the_first_step_is_not_timed_where_there_are_others(total, timed, monkeypatch):
    """That of `dp_kip` is the mean of the classes, and no step of its optimiser."""
    numbers = []

    def step(state, number):
        numbers.append(number)
        return state, {}

    task = types.SimpleNamespace(total=total, start=lambda: np.zeros(()), step=step)
    monkeypatch.setattr(setup, "make_distillation", lambda *_: task)
    config = kip_digits.get_config()
    probed = probe.Probe(config, data.load_dataset("digits"), None, sharding.make_mesh())
    probed.step(config.batch_size)
    assert set(numbers) == timed


@pytest.mark.parametrize("count", [10, 100])
def test_steps_that_depend_on_the_share_that_they_draw_keep_it(count, monkeypatch):
    config = importlib.import_module("configs.dp_kip_digits").get_config()
    seen = []

    def make(problem, support):
        seen.append((problem.config.batch_size, len(problem.targets.labels), len(support[1])))
        return types.SimpleNamespace(total=3, start=lambda: np.zeros(()), step=lambda s, _: (s, {}))

    monkeypatch.setattr(setup, "make_distillation", make)
    digits = data.load_dataset("digits")
    probe.Probe(config, digits, None, sharding.make_mesh()).step(count)
    ((batch, targets, support),) = seen
    share = config.batch_size / len(digits.train_labels)
    assert (batch, support) == (count, config.support.size)
    assert batch / targets == pytest.approx(share, rel=count / targets)


def test_a_start_that_few_images_of_a_class_allow_can_be_planned(monkeypatch):
    """The probe sees 40 images, four of a class, and the run starts from ten of each."""
    monkeypatch.setattr(probe, "_IMAGES", 40)
    quick.install(monkeypatch)
    config = kip_digits.get_config()
    config.support.init, config.support.size, config.num_steps = "herding", 100, 2
    assert plan_run(config).steps == 2


@pytest.mark.parametrize(("learned", "own"), [(True, 0), (False, 10 * 11 // 2)])
def test_the_support_pairs_count_where_a_step_computes_them(learned, own):
    config = importlib.import_module("configs.kip_newton_digits").get_config()
    config.support.learn_labels, config.newton.growth = learned, 1
    found = types.SimpleNamespace(support=10, targets=config.batch_size)
    none = KeptGradients(0, 0)
    cost = mode._cost(config, data.load_dataset("digits"), found, none)
    assert cost.pairs == 10 * config.batch_size + own
    config.kernel.mirrored = True
    mirrored = mode._cost(config, data.load_dataset("digits"), found, none)
    assert mirrored == dataclasses.replace(cost, flops_per_pair=2 * cost.flops_per_pair)


def test_a_plan_counts_batches_that_grow(monkeypatch):
    quick.install(monkeypatch)
    for name in ("step", "evaluation"):
        monkeypatch.setattr(probe.Probe, name, lambda self, count: 1e-3 * count)
    config = importlib.import_module("configs.kip_newton_digits").get_config()
    config.update_from_flattened_dict({
        "batch_size": 100, "num_steps": 7, "newton.growth": 4, "newton.iterations": 10,
    })  # fmt: skip
    found = plan_run(config)
    assert (found.targets, found.most_targets) == (round((4 * 100 + 2 * 200 + 400) / 7), 400)


def test_a_host_that_is_too_small_is_warned_of(monkeypatch):
    needed = arithmetic.Memory(host=5 << 30, device=1 << 20)
    assert arithmetic.warnings(needed, 1) == [] or arithmetic.free_memory() < 6 << 30
    monkeypatch.setattr(arithmetic, "free_memory", lambda: 1 << 30)
    (warning,) = arithmetic.warnings(needed, 1)
    assert f"{5 * 1024 + 1} MiB are needed" in warning
    (warning,) = arithmetic.warnings(needed, 9)
    assert f"{5 * 1024 + 9} MiB are needed" in warning
    assert "1024 are free" in warning
    assert "lower batch_size" in warning


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("kip_digits", "kip"), ("ls_digits", "ls"), ("kip_digits", "kip_solve")],
)
def test_what_a_plan_says(name, algorithm, monkeypatch, capsys):
    quick.install(monkeypatch)
    config = importlib.import_module(f"configs.{name}").get_config()
    config.algorithm, config.batch_size = algorithm, 200
    found = plan_run(config)
    output = capsys.readouterr().out
    steps = config.num_steps if name == "kip_digits" else 8  # 1,438 images by 200.
    assert f"{steps} steps: {found.seconds:.3g} s" in output
    assert (found.targets, found.support) == (config.batch_size, config.support.size)
    assert found.evaluations == len({0, steps, *config.eval.steps})
    assert found.seconds > 0
    solved = "359 test images, labels solved for 1438 targets" in output
    assert solved == (algorithm == "kip_solve")
    assert ("estimates, by arithmetic" in output) == (found.seconds >= 60)
    assert ("our run kip_digits_10 (10 images, 200 targets a step" in output) == (
        algorithm == "kip"
    )


def test_rows_that_labels_are_solved_for_with_are_in_the_plan(monkeypatch, capsys):
    quick.install(monkeypatch)
    config = importlib.import_module("configs.ls_digits").get_config()
    plan_run(config)
    assert "kernel rows" not in capsys.readouterr().out
    config.algorithm = "ls_cross_entropy"
    plan_run(config)
    rows = np.zeros((1438, config.support.size))
    solved, kept = 2 * rows.nbytes, 2 * rows.astype(np.float32).nbytes
    words = "kB for the kernel rows that labels are solved from"
    assert f"{solved / 1e3:.3g}{words}" in capsys.readouterr().out
    in_state, on_host = (arithmetic.rows_memory(KeptRows(1438, b), 10) for b in (True, False))
    assert in_state == arithmetic.Memory(solved, kept)
    assert on_host == arithmetic.Memory(solved + kept, 0)


@pytest.mark.parametrize("name", ["frepo_digits", "bptt_digits", "dc_digits"])
def test_a_step_without_kernel_is_timed_with_all_its_targets(name, monkeypatch, capsys):
    """Nothing is said of pairs, of the memory of devices, or of other devices."""
    asked = []

    def step(self, count):
        asked.append(count)
        return 2.5

    monkeypatch.setattr(probe.Probe, "step", step)
    monkeypatch.setattr(probe.Probe, "evaluation", lambda self, count: 1.0)
    config = importlib.import_module(f"configs.{name}").get_config()
    config.eval.networks = ()
    found = plan_run(config)
    output = capsys.readouterr().out
    assert asked == [config.batch_size] == [found.targets]
    assert found.seconds == pytest.approx(2.5 * config.num_steps + found.evaluations)
    assert "  step       2.5 s\n" in output
    assert f"  run        {config.num_steps} steps: {duration(found.seconds)}, and" in output
    assert "  memory     575kB of data on the host\n" in output  # 1,797 images of 64 pixels.
    assert not any(word in output for word in ("pairs", "on each of", "estimates"))


def test_other_devices_are_estimated_for_long_runs_alone():
    cost = arithmetic.Cost(pairs=20_000, flops_per_pair=1e6)
    long = Forecast(
        steps=100, evaluations=3, targets=100, most_targets=100, tests=30, labelled=20, support=5,
        step=LinearTime(0.5, 0.01), evaluation=LinearTime(0.1, 0.02),
    )  # fmt: skip
    assert long.seconds > 150
    head, *lines = mode._estimates(long, cost)
    assert head.startswith("estimates, by arithmetic")
    assert lines[0] == f"    2 times these devices: {duration(long.seconds_on(2))}"
    assert lines[-1] == (
        "  NVIDIA H100 (SXM) at its float32 peak, never reached: 0.000299 s a step, 0.0299 s"
    )
    assert mode._estimates(dataclasses.replace(long, steps=10), cost) == []


def test_networks_that_judge_a_set_are_in_the_plan(monkeypatch, capsys):
    """At three marks two networks, at the end three on the test images too: 9 trainings."""
    quick.install(monkeypatch)
    config = kip_digits.get_config()
    config.update_from_flattened_dict({
        "eval.steps": (30,), "eval.networks": ("fc:1",), "eval.network_seeds": 2,
        "transfer.seeds": 3, "transfer.width": 64, "transfer.num_steps": 150,
    })  # fmt: skip
    asked = []

    def seconds(trial, cost):
        asked.append(trial.seeds)
        return 100.0 * trial.seeds

    monkeypatch.setattr(Trial, "probe", lambda *_: progress.Cost(0, 0, 0, 0))
    monkeypatch.setattr(Trial, "seconds", seconds)
    found = plan_run(config)
    assert asked == [2, 3]
    assert found.networks == 100 * (2 + 2 + (2 + 3))
    output = capsys.readouterr().out
    assert "networks   15 min 00 s for all trainings of fc:1 on the set" in output
    assert found.seconds > 900


@pytest.mark.parametrize("count", [7, 64, 200])
def test_a_probe_of_label_solve_takes_whole_tiles_of_the_run_alone(count, monkeypatch):
    quick.install(monkeypatch)
    taken = []
    make = probe.setup.make_distillation

    def counting(problem, support):
        task = make(problem, support)
        assert len(problem.targets.labels) == task.total * count

        def step(state, number):
            taken.append((number, task.total))
            return task.step(state, number)

        return dataclasses.replace(task, step=step)

    monkeypatch.setattr(probe.setup, "make_distillation", counting)
    config = importlib.import_module("configs.ls_digits").get_config()
    dataset = data.load_dataset("digits")
    mesh = sharding.make_mesh()
    assert probe.Probe(config, dataset, quick.quick_kernel(None), mesh).step(count) > 0
    assert all(1 <= number <= total for number, total in taken)


@pytest.mark.parametrize(
    ("name", "fields", "labelled"),
    [
        ("kip_newton_digits", {}, 1438),
        ("kip_newton_digits", {"eval.label_targets": 300}, 300),
        ("kip_newton_digits", {"support.learn_labels": False}, 0),
        ("kip_digits", {"algorithm": "kip_solve", "eval.label_targets": 0}, 1438),
        ("kip_digits", {}, 0),
    ],
)
def test_an_evaluation_that_solves_for_labels_is_counted_with_them(name, fields, labelled):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict(fields)
    assert algorithms.find(config.algorithm).label_targets(config, 1438) == labelled


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kip_digits", "bptt_digits"])
def test_the_time_of_a_run_within_a_quarter(name, tmp_path):
    """Steps as the run measures them itself, on a quiet machine."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.eval.networks = ()
    config.num_steps = min(config.num_steps, 200)
    config.log.every_steps = config.num_steps
    found = plan_run(config)
    train.train_and_evaluate(config, str(tmp_path))
    measured = json.loads((tmp_path / "result.json").read_text())
    assert 1e3 * found.step.at(found.targets) == pytest.approx(measured["step_ms"], rel=0.25)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"support.init": "herding"}, True),
        ({"support.init": "noise"}, False),
        ({"support.init": "set.npz"}, False),
        ({"dataset.classes": (3, 5)}, False),
        ({"support.learn_labels": False}, False),
    ],
)
def test_the_curve_of_a_run_is_of_all_classes_and_real_images(change, known):
    config = kip_newton_mnist.get_config()
    config.update_from_flattened_dict(change)
    line = LinearTime(0.0, 0.01)
    forecast = Forecast(10, 2, 4000, 4000, 100, 0, 10, line, line)
    lines = mode._of_curve(config, forecast, 3.0)
    assert bool(lines) is known
    if known:
        assert "by the curve of our run kip_newton_mnist_10" in lines[0]
