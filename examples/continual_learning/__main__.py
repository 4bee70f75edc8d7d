"""Class-incremental learning from a memory: real images against distilled ones.

    python -m examples.continual_learning --data=data [--runs=FOLDER] [--dataset=mnist]

The classes of MNIST or CIFAR-10 come two at a time. A step adds a few images of each of its
classes to the memory: drawn, chosen by herding, or distilled by KIP, FRePo or DSA. After every step
learners are trained from scratch on the memory and tested on all classes so far (the protocol of
GDumb, Prabhu et al., ECCV 2020, and of Zhao and Bilen, WACV 2023). What is finished is not run
again, what was stopped goes on. The figures go to RUNS/figures.json, the picture to
RUNS/curves.png. --small takes scikit-learn's digits, which need no data, and two images of each
class.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.arguments import Parser, folder
from examples.continual_learning import learners, results
from examples.continual_learning.memory import Distiller, Memory, real_images
from examples.continual_learning.results import Cell, Cells, Curve
from examples.continual_learning.settings import MEMORIES, REAL, SETTINGS, Setting
from examples.continual_learning.stream import Stream, make_stream
from kip_flax import config as config_lib
from kip_flax import data
from kip_flax.data import Dataset
from kip_flax.networks.trial import Diverged
from kip_flax.runs import setup
from kip_flax.runtime import hardware, sharding, signals
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped, Watch


@dataclass(frozen=True)
class Options:
    """The options of the command.

    Attributes:
        setting: the settings of the data set.
        data, runs: folder of the data set's files; folder of runs and figures.
        memories, learners: names.
        per_class: numbers of images per class.
        orders: number of class orders.
        num_test: test images of each step; 0: all.
        held_out: test on held-out training images.
    """

    setting: Setting
    data: str
    runs: Path
    memories: tuple[str, ...]
    learners: tuple[str, ...]
    per_class: tuple[int, ...]
    orders: int
    num_test: int
    held_out: bool

    def cells(self, order: int) -> list[Cell]:
        """The cells that are measured in a class order."""
        return [
            Cell(memory, size, learner, order)
            for size in self.per_class
            for learner in self.learners
            for memory in self.memories
        ]


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, prints the table, draws the picture; 2 on an error."""
    console = Console()
    try:
        with console, signals.stop_signals() as stopping:
            _run(_options(argv), Watch(stopping, console))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: Options, watch: Watch) -> None:
    setting = options.setting
    dataset = data.load_dataset(setting.dataset, options.data)
    bench = Bench(options, dataset, watch)
    bench.read_kept()
    try:
        for order in range(options.orders):
            bench.measure(order)
    except (KeyboardInterrupt, Stopped):
        watch.console.outcome("stopped and saved: the same command goes on from there")
    found = bench.curves
    if not found:
        return
    watch.console.outcome(results.table(found))
    if gains := results.above(found, "herding"):
        watch.console.outcome(f"\nPoints above herding:\n\n{results.table(gains)}")
    settings = {"on": bench.split, "num_test": options.num_test, "hardware": hardware.hardware()}
    results.write(found, {"dataset": setting.dataset, **settings}, options.runs)


