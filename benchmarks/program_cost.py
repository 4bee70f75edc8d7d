"""Bytes and operations of a pair in the program that XLA compiles for 'xla', loops in full.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs. Bytes
are what the passes read and write: a fusion's operands and result, of a slice the slice. On a
device whose cache holds a tile's planes less goes to memory. Nearly equal images are left out.
--device: whose layout the fixed side has.

Run: python -m benchmarks.program_cost [--architecture=convnet --depth=3 --size=32 --channels=3]
"""

import argparse
import collections
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import hlo
from kip_flax import architectures, kernels
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.xla import layout
from kip_flax.kernels.xla.kernel import make_tile_kernel

_CALLED = re.compile(r"(?:calls|to_apply|body)=%([\w.-]+)|branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("partition-id", "replica-id", "opt-barrier"),
)
_MOVES = (
    *("copy", "broadcast", "reshape", "transpose", "slice", "dynamic-slice", "concatenate", "pad"),
    *("dynamic-update-slice", "select", "compare", "convert", "reverse", "gather", "and", "or"),
)
# Bytes and float32 operations per second in the makers' data sheets (operations without tensor
# cores; the sheet of TPU v5e does not give those of its vector unit).
_DEVICES = {"gpu": ("NVIDIA H100 (SXM)", 3.35e12, 67e12), "tpu": ("TPU v5e", 0.819e12, None)}


@dataclass
class Cost:
    """Bytes read and written, arithmetic operations, and the number of passes by kind."""

    size: float = 0.0
    flops: float = 0.0
    passes: collections.Counter[str] = field(default_factory=collections.Counter)

    def add(self, other: "Cost", times: int = 1) -> None:
        """Adds `other`, `times` times."""
        self.size += times * other.size
        self.flops += times * other.flops
        for name, count in other.passes.items():
            self.passes[name] += times * count


def program_cost(text: str) -> Cost:
    """Cost of a whole program from its compiled HLO text."""
    computations, entry = hlo.parse(text)
    return _Counter(computations).of(entry)


class _Counter:
    """Costs of computations; each is counted once and kept."""

    def __init__(self, computations: dict[str, list[hlo.Instruction]]):
        self._computations = computations
        self.of = functools.cache(self._of)

    def _of(self, name: str) -> Cost:
        total = Cost()
        shapes = {line.name: line.shape for line in self._computations[name]}
        for line in self._computations[name]:
            called = list(_called(line.rest))
            if line.op == "while":
                trips = _TRIPS.search(line.rest)
                if trips is None:
                    raise ValueError(f"a loop whose length is not in the program: {line.name}")
                total.add(self.of(called[0]), int(trips[1]))
            elif line.op == "call":
                total.add(self.of(called[0]))
            elif line.op == "conditional":  # The costlier branch; the other is never taken.
                total.add(max(map(self.of, called), key=lambda cost: cost.flops))
            elif line.op == "fusion":
                total.add(self._fusion(line, called[0]))
            elif line.op not in _FREE:
                operands = sum(hlo.size(shapes.get(arg, "")) for arg in line.operands)
                total.add(Cost(operands + hlo.size(line.shape), _flops(line), _one(line.op)))
        return total

    def _fusion(self, line: hlo.Instruction, name: str) -> Cost:
        body = self._computations[name]
        flops = sum(_flops(inner) for inner in body)
        readers = collections.defaultdict(list)
        for inner in body:
            for arg in inner.operands:
                readers[arg].append(inner)
        read = sum(_read(inner, readers[inner.name]) for inner in body if inner.op == "parameter")
        (root,) = (inner for inner in body if inner.root)
        written = {inner.name: inner for inner in body}
        while root.op == "bitcast":
            root = written[root.operands[0]]
        size = hlo.size(line.shape)
        if root.op == "dynamic-update-slice":  # In place: only the slice is written.
            size = hlo.size(written[root.operands[1]].shape)
        kind = "sqrt, arccos" if any(i.op in ("sqrt", "rsqrt") for i in body) else "other"
        return Cost(read + size, flops, _one(kind))


def _read(parameter: hlo.Instruction, readers: list[hlo.Instruction]) -> float:
    """Bytes read of a fusion's operand: only the slices, if all its readers are slices."""
    sliced = ("dynamic-slice", "dynamic-update-slice")
    if all(reader.op in sliced and reader.operands[0] == parameter.name for reader in readers):
        return sum(hlo.size(reader.shape) for reader in readers if reader.op == "dynamic-slice")
    return hlo.size(parameter.shape)


def _called(rest: str) -> Iterator[str]:
    for one, several in _CALLED.findall(rest):
        yield from [one] if one else re.findall(r"%([\w.-]+)", several)


def _flops(line: hlo.Instruction) -> float:
    if line.op in (*_FREE, *_MOVES, "fusion", "call", "while", "conditional"):
        return 0.0
    if not re.match(r"\(?(f|bf)\d+", line.shape):
        return 0.0  # Indices and masks.
    return float(next(hlo.arrays(line.shape)).elements)


def _one(kind: str) -> collections.Counter[str]:
    return collections.Counter({kind: 1})


def main() -> None:
    """Prints the cost of a pair, forward and with gradient, and its bounds on accelerators."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", default="convnet")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=32, help="targets of the one tile")
    parser.add_argument("--device", default="tpu", choices=_DEVICES, help="CPUs have that of TPUs")
    args = parser.parse_args()
    image = (args.size, args.size, args.channels)
    options = kernels.KernelOptions(architectures.build(args.architecture, args.depth))
    kernel = make_tile_kernel(make_plan(options, image), "ntk")
    support = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    targets = jax.ShapeDtypeStruct((args.lanes, *image), jnp.float32)

    def total(x1: jax.Array, x2: jax.Array) -> jax.Array:
        return kernel(x1, x2).sum()

    for name, function in (("forward", kernel), ("gradient", jax.value_and_grad(total))):
        with mock.patch.object(layout, "repeats_lanes", return_value=args.device != "gpu"):
            compiled = jax.jit(function).lower(support, targets).compile()
        _print_cost(name, compiled.as_text() or "", args.lanes, args.device)


def _print_cost(name: str, text: str, lanes: int, device: str) -> None:
    cost = program_cost(text)
    size, flops = cost.size / lanes, cost.flops / lanes
    print(f"{name}: {size / 2**20:.2f} MiB and {flops / 1e6:.1f} M operations a pair")
    print(f"  passes of a tile: {dict(cost.passes)}")
    title, bandwidth, peak = _DEVICES[device]
    bound: list[Any] = [f"{1e6 * size / bandwidth:.2f} us by memory"]
    bound += [f"{1e6 * flops / peak:.2f} us by arithmetic"] if peak else []
    print(f"  {title}: {', '.join(bound)}")


if __name__ == "__main__":
    main()
