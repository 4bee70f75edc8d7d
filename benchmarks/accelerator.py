"""The first thing to run on a new accelerator: is the kernel right there, and what does it cost.

    python -m benchmarks.accelerator [--json=FILE] [--size=32] [--targets=1000] [--xla]

Five parts, each printed as soon as it is known: the devices; errors of kernel and gradient against
neural_tangents in float64 on the host's CPU; milliseconds a pair and the memory of a kernel's
program; a step of KIP, FRePo and BPTT; what devices exchange in a KIP step. Exits with 1 where an
error is larger than it may be. --xla takes the accelerator's kernel on a CPU too, to try this out.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import collectives
from benchmarks.stepping import stepper
from benchmarks.turns import medians
from configs import default
from kip_flax import architectures, kernels
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runtime import files, hardware, sharding

SPEC = architectures.convnet(3)
VALUE, GRADIENT = 1e-5, 1e-3  # Largest relative errors allowed.
STEPS = ("kip", "frepo", "bptt")


def main() -> int:
    """Measures and prints everything; 1 if the kernel is wrong on this machine."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")
    implementation = "xla" if args.xla else kernels.resolve("auto")
    found: dict[str, Any] = {"hardware": hardware.hardware(), "versions": hardware.versions()}
    found |= {"implementation": implementation, "size": args.size, "targets": args.targets}
    print(f"{found['hardware']}, jax {jax.__version__}, kernel '{implementation}'")
    parts: dict[str, Callable[[], Any]] = {
        "errors": lambda: errors(implementation),
        "pairs": lambda: pairs(implementation, args.size, args.targets),
        "steps": lambda: steps(implementation, args.size, args.targets),
        "collectives": lambda: exchanges(args.size, args.targets),
    }
    for name, part in parts.items():
        found[name] = part()
        if args.json:
            files.write_json(args.json, found)
    wrong = [kind for kind, row in found["errors"].items() if not row["right"]]
    print(f"wrong: {', '.join(wrong)}" if wrong else "the kernel is right on this machine")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="", help="file to write all figures to")
    parser.add_argument("--size", type=int, default=32, help="height and width of images")
    parser.add_argument("--targets", type=int, default=1000, help="images of a step")
    parser.add_argument("--xla", action="store_true", help="the accelerator's kernel anywhere")
    return parser.parse_args()


def errors(implementation: str) -> dict[str, dict[str, Any]]:
    """Relative errors of value and gradient on small images, for each kind of pair."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 16, 16, 3), np.float32)
    others = {"ordinary": rng.standard_normal(x.shape, np.float32), "equal": x}
    for scale in (1e-1, 1e-2, 1e-3, 1e-6):
        noise = rng.standard_normal(x.shape)
        others[f"noise of {scale:g}"] = (x + scale * noise).astype(np.float32)
    ours = _value_and_gradient(kernels.make_kernel(SPEC, implementation=implementation))
    theirs = _value_and_gradient(kernels.make_kernel(SPEC, implementation="neural_tangents"))
    rows = {}
    for kind, other in others.items():
        value, gradient = ours(x, other)
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            want, true = theirs(x.astype(float), other.astype(float))
        value_error = abs(float(value) / float(want) - 1)
        gradient_error = _distance(np.asarray(gradient, float), np.asarray(true))
        right = value_error < VALUE and gradient_error < GRADIENT
        rows[kind] = {"value": value_error, "gradient": gradient_error, "right": right}
        print(
            f"pairs, {kind:15s} value off by {value_error:.0e}, gradient by {gradient_error:.0e}"
            f"{'' if right else '   WRONG'}"
        )
    return rows


def _value_and_gradient(kernel: kernels.Kernel) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(lambda x, other: kernel(x, other)[0, 0]))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def pairs(implementation: str, size: int, targets: int) -> dict[str, dict[str, float]]:
    """Milliseconds per pair of ten images and the targets, and MiB that the programs take."""
    rng = np.random.default_rng(0)
    mesh = sharding.make_mesh()
    kernel = shard_kernel(kernels.make_kernel(SPEC, implementation=implementation), mesh)
    shape = (size, size, 3)
    images = rng.standard_normal((targets, *shape), np.float32)
    x_t, _, _ = sharding.put_targets(mesh, images, np.zeros(targets, np.float32))
    x_s = sharding.replicate(mesh, rng.standard_normal((10, *shape), np.float32))
    programs = {
        "forward": jax.jit(lambda s, t: kernel(t, s)),
        "with gradient": jax.jit(jax.value_and_grad(lambda s, t: kernel(t, s).sum())),
    }
    rows = {}
    for name, program in programs.items():
        compiled = program.lower(x_s, x_t).compile()
        seconds = _seconds(functools.partial(compiled, x_s, x_t))
        memory = compiled.memory_analysis()
        rows[name] = {"ms": 1e3 * seconds / (10 * targets)}
        rows[name] |= {"mib": memory.temp_size_in_bytes / 2**20 if memory else float("nan")}
        text = f"{rows[name]['ms']:.4f} ms a pair, {rows[name]['mib']:.0f} MiB"
        print(f"kernel, {name:14s} {text}")
    return rows


def steps(implementation: str, size: int, targets: int) -> dict[str, float]:
    """Seconds of a step with ten images, without compiling, for each of `STEPS`."""
    rows = {}
    for name in STEPS:
        config = default.get_config()
        config.algorithm, config.batch_size, config.num_steps = name, targets, 100
        config.kernel.implementation = implementation
        step = stepper(config, (size, size, 3))
        rows[name] = _seconds(functools.partial(step, 1))
        print(f"step, {name:16s} {rows[name]:.3f} s with 10 images and {targets} targets")
    return rows


def _seconds(run: Callable[[], Any]) -> float:
    """Median seconds of three runs, after one that compiles."""
    return medians({"it": run}, 3)["it"]


def exchanges(size: int, targets: int) -> dict[str, int]:
    """Bytes that devices exchange in a KIP step, with the targets and with four times as many."""
    if jax.device_count() == 1:
        print("one device: nothing is exchanged")
        return {}
    mesh = sharding.make_mesh()
    sizes = collectives.Sizes(SPEC, (size, size, 3), 10, 10)
    rows = {}
    for count in (targets, 4 * targets):
        found = collectives.collectives(collectives.kip_step(sizes, mesh, count))
        rows[str(count)] = sum(one.size for one in found)
        print(f"a KIP step on {count} targets exchanges {rows[str(count)]:,} bytes")
    return rows


if __name__ == "__main__":
    sys.exit(main())
