"""Programs as an accelerator would get them, exported on a machine that has none.

While `exporting` a platform, whatever the program compiles by `jax.jit` is exported in the place of
running, and answers zeros.
"""

import contextlib
import functools
import math
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import export

_TENSOR = re.compile(r"tensor<((?:\d+x)*)([a-z]+\d+)(?:E\w+)?>")
_COLLECTIVE = re.compile(
    r'"?stablehlo\.(all_gather|all_reduce|all_to_all|reduce_scatter|collective_permute)"?'
)


@dataclass(frozen=True)
class Program:
    """One exported program: the name of its function, and what `jax.export` made of it."""

    name: str
    exported: export.Exported

    @property
    def devices(self):
        """The number of devices that it runs on."""
        return self.exported.nr_devices

    @functools.cached_property
    def text(self):
        """Its StableHLO."""
        return self.exported.mlir_module()

    def operations(self, *names):
        """The lines of the operations `names`."""
        return [line for line in self.text.splitlines() if any(n in line for n in names)]

    def largest_tensor(self):
        """Bytes of the largest array that the text names: an argument, a result, or between."""
        return max(_bytes(*found) for found in set(_TENSOR.findall(self.text)))

    def collectives(self):
        """(operation, bytes of its result) of what a `shard_map` exchanges."""
        found, opened = [], None
        for line in self.text.splitlines():
            if match := _COLLECTIVE.search(line):
                opened = match[1]
            if opened and "->" in line and "tensor<" in line.split("->")[-1]:
                # A reduction prints its type where its region ends.
                tensors = _TENSOR.findall(line.split("->")[-1])
                found.append((opened, sum(_bytes(*tensor) for tensor in tensors)))
                opened = None
        return found


def _bytes(sizes, kind):
    bits = 8 if kind == "i1" else int(re.sub(r"\D", "", kind))
    return bits // 8 * math.prod(int(size) for size in sizes.split("x") if size)


@contextlib.contextmanager
def exporting(patch, platform):
    """Yields the list of programs, to which every call of a compiled function adds one."""
    programs = []
    real_jit = jax.jit

    def jit(function, **options):
        options.pop("donate_argnums", None)
        compiled = real_jit(function, **options)

        @functools.wraps(function)
        def run(*args, **kwargs):
            leaves = jax.tree.leaves((args, kwargs))
            if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                return compiled(*args, **kwargs)
            exported = export.export(compiled, platforms=[platform])(*args, **kwargs)
            name = getattr(function, "__qualname__", str(function))
            programs.append(Program(name, exported))
            out = [_zeros(aval) for aval in exported.out_avals]
            return jax.tree.unflatten(exported.out_tree, out)

        return run

    with patch.context() as within:
        within.setattr(jax, "jit", jit)
        within.setattr(jax, "default_backend", lambda: platform)
        yield programs


def _zeros(aval):
    if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), aval.shape) if aval.shape else jax.random.key(0)
    return jnp.zeros(aval.shape, aval.dtype)
