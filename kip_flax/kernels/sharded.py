"""A kernel over a mesh of devices, each of which computes its own rows and columns.

Devices exchange only support-sized arrays and the S x S kernel: the transpose of a replicated input
is one sum of its gradients.
"""

import math

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kip_flax.kernels.jacobian import Jacobian
from kip_flax.kernels.options import Kernel
from kip_flax.kernels.symmetry import symmetric
from kip_flax.runtime.batching import pad_rows


def shard_kernel(kernel: Kernel, mesh: Mesh) -> Kernel:
    """`kernel` computed over the mesh: rows (x1) over 'data', columns (x2) over 'support'.

    Rows and columns are padded to multiples of the mesh, and the padding is cut off again. The
    result is differentiable in x1 and x2.
    """
    rows, columns = mesh.shape["data"], mesh.shape["support"]
    if math.prod(mesh.shape.values()) == 1:
        return kernel
    local = jax.shard_map(
        kernel,
        mesh=mesh,
        in_specs=(P("data"), P("support")),
        out_specs=P("data", "support"),
        check_vma=False,
    )

    def everywhere(x: jax.Array) -> jax.Array:
        # Replicates x and its cotangent. The compiler would otherwise spread small arrays (of the
        # solve and the optimiser) over the devices, at the cost of a dozen exchanges.
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P()))

    def sharded(x1: jax.Array, x2: jax.Array) -> jax.Array:
        if x2 is x1:
            x1 = everywhere(x1)
            return everywhere(symmetric(of_two(x1, jax.lax.stop_gradient(x1))))
        return of_two(x1, x2)

    def of_two(x1: jax.Array, x2: jax.Array) -> jax.Array:
        x2 = everywhere(x2)
        padded = local(pad_rows(x1, rows), pad_rows(x2, columns))
        return padded[: len(x1), : len(x2)]

    return sharded


def shard_jacobian(jacobian: Jacobian, mesh: Mesh) -> Jacobian:
    """`jacobian(x_t, x_s) -> k (T, S), dk (S, T, P)` computed over the mesh.

    Targets are split over 'data' and support images over 'support', padded as in `shard_kernel`.
    """
    rows, columns = mesh.shape["data"], mesh.shape["support"]
    if rows * columns == 1:
        return jacobian
    local = jax.shard_map(
        jacobian,
        mesh=mesh,
        in_specs=(P("data"), P("support")),
        out_specs=(P("data", "support"), P("support", "data")),
        check_vma=False,
    )

    def sharded(x_t: jax.Array, x_s: jax.Array) -> tuple[jax.Array, jax.Array]:
        k, dk = local(pad_rows(x_t, rows), pad_rows(x_s, columns))
        return k[: len(x_t), : len(x_s)], dk[: len(x_s), : len(x_t)]

    return sharded
