"""`--mode=plan`: the time and memory of a run, from a short probe of its steps; writes no files.

The probe times real steps of the configuration with few targets and with more. A straight line
through both gives the time of a whole step: a fixed part (the support with itself, the solve), and
a part for each target. Times on other devices are calculated from it and labelled as estimates.
A step that computes no kernel is timed with all its targets, and says nothing of other devices.
"""

import bisect
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import algorithms, architectures, data, kernels, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms import base
from kip_flax.algorithms.interface import KeptGradients
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.plan import arithmetic, curves, probe
from kip_flax.modes.plan.probe import LinearTime
from kip_flax.runs import setup
from kip_flax.runtime import hardware, sharding, signals
from kip_flax.runtime.console import Console, count, duration
from kip_flax.runtime.waiting import Watch, stopping_together

_LONG = 60  # Seconds: no estimates for other devices for a shorter run.
_SHARE = 0.9  # Of a time limit that a schedule is laid out for.
_SEEN = 1000  # Most steps whose batch sizes are read.


@dataclass(frozen=True)
class Forecast:
    """The sizes and times of a planned run.

    Attributes:
        steps, evaluations: their numbers.
        targets: mean number of targets of a step.
        most_targets: largest number of targets of a step.
        tests, labelled: images of an evaluation, for testing and for solving for the labels.
        support: number S of support images.
        step: time of a step, by its targets.
        evaluation: time of an evaluation, by its images (`evaluated`).
        networks_before, networks_after: seconds to train the networks of one evaluation, before
            the last step and after it; assumed the same on more devices.
    """

    steps: int
    evaluations: int
    targets: int
    most_targets: int
    tests: int
    labelled: int
    support: int
    step: LinearTime
    evaluation: LinearTime
    networks_before: float = 0.0
    networks_after: float = 0.0

    @property
    def networks(self) -> float:
        """Seconds to train the networks of all evaluations."""
        return (self.evaluations - 1) * self.networks_before + self.networks_after

    @property
    def evaluated(self) -> int:
        """Number of images that an evaluation compares with the support."""
        return self.tests + self.labelled

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, without compiling."""
        return self.seconds_on(devices=1)

    def seconds_on(self, devices: float) -> float:
        """Seconds of the run on `devices` times as many devices, which share targets and images."""
        step = self.step.at(self.targets / devices)
        evaluation = self.evaluation.at(self.evaluated / devices)
        return self.steps * step + self.evaluations * evaluation + self.networks

    def of_steps(self, steps: int, config: ConfigDict) -> "Forecast":
        """The forecast of a run that has `steps` steps instead, with its evaluations."""
        evaluations = len(algorithms.find(config.algorithm).eval_steps(config, steps) | {0, steps})
        return dataclasses.replace(self, steps=steps, evaluations=evaluations)

    def steps_within(self, seconds: float, config: ConfigDict) -> int:
        """The largest number of steps, up to `steps`, whose run takes at most `seconds`."""
        every = range(self.steps + 1)
        taken = bisect.bisect_right(
            every, seconds, key=lambda steps: self.of_steps(steps, config).seconds
        )
        return max(0, taken - 1)

    def steps_in_time(self, config: ConfigDict) -> int:
        """The largest number of steps, up to `steps`, within the time limit of `config`.

        A schedule that is laid out for it leaves a tenth: steps may take longer than in the probe.
        """
        share = _SHARE if config_lib.length_decides(config) else 1
        return self.steps_within(share * 3600 * config.time_limit, config)


def plan_run(config: ConfigDict, console: Console | None = None) -> Forecast:
    """Measures a probe of the run that `config` describes, and prints its forecast.

    Raises:
        UserError: data or devices do not fit the configuration.
        Stopped: a signal arrived while networks were timed.
    """
    console = console or Console()
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    dataset = setup.load(config)
    config_lib.check_data(config, dataset)
    setup.start_of(config, dataset)
    kernel = shard_kernel(setup.make_kernel(config, console), mesh)
    found = forecast(config, dataset, kernel, mesh, console)
    console.outcome(_words(config, dataset, mesh, found))
    return found


def forecast(
    config: ConfigDict, dataset: Dataset, kernel: Kernel, mesh: Mesh, console: Console
) -> Forecast:
    """Measures a probe of the run that `config` describes, on a mesh.

    The steps of an algorithm without kernel are timed with all their targets.

    Raises:
        Stopped: a signal arrived while networks were timed.
    """
    train_size = len(dataset.train_labels)
    tests = len(data.test_subset(dataset, config.eval.num_test)[1])
    algorithm = algorithms.find(config.algorithm)
    labelled = algorithm.label_targets(config, train_size)
    total = algorithm.total_steps(config, train_size)
    numbers = 1 + data.evenly(max(1, total), _SEEN)  # Reading all steps would take seconds.
    sizes = [algorithm.batch_size(config, int(number)) for number in numbers]
    targets, most_targets = (min(round(n), train_size) for n in (np.mean(sizes), max(sizes)))
    evaluations = len(algorithm.eval_steps(config, total) | {0})
    probed = probe.Probe(config, dataset, kernel, mesh)
    with signals.stop_signals() as stopping, stopping_together():
        before_end, at_end = probed.networks(Watch(stopping, console))
    if algorithms.facts(config.algorithm).uses_kernel:
        step = probe.fit(probed.step, targets)
    else:
        step = LinearTime(0.0, probed.step(targets) / targets)
    return Forecast(
        steps=total,
        evaluations=evaluations,
        targets=targets,
        most_targets=most_targets,
        tests=tests,
        labelled=labelled,
        support=config.support.size,
        step=step,
        evaluation=probe.fit(probed.evaluation, tests + labelled),
        networks_before=before_end,
        networks_after=at_end,
    )


def _words(config: ConfigDict, dataset: Dataset, mesh: Mesh, found: Forecast) -> str:
    one_step, one_test = found.step.at(found.targets), found.evaluation.at(found.evaluated)
    tested = f"{found.tests} {dataset.split} images"
    if found.labelled:
        tested += f", labels solved for {found.labelled} targets"
    by_kernel = algorithms.facts(config.algorithm).uses_kernel
    fixed = f", {_time(found.step.fixed)} of them whatever the targets" if by_kernel else ""
    sizes = dataset.image_shape, found.most_targets, mesh.shape["data"]
    kept = algorithms.find(config.algorithm).kept_gradients(config, *sizes)
    cost = _cost(config, dataset, found, kept) if by_kernel else None
    lines = [
        f"plan of {config.algorithm} on {dataset.name}, {hardware.hardware()}, "
        f"kernel {kernels.resolve(config.kernel.implementation)}",
        *_of_pairs(cost),
        f"  step       {_time(one_step)}{fixed}",
        f"  evaluation {_time(one_test)} on {tested}, {found.evaluations} times",
        *_of_networks(config, found),
        f"  run        {found.steps} steps: {_time(found.seconds)}, and compiling at the start",
        *_of_limit(config, found),
        *_of_memory(config, dataset, mesh, found, kept),
        *_of_curve(config, found, one_step),
        *_estimates(found, cost),
    ]
    return "\n".join(lines)


def _of_limit(config: ConfigDict, found: Forecast) -> list[str]:
    """A line on the steps that a time limit leaves; none without a limit."""
    if not config.time_limit:
        return []
    steps = found.steps_in_time(config)
    return [f"  limit      time_limit={config.time_limit:g} h has time for {steps} of these steps"]


def _cost(
    config: ConfigDict, dataset: Dataset, found: Forecast, kept: KeptGradients
) -> arithmetic.Cost:
    spec = architectures.build(config.kernel.architecture, config.kernel.depth)
    differentiates = algorithms.facts(config.algorithm).differentiates
    stated = algorithms.find(config.algorithm).pairs(config, len(dataset.train_labels))
    blocks = 0 < kept.images < found.support
    sizes = found.support, found.targets
    cost = arithmetic.cost(spec, dataset.image_shape, *sizes, differentiates, blocks)
    # Steps that solve for labels compute no entries of the support with itself, and state fewer.
    pairs = min(cost.pairs, stated or cost.pairs)
    sides = 2 if config.kernel.mirrored else 1
    return arithmetic.Cost(pairs, sides * cost.flops_per_pair)


def _of_pairs(cost: arithmetic.Cost | None) -> list[str]:
    if cost is None:
        return []
    each = f"{count(cost.flops_per_pair)}flop each, with the gradient where there is one"
    return [f"  pairs      {count(cost.pairs)} a step; {each}"]


def _of_memory(
    config: ConfigDict,
    dataset: Dataset,
    mesh: Mesh,
    found: Forecast,
    kept: KeptGradients,
) -> list[str]:
    """Lines on the memory: of the data, and of a step that computes the kernel."""
    host = arithmetic.host_bytes(dataset)
    line = f"  memory     {count(host)}B of data on the host"
    whitening = preprocess.whitening_bytes(config.preprocess, math.prod(dataset.image_shape))
    if whitening:
        line += f", {count(whitening)}B while the whitening is fitted"
    if not algorithms.facts(config.algorithm).uses_kernel:
        return [line, *arithmetic.warnings(arithmetic.Memory(host + whitening, 0), 1)]
    spec = architectures.build(config.kernel.architecture, config.kernel.depth)
    most = found.support, found.most_targets
    memory = arithmetic.memory(spec, dataset, *most, mesh.shape["data"], kept.bytes)
    rows = algorithms.find(config.algorithm).kept_rows(config, len(dataset.train_labels))
    if rows.targets:
        more = arithmetic.rows_memory(rows, found.support)
        memory = arithmetic.Memory(memory.host + more.host, memory.device + more.device)
        line += f", {count(more.host)}B for the kernel rows that labels are solved from"
    line += f", {count(memory.device)}B on each of {mesh.size} devices"
    memory = arithmetic.Memory(memory.host + whitening, memory.device)
    return [line, *arithmetic.warnings(memory, len(mesh.local_devices))]


def _estimates(found: Forecast, cost: arithmetic.Cost | None) -> list[str]:
    """Lines on the run on other devices; [] for a short run, or if steps compute no kernel."""
    if found.seconds < _LONG or cost is None:
        return []
    lines = ["estimates, by arithmetic from the above; nothing of it was run:"]
    for more in (2, 8, 64):
        lines.append(f"  {more:3d} times these devices: {_time(found.seconds_on(more))}")
    for name, seconds in arithmetic.at_peak(cost.pairs * cost.flops_per_pair):
        whole = _time(found.steps * seconds)
        lines.append(
            f"  {name} at its float32 peak, never reached: {_time(seconds)} a step, {whole}"
        )
    return lines


def _of_curve(config: ConfigDict, found: Forecast, step_seconds: float) -> list[str]:
    """Lines on the likely cost of accuracies; [] if no run of this setting was measured."""
    kernel = config.kernel
    setting = config.algorithm, config.dataset.name, kernel.architecture
    sizes = found.support, found.targets
    curve = curves.nearest(curves.measured(), setting, kernel.mirrored, *sizes)
    real = base.kind_of_start(config.support.init) == "real"
    if curve is None or config.dataset.classes or not (real and config.support.learn_labels):
        return []
    reached = curves.milestones(curve, found.targets, step_seconds)
    other = f", kernel.mirrored={curve.mirrored}" if curve.mirrored != kernel.mirrored else ""
    return [
        f"  accuracy   no promise: by the curve of our run {curve.row} ({curve.size} images, "
        f"{curve.targets} targets a step at the end, {curve.images}{other}), scaled to this step:",
        *(f"    {one.accuracy:6.1%} {one.steps:6d} steps, {_time(one.seconds)}" for one in reached),
    ]


def _of_networks(config: ConfigDict, found: Forecast) -> list[str]:
    if not config.eval.networks:
        return []
    names = ", ".join(config.eval.networks)
    return [f"  networks   {_time(found.networks)} for all trainings of {names} on the set"]


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{seconds:.3g} s"
