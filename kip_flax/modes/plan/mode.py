"""`--mode=plan`: what a run will take, from a short probe of its own steps; nothing is written.

The probe takes real steps of the configuration with few targets and with more, and a straight line
through both gives the time of a whole step: fixed part (the support with itself, the solve) plus
targets. Figures for other devices are arithmetic on that, and labelled as estimates.
"""

from dataclasses import dataclass

from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import algorithms, architectures, data, kernels
from kip_flax import config as config_lib
from kip_flax.data import Dataset
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.plan import arithmetic, probe
from kip_flax.modes.plan.probe import LinearTime
from kip_flax.runs import setup
from kip_flax.runtime import hardware, sharding, signals
from kip_flax.runtime.console import Console, count, duration
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Watch


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        steps, evaluations: how many the run has.
        targets: of a step.
        tests, labelled: images of an evaluation, for testing and for solving for the labels.
        support: images S.
        step: time of a step, by its targets.
        evaluation: time of an evaluation, by its images (`evaluated`).
        networks: seconds of all networks that evaluations train; more devices are no help to few.
    """

    steps: int
    evaluations: int
    targets: int
    tests: int
    labelled: int
    support: int
    step: LinearTime
    evaluation: LinearTime
    networks: float = 0.0

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
        step = self.step.at(self.targets / devices)
        evaluation = self.evaluation.at(self.evaluated / devices)
        return self.steps * step + self.evaluations * evaluation + self.networks


def plan_run(config: ConfigDict, console: Console | None = None) -> Forecast:
    """Measures a probe of the run that `config` describes, and prints what the run will take.

    Raises:
        UserError: data or devices do not fit the configuration.
    """
    if not algorithms.facts(config.algorithm).uses_kernel:
        raise UserError(
            f"--mode=plan counts kernel entries, which {config.algorithm} has none of: take a few "
            f"steps instead, such as --config.num_steps=5, and multiply."
        )
    console = console or Console()
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    dataset = setup.load(config)
    config_lib.check_data(config, dataset)
    setup.start_of(config, dataset)
    kernel = shard_kernel(setup.make_kernel(config, console), mesh)
    train_size = len(dataset.train_labels)
    targets = min(config.batch_size, train_size)
    tests = len(data.test_subset(dataset, config.eval.num_test)[1])
    labelled = setup.label_targets(config, train_size)
    total = setup.total_steps(config, train_size)
    evaluations = len(setup.marks(config, total) | {0})
    probed = probe.Probe(config, dataset, kernel, mesh)
    with signals.stop_signals() as stopping:
        before_end, at_end = probed.networks(Watch(stopping, console))
    found = Forecast(
        steps=total,
        evaluations=evaluations,
        targets=targets,
        tests=tests,
        labelled=labelled,
        support=config.support.size,
        step=probe.fit(probed.step, targets),
        evaluation=probe.fit(probed.evaluation, tests + labelled),
        networks=(evaluations - 1) * before_end + at_end,
    )
    console.outcome(_words(config, dataset, mesh, found))
    return found


def _words(config: ConfigDict, dataset: Dataset, mesh: Mesh, found: Forecast) -> str:
    spec = architectures.build(config.kernel.architecture, config.kernel.depth)
    differentiates = algorithms.facts(config.algorithm).differentiates
    shape, kept = dataset.image_shape, algorithms.kept_gradients(config)
    sizes = found.support, found.targets
    cost = arithmetic.cost(spec, shape, *sizes, differentiates, kept.images)
    devices = mesh.shape["data"] * mesh.shape["support"]
    memory = arithmetic.memory(spec, dataset, *sizes, devices, kept)
    one_step, one_test = found.step.at(found.targets), found.evaluation.at(found.evaluated)
    tested = f"{found.tests} test images"
    if found.labelled:
        tested += f", labels solved for {found.labelled} targets"
    lines = [
        f"plan of {config.algorithm} on {dataset.name}, {hardware.hardware()}, "
        f"kernel {kernels.resolve(config.kernel.implementation)}",
        f"  pairs      {count(cost.pairs)} a step; "
        f"{count(cost.flops_per_pair)}flop each, with the gradient where there is one",
        f"  step       {_time(one_step)}, {_time(found.step.fixed)} of them whatever the targets",
        f"  evaluation {_time(one_test)} on {tested}, {found.evaluations} times",
        *_of_networks(config, found),
        f"  run        {found.steps} steps: {_time(found.seconds)}, and compiling at the start",
        f"  memory     {count(memory.host)}B of data on the host, "
        f"{count(memory.device)}B on each of {devices} devices",
        *arithmetic.warnings(memory),
        "estimates, by arithmetic from the above; nothing of it was run:",
    ]
    for more in (2, 8, 64):
        lines.append(f"  {more:3d} times these devices: {_time(found.seconds_on(more))}")
    for name, seconds in arithmetic.at_peak(cost.pairs * cost.flops_per_pair):
        whole = _time(found.steps * seconds)
        lines.append(
            f"  {name} at its float32 peak, never reached: {_time(seconds)} a step, {whole}"
        )
    return "\n".join(lines)


def _of_networks(config: ConfigDict, found: Forecast) -> list[str]:
    if not config.eval.networks:
        return []
    names = ", ".join(config.eval.networks)
    return [f"  networks   {_time(found.networks)} for all trainings of {names} on the set"]


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{seconds:.3g} s"
