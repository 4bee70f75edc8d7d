"""`--mode=plan`: what a run will take, from a short probe of its own steps; nothing is written.

The probe takes real steps of the configuration with few targets and with more, and a straight line
through both gives the time of a whole step: fixed part (the support with itself, the solve) plus
targets. What is said of other devices is arithmetic on that, and labelled as an estimate.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import architectures, data, kernels, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms import _methods as methods
from kip_flax.algorithms import base as tasks
from kip_flax.data import Dataset
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.plan import arithmetic as plan_arithmetic
from kip_flax.runs import evaluate
from kip_flax.runs import setup as prepare
from kip_flax.runtime import hardware, sharding
from kip_flax.runtime.console import Console, count, duration
from kip_flax.runtime.errors import UserError

_PROBE_SECONDS = 4.0  # A probe with more targets than the first should take about so long.
_FEW = 64  # Targets of the first probe.
_IMAGES = 2000  # Training images that probes draw from.


@dataclass(frozen=True)
class Line:
    """Seconds as a straight line in the number of targets (or images of an evaluation)."""

    fixed: float
    each: float

    def at(self, count: float) -> float:
        """Seconds for `count` of them."""
        return self.fixed + self.each * count


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        steps, evaluations: how many the run has.
        targets: of a step.
        tests, labelled: images of an evaluation, for testing and for solving for the labels.
        support: images S.
        step, evaluation: seconds, as lines in `targets` and in `evaluated`.
    """

    steps: int
    evaluations: int
    targets: int
    tests: int
    labelled: int
    support: int
    step: Line
    evaluation: Line

    @property
    def evaluated(self) -> int:
        """Images that an evaluation compares with the support."""
        return self.tests + self.labelled

    @property
    def seconds(self) -> float:
        """Of the whole run, without compiling."""
        return self.seconds_on(devices=1)

    def seconds_on(self, devices: float) -> float:
        """The same with the work on targets and test images spread over more devices."""
        step = self.step.fixed + self.step.each * self.targets / devices
        evaluation = self.evaluation.fixed + self.evaluation.each * self.evaluated / devices
        return self.steps * step + self.evaluations * evaluation


def plan_run(config: ConfigDict, console: Console | None = None) -> Plan:
    """Measures a probe of the run that `config` describes, and prints what the run will take.

    Raises:
        UserError: data or devices do not fit the configuration.
    """
    if not methods.computes_kernels(config.algorithm):
        raise UserError(
            f"--mode=plan counts kernel entries, which {config.algorithm} has none of: take a few "
            f"steps instead, such as --config.num_steps=5, and multiply."
        )
    console = console or Console()
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    dataset = prepare.load(config)
    config_lib.check_data(config, dataset)
    prepare.start_of(config, dataset)
    kernel = shard_kernel(prepare.make_kernel(config, console), mesh)
    targets = min(config.batch_size, len(dataset.train_labels))
    tests = len(data.test_subset(dataset, config.eval.num_test)[1])
    labelled = tasks.label_targets(config, len(dataset.train_labels))
    probe = _Probe(config, dataset, kernel, mesh)
    step = line(probe.step, targets)
    evaluation = line(probe.evaluation, tests + labelled)
    total = tasks.total_steps(config, len(dataset.train_labels))
    marks = len(tasks.marks(config, total) | {0})
    support = config.support.size
    found = Plan(total, marks, targets, tests, labelled, support, step, evaluation)
    console.outcome(_words(config, dataset, mesh, found))
    return found


def line(seconds: Callable[[int], float], most: int) -> Line:
    """The line through `seconds(count)` at few and at more; all `most` of them if that is quick."""
    few = min(_FEW, most)
    first = seconds(few)
    more = min(most, max(2 * few, int(few * _PROBE_SECONDS / max(first, 1e-9))))
    if more == few:
        return Line(0.0, first / few)
    second = seconds(more)
    each = max(0.0, second - first) / (more - few)
    return Line(max(0.0, second - each * more), each)


