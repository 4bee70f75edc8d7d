"""Which collectives a compiled step runs between devices, and how many bytes they carry.

Read from the HLO text that XLA compiled, so for the devices at hand: virtual ones will do.

Run: python -m benchmarks.collectives --data=4 --targets=400,4000
"""

import argparse
import functools
import math
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from benchmarks import hlo
from kip_flax import architectures, kernels
from kip_flax.algorithms import base, kip, ls
from kip_flax.kernels import jacobian
from kip_flax.kernels.sharded import shard_jacobian, shard_kernel
from kip_flax.krr import gauss_newton, residuals
from kip_flax.runs import evaluate
from kip_flax.runtime import sharding

_OPS = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
_LINE = re.compile(rf"= (?P<shape>.*?) (?P<op>{_OPS})(?P<start>-start)?\(")
# replica_groups as {{0,1},{2,3}}, as [groups,size]<=[devices], or as axes of a mesh.
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_IOTA = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_AXES = re.compile(r"replica_groups=mesh\[(?P<mesh>[^]]*)\][^{]*\{(?P<taken>[^}]*)\}")


@dataclass(frozen=True, order=True)
class Collective:
    """One exchange of a compiled program.

    Attributes:
        op: such as 'all-reduce'.
        size: bytes of its result on one device.
        devices: how many exchange with one another.
        looped: whether it may run more than once: it is not in the program's entry.
    """

    op: str
    size: int
    devices: int
    looped: bool


def collectives(text: str) -> list[Collective]:
    """All exchanges between two or more devices in the HLO text of a compiled program."""
    found, entry = [], False
    for line in text.splitlines():
        if line.endswith("{"):
            entry = line.startswith("ENTRY")
        if not (match := _LINE.search(line)):
            continue
        devices = _devices(line)
        if devices > 1:
            found.append(Collective(match["op"], _result_bytes(match), devices, not entry))
    return found


def _result_bytes(match: re.Match) -> int:
    """Bytes of the result. A start names its operands before it, but for that of an all-reduce."""
    if not match["start"] or match["op"] == "all-reduce":
        return hlo.size(match["shape"])
    arrays = [array for array in hlo.arrays(match["shape"]) if array.elements > 1 or array.layout]
    return sum(array.bytes for array in arrays[len(arrays) // 2 :])


def _devices(line: str) -> int:
    if match := _LISTED.search(line):
        return match[1].count(",") + 1
    if match := _IOTA.search(line):
        return int(match[1])
    if match := _AXES.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match["mesh"]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", match["taken"]))
    return 2  # collective-permute names pairs.


@dataclass(frozen=True)
class Sizes:
    """Sizes of a step: network, image (height, width, channels), support images, classes."""

    spec: architectures.Spec
    image: tuple[int, int, int]
    support: int
    classes: int

    def arrays(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Random images (count, height, width, channels) and labels (count, classes)."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal((count, *self.image), np.float32)
        labels = rng.standard_normal((count, self.classes), np.float32)
        return jnp.asarray(images), jnp.asarray(labels)


def kip_step(sizes: Sizes, mesh: Mesh, targets: int) -> str:
    """HLO text of the KIP step, labels learned, as a run compiles it."""
    kernel, tx = _kernel(sizes, mesh), optax.adam(0.01)
    state = jax.tree.map(np.array, kip.first_state(*sizes.arrays(sizes.support), tx, True))
    loss = functools.partial(kip.kip_loss, kernel=kernel, reg=1e-6)
    step = base.pinned(kip.make_update(loss, tx), mesh)
    put = _targets(sizes, mesh, targets)
    return _text(step.lower(sharding.replicate(mesh, state), *put))


def gauss_newton_step(sizes: Sizes, mesh: Mesh, targets: int) -> str:
    """HLO text of the Gauss-Newton step, labels solved for."""
    options = kernels.KernelOptions(sizes.spec)
    of_pairs = shard_jacobian(jacobian.make_jacobian(options), mesh)
    of_batch = residuals.with_solved_labels(_kernel(sizes, mesh), of_pairs, 1e-6)
    state = jax.tree.map(np.array, gauss_newton.init(*sizes.arrays(sizes.support), 0.1))
    step = base.pinned(gauss_newton.make_step(of_batch, 100, jax.random.key(0)), mesh)
    return _text(step.lower(sharding.replicate(mesh, state), *_targets(sizes, mesh, targets)))


def label_solve_step(sizes: Sizes, mesh: Mesh, targets: int) -> str:
    """HLO text of a tile of Label Solve."""
    state = jax.tree.map(np.array, ls.first_state(*sizes.arrays(sizes.support)))
    step = base.pinned(ls.make_update(_kernel(sizes, mesh)), mesh)
    put = _targets(sizes, mesh, targets)
    return _text(step.lower(sharding.replicate(mesh, state), *put))


def evaluation(sizes: Sizes, mesh: Mesh, targets: int) -> str:
    """HLO text of the evaluation of a batch of test images."""
    images, labels = sharding.replicate(mesh, sizes.arrays(sizes.support))
    x = _targets(sizes, mesh, targets)[0]
    y = sharding.put_targets(mesh, np.zeros(targets, np.int32), np.zeros(targets, np.int32))[0]
    measure = evaluate.make_measure(_kernel(sizes, mesh))
    return _text(measure.lower(images, labels.astype(float), x, y, targets))


STEPS = {
    "KIP step": kip_step,
    "Gauss-Newton step": gauss_newton_step,
    "Label Solve": label_solve_step,
    "evaluation": evaluation,
}


def _text(lowered: jax.stages.Lowered) -> str:
    text = lowered.compile().as_text()
    if text is None:
        raise RuntimeError(f"{jax.default_backend()} does not show what it compiled")
    return text


def _targets(sizes: Sizes, mesh: Mesh, count: int) -> tuple[jax.Array, ...]:
    images, labels = map(np.asarray, sizes.arrays(count))
    return sharding.put_targets(mesh, images, labels)


def _kernel(sizes: Sizes, mesh: Mesh) -> kernels.Kernel:
    return shard_kernel(kernels.make_kernel(sizes.spec), mesh)


def main() -> None:
    """Prints a table: one row a program and a number of targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=int, default=4, help="devices that share the targets")
    parser.add_argument("--support", type=int, default=1, help="devices that share the support")
    parser.add_argument("--targets", default="400,4000", help="targets of a step")
    parser.add_argument("--size", type=int, default=32, help="height and width of images")
    parser.add_argument("--images", type=int, default=10, help="support images")
    options = parser.parse_args()
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", options.data * options.support)
    jax.config.update("jax_enable_x64", True)
    mesh = sharding.make_mesh(options.data, options.support)
    image = (options.size, options.size, 3)
    sizes = Sizes(architectures.convnet(3), image, options.images, 10)
    print("| | targets | collectives | bytes |\n|---|---|---|---|")
    for name, program in STEPS.items():
        for targets in map(int, options.targets.split(",")):
            found = collectives(program(sizes, mesh, targets))
            described = ", ".join(
                f"{c.op} {c.size:,}{' (looped)' if c.looped else ''}" for c in sorted(found)
            )
            print(f"| {name} | {targets} | {described} | {sum(c.size for c in found):,} |")


if __name__ == "__main__":
    main()
