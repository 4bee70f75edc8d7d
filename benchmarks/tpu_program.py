"""A tile of the kernel as the TPU's own compiler makes it, on a machine without a TPU.

    python -m benchmarks.tpu_program [--topology=v5e:2x2] [--lanes=128,256,1024] [--json=FILE]

The package libtpu compiles for TPUs that are not there. Printed for a pair of images, forward and
with gradient: the cycles that the compiler expects, and the bytes that pass between the device's
memory and the core. What stays in the core's vector memory is free. Nothing is run. It needs
`pip install 'libtpu==0.0.42.*'` (what `jax[tpu]` names), 213 MB.
"""

import argparse
import functools
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import hlo
from kip_flax import architectures, kernels
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.xla import tiles
from kip_flax.kernels.xla.kernel import make_tile_kernel
from kip_flax.runtime import files

_CALLED = re.compile(r"(?:body|to_apply)=%([\w.-]+)")
_CONDITION = re.compile(r"condition=%([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NO_TRAFFIC = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("copy-done", "while", "call"),
)


@dataclass(frozen=True)
class Cost:
    """Cycles that the compiler expects, and bytes to and from the device's memory."""

    cycles: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.cycles + other.cycles, self.bytes + other.bytes)

    def times(self, count: float) -> "Cost":
        """This, `count` times."""
        return Cost(count * self.cycles, count * self.bytes)


def program_cost(text: str) -> Cost:
    """The cost of a program from the text that the TPU's compiler gives, loops in full."""
    computations, entry = hlo.parse(text)

    @functools.cache
    def of(name: str) -> Cost:
        lines = computations[name]
        shapes = {line.name: line.shape for line in lines}
        total = Cost(0, 0)
        for line in lines:
            cycles = _CYCLES.search(line.rest)
            total += Cost(float(cycles[1]) if cycles else 0, _traffic(line, shapes))
            if called := _CALLED.search(line.rest) if line.op in ("while", "call") else None:
                total += of(called[1]).times(_trips(line, computations))
        return total

    return of(entry)


def _trips(line: hlo.Instruction, computations: dict[str, list[hlo.Instruction]]) -> int:
    """How often a loop runs: it counts from 0 up to a constant. 1 if the line is not a loop."""
    condition = _CONDITION.search(line.rest)
    if condition is None:
        return 1
    *others, root = computations[condition[1]]
    limits = [one.args for one in others if one.op == "constant"]
    if root.op != "compare" or "direction=LT" not in root.rest or len(limits) != 1:
        raise ValueError(f"a loop whose length is not in the program: {line.name}")
    return int(limits[0])


def _traffic(line: hlo.Instruction, shapes: dict[str, str]) -> int:
    """Bytes of an instruction's result and operands that lie in the device's memory."""
    if line.op in _NO_TRAFFIC:
        return 0
    if line.op == "copy-start":  # Its result names both its ends.
        return _bytes_outside(line.shape)
    read = sum(_bytes_outside(shapes.get(name, "")) for name in line.operands)
    return _bytes_outside(line.shape) + read


def _bytes_outside(shape: str) -> int:
    """Bytes of the arrays of a shape that are not in the core's own memory, S(1)."""
    return sum(array.bytes for array in hlo.arrays(shape) if "S(" not in array.layout)


def tpu_mesh(topology: str, devices: int = 1) -> Mesh:
    """A mesh of `devices` TPUs that are not there, with the axes of a run.

    Args:
        topology: a kind and its arrangement, such as 'v5e:2x2'.
        devices: how many of them.

    Raises:
        ImportError: libtpu is not installed.
    """
    import libtpu  # noqa: F401

    # There is no TPU to ask, and none that processes would have to share.
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        os.environ.setdefault(name, "1")
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return Mesh(np.array(found[:devices]).reshape(devices, 1), ("data", "support"))


def compiled_tile(
    mesh: Mesh, image: tuple[int, int, int], spec: architectures.Spec, lanes: int, gradient: bool
) -> Any:
    """One support image against `lanes` targets, compiled for the TPU of `mesh`."""
    own = NamedSharding(mesh, PartitionSpec())
    with (
        mock.patch.object(jax, "default_backend", return_value="tpu"),
        mock.patch.object(tiles, "lanes_for", lambda plan, images, memory=1: min(lanes, images)),
        jax.enable_x64(False),
    ):
        kernel = make_tile_kernel(make_plan(kernels.KernelOptions(spec), image), "ntk")
        of_sum = jax.value_and_grad(lambda x1, x2: kernel(x1, x2).sum())
        function: Callable[..., Any] = of_sum if gradient else kernel
        x1, x2 = (
            jax.ShapeDtypeStruct((count, *image), jnp.float32, sharding=own) for count in (1, lanes)
        )
        return jax.jit(function, out_shardings=own).lower(x1, x2).compile()


def main() -> None:
    """Prints the cost of a pair for each number of lanes."""
    args = _arguments()
    mesh = tpu_mesh(args.topology)
    image = (args.size, args.size, args.channels)
    spec = architectures.build(args.architecture, args.depth)
    rows = []
    print(f"{mesh.devices.flat[0].device_kind}: a pair, by its compiler")
    for lanes in (int(number) for number in args.lanes.split(",")):
        for gradient in (False, True):
            compiled = compiled_tile(mesh, image, spec, lanes, gradient)
            cost = program_cost(compiled.as_text()).times(1 / lanes)
            temporary = compiled.memory_analysis().temp_size_in_bytes
            rows.append({"lanes": lanes, "gradient": gradient, "temporary": temporary})
            rows[-1] |= asdict(cost)
            print(
                f"{lanes:5} lanes, {'with gradient' if gradient else 'forward':13}: "
                f"{cost.cycles:6.0f} cycles, {cost.bytes / 2**20:5.2f} MiB; "
                f"{temporary / 2**20:.0f} MiB in the device's memory"
            )
    if args.json:
        files.write_json(args.json, vars(args) | {"pairs": rows})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e:2x2", help="v4:2x2x1, v5p:2x2x1, v6e:2x2, ...")
    parser.add_argument("--lanes", default="128,256,1024", help="targets of a tile")
    parser.add_argument("--architecture", default="convnet")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--json", default="", help="file to write all figures to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