class _Probe:
    """Steps and evaluations of a run with as many targets or test images as asked for."""

    def __init__(self, config: ConfigDict, dataset: Dataset, kernel: Kernel, mesh: Mesh):
        self._config, self._kernel, self._mesh = config, kernel, mesh
        # Time does not depend on the pixels: whitening, which takes its own, is left out.
        rows = np.unique(np.linspace(0, len(dataset.train_labels) - 1, _IMAGES).astype(int))
        images, labels = dataset.train_images[rows], dataset.train_labels[rows]
        fitted = preprocess.fit("standard", images)
        self._targets = data.Targets(preprocess.apply(fitted, images), labels, dataset.num_classes)
        self._key = jax.random.key(config.seed)

    def step(self, count: int) -> float:
        """Seconds of a step with `count` targets."""
        config = self._config.copy_and_resolve_references()
        config.batch_size = count
        targets = self._repeated(count)
        support = tasks.init_support(config, targets, self._key)
        task = tasks.make_task(config, targets, support, self._kernel, self._mesh, self._key)
        state = task.start()

        def some(steps: int) -> None:
            """As a run takes them: the next one is made ready while one is computed."""
            nonlocal state
            for number in range(1, steps + 1):
                # Label Solve has but one tile here.
                state, _ = task.step(state, 1 if config.algorithm == "ls" else number)
            jax.block_until_ready(state)

        some(1)  # It compiles.
        once = _seconds(lambda: some(1))
        steps = max(1, min(10, int(_PROBE_SECONDS / 4 / once)))
        return _seconds(lambda: some(steps)) / steps if steps > 1 else once

    def evaluation(self, count: int) -> float:
        """Seconds of an evaluation on `count` images."""
        targets = self._repeated(count)
        images, labels = tasks.init_support(self._config, targets, self._key)
        measure = evaluate.make_evaluate(
            self._kernel,
            targets.images[:count],
            targets.labels[:count],
            reg=self._config.reg,
            batch_size=self._config.eval.batch_size,
            mesh=self._mesh,
        )
        measure(images, labels)  # It compiles.
        return _seconds(lambda: measure(images, labels))

    def _repeated(self, count: int) -> data.Targets:
        """The targets, again and again if that is needed to have `count` of them."""
        targets = self._targets
        times = -(-max(count, self._config.support.size) // len(targets.labels))
        return data.Targets(
            np.concatenate([targets.images] * times),
            np.concatenate([targets.labels] * times),
            targets.num_classes,
        )


def _seconds(call: Callable[[], object]) -> float:
    """Median of three calls, or of fewer where one takes long."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < _PROBE_SECONDS:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _words(config: ConfigDict, dataset: Dataset, mesh: Mesh, plan: Plan) -> str:
    spec = architectures.build(config.kernel.architecture, config.kernel.depth)
    cost = plan_arithmetic.cost(
        spec, dataset.image_shape, plan.support, plan.targets, config.algorithm != "ls"
    )
    devices = mesh.shape["data"] * mesh.shape["support"]
    directions = config.newton.iterations if config.algorithm == "kip_newton" else 0
    memory = plan_arithmetic.memory(spec, dataset, plan.support, plan.targets, devices, directions)
    one_step, one_test = plan.step.at(plan.targets), plan.evaluation.at(plan.evaluated)
    tested = f"{plan.tests} test images"
    if plan.labelled:
        tested += f", labels solved for {plan.labelled} targets"
    lines = [
        f"plan of {config.algorithm} on {dataset.name}, {hardware.hardware()}, "
        f"kernel {kernels.resolve(config.kernel.implementation)}",
        f"  pairs      {count(cost.pairs)} a step; "
        f"{count(cost.flops_per_pair)}flop each, with the gradient where there is one",
        f"  step       {_time(one_step)}, {_time(plan.step.fixed)} of them whatever the targets",
        f"  evaluation {_time(one_test)} on {tested}, {plan.evaluations} times",
        f"  run        {plan.steps} steps: {_time(plan.seconds)}, and compiling at the start",
        f"  memory     {count(memory.host)}B of data on the host, "
        f"{count(memory.device)}B on each of {devices} devices",
        *plan_arithmetic.warnings(memory),
        "estimates, by arithmetic from the above; nothing of it was run:",
    ]
    for more in (2, 8, 64):
        lines.append(f"  {more:3d} times these devices: {_time(plan.seconds_on(more))}")
    for name, seconds in plan_arithmetic.at_peak(cost.pairs * cost.flops_per_pair):
        whole = _time(plan.steps * seconds)
        lines.append(
            f"  {name} at its float32 peak, never reached: {_time(seconds)} a step, {whole}"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{seconds:.3g} s"