class Bench:
    """Measures cells, and keeps those that are finished.

    Args:
        options: what to measure.
        dataset: with all its classes.
        watch: reports progress, and stops at a signal.
    """

    def __init__(self, options: Options, dataset: Dataset, watch: Watch):
        self.options, self.dataset, self.watch = options, dataset, watch
        self.split = "validation" if options.held_out else "test"
        self._cells = Cells(options.runs / "cells")
        self._distiller = Distiller(
            options.setting, options.data, options.runs / "sets", options.held_out
        )
        self._fingerprint = setup.fingerprint(dataset)
        self._fingerprint_of_tests = setup.fingerprint_of_tests(dataset)
        self._found: dict[Cell, list[float]] = {}
        self._learners: dict[str, learners.Learner] = {}

    @property
    def curves(self) -> list[Curve]:
        """The curves of all measured cells, in the order of the options."""
        wanted = [
            cell for order in range(self.options.orders) for cell in self.options.cells(order)
        ]
        return results.curves({cell: self._found[cell] for cell in wanted if cell in self._found})

    def read_kept(self) -> None:
        """Reads what is finished, so that figures written after a stop have all of it.

        Raises:
            UserError: a cell was measured with other settings, or its file is broken.
        """
        for order in range(self.options.orders):
            for cell in self.options.cells(order):
                kept = self._cells.accuracies(cell, self._deciding(cell))
                if kept is not None:
                    self._found[cell] = kept

    def measure(self, order: int) -> None:
        """Measures the missing cells of a class order.

        Raises:
            KeyboardInterrupt, Stopped: a signal stopped a distillation, or anything else.
            UserError: data and settings do not fit, or networks diverge.
        """
        missing = [cell for cell in self.options.cells(order) if cell not in self._found]
        if not missing:
            return
        options = self.options
        name = options.setting.preprocess
        stream = make_stream(self.dataset, order, name, options.held_out)
        test = stream.test(options.num_test)
        for memory, size in dict.fromkeys((cell.memory, cell.per_class) for cell in missing):
            self.watch.check()
            kept_images = self._memory(memory, stream, size)
            lesson = learners.make_lesson(stream, kept_images, test, self.watch)
            for cell in missing:
                if (cell.memory, cell.per_class) == (memory, size):
                    self._learn(cell, lesson)

    def _memory(self, name: str, stream: Stream, per_class: int) -> Memory:
        if name in REAL:
            named = self.options.setting.herding if name == "herding" else name
            return real_images(named, stream, per_class)
        return self._distiller.memory(name, stream, per_class, self.watch)

    def _learn(self, cell: Cell, lesson: learners.Lesson) -> None:
        began = time.perf_counter()
        if cell.learner not in self._learners:
            self._learners[cell.learner] = learners.LEARNERS[cell.learner](self.options.setting)
        try:
            accuracies = self._learners[cell.learner](lesson)
        except Diverged:
            raise UserError(
                f"networks diverge on the memory {cell.memory!r}: leave it out of --memories, or "
                "take --learners=krr."
            ) from None
        self._cells.keep(cell, self._deciding(cell), accuracies, time.perf_counter() - began)
        self._found[cell] = accuracies
        shown = ", ".join(f"{100 * value:.2f}" for value in accuracies)
        where = f"order {cell.order}, {cell.per_class} per class, {cell.learner}"
        self.watch.say(f"{where}, {cell.memory}: {shown} %")

    def _deciding(self, cell: Cell) -> dict[str, Any]:
        """The settings that a cell's accuracies depend on, besides its name."""
        setting = self.options.setting
        shared = {
            "dataset": setting.dataset,
            "data (checksum)": self._fingerprint,
            "test images (checksum)": self._fingerprint_of_tests,
            "tested on": self.split,
            "num_test": self.options.num_test,
            "preprocess": setting.preprocess,
            "depth": setting.depth,
        }
        if cell.learner == "krr":
            shared["reg"] = setting.reg
        else:
            shared["networks"] = learners.NETWORKS
            shared |= {f"network.{name}": value for name, value in setting.network.items()}
        if cell.memory == "herding":
            shared["herding"] = setting.herding
        if cell.memory in REAL:
            return shared
        method = setting.methods[cell.memory]
        config = method.get_config()
        config.update_from_flattened_dict(method.changes)
        # A run may be made longer and stay the same run; a memory of other steps is another one.
        fields = config_lib.identity(config) | {"num_steps": config.num_steps}
        return shared | {f"{cell.memory}.{name}": value for name, value in fields.items()}


def _options(argv: list[str] | None) -> Options:
    parser = Parser("examples.continual_learning", __doc__)
    parser.add_argument("--data", default="data", help="folder of the data set's files")
    parser.add_argument(
        "--runs", type=folder, help="folder for runs and figures; runs/continual_DATASET"
    )
    parser.add_argument("--dataset", choices=("mnist", "cifar10"), help="mnist by default")
    parser.add_argument("--memories", default=",".join(MEMORIES), help="some of these")
    parser.add_argument("--learners", default=",".join(learners.LEARNERS), help="some of these")
    parser.add_argument("--per-class", help="images of a class in the memory, such as 10,20")
    parser.add_argument("--orders", type=int, help="class orders")
    parser.add_argument("--num-test", type=int, default=0, help="test images of a step; 0: all")
    parser.add_argument("--held-out", action="store_true", help="test on held-out training images")
    parser.add_argument("--small", action="store_true", help="the digits, few images, few steps")
    args = parser.parse_args(argv)
    if args.small and args.dataset:
        raise UserError("--small takes the digits: leave out --dataset.")
    setting = SETTINGS["digits" if args.small else args.dataset or "mnist"]
    orders = setting.orders if args.orders is None else args.orders
    if orders < 1 or args.num_test < 0:
        raise UserError("--orders is at least 1, and --num-test at least 0.")
    return Options(
        setting=setting,
        data="" if args.small else args.data,
        runs=Path(args.runs or f"runs/continual_{setting.dataset}"),
        memories=_names("--memories", args.memories, MEMORIES),
        learners=_names("--learners", args.learners, tuple(learners.LEARNERS)),
        per_class=_numbers("--per-class", args.per_class) or setting.per_class,
        orders=orders,
        num_test=args.num_test,
        held_out=args.held_out,
    )


def _names(option: str, text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    return _listed(option, text, str, lambda name: name in allowed, f"some of {', '.join(allowed)}")


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    return _listed(option, text, int, lambda number: number > 0, "numbers above 0, such as 10,20")


def _listed(
    option: str, text: str, kind: Callable, fits: Callable[[Any], bool], allowed: str
) -> tuple[Any, ...]:
    """Different entries of a comma-separated list; UserError unless all fit."""
    try:
        found = tuple(dict.fromkeys(kind(entry.strip()) for entry in text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(map(fits, found)):
        raise UserError(f"{option} is {text!r}: take {allowed}.")
    return found


if __name__ == "__main__":
    sharding.prepare_cpu_devices()
    sharding.configure_jax()
    sys.exit(main())
