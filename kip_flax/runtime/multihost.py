"""Several processes, one run: how they start, agree and end.

Every process runs the same program on its own devices. Collectives share the events that concern
all (a signal, an error of the process that writes), so that all act at the same step. With one
process nothing here has an effect or a cost.
"""

import atexit
import contextlib
import glob
import importlib.util
import os
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kip_flax.runtime.errors import UserError

LOST = 3  # Exit code of a process that cannot go on without the others.
# JAX takes a process that is silent for this long for dead and ends the others. A machine that is
# migrated or very busy can be silent for half a minute.
_HEARTBEAT_SECONDS = 100
# How long the first process to finish waits for the last.
_SHUTDOWN_SECONDS = 60


def start(
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes of the run, if any. Call it before JAX creates a device.

    Args:
        coordinator_address: host:port of process 0, the same for all processes.
        num_processes: how many there are.
        process_id: the number of this process, from 0. All three are None if a launcher that JAX
            knows (SLURM, Open MPI, a TPU pod) sets them, or if this process is the only one.
        environment: variables, among them the launchers'.

    Raises:
        UserError: the three do not fit together, or the others cannot be reached.
    """
    given = (coordinator_address, num_processes, process_id)
    by_hand = any(value is not None for value in given)
    if by_hand:
        _check(*given)
    elif not (launched(environment) or _on_tpu()):
        return
    # For CPU devices of several processes; accelerators have collectives of their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would catch SIGTERM, on which the processes agree in the loop of a run.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *given,
            # A process that is started by hand has all devices of its host.
            cluster_detection_method="deactivate" if by_hand else None,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and not by_hand and not launched(environment):
            return  # A TPU that belongs to no pod.
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"the processes of the run did not find each other ({reason}): check that all of them "
            f"were started and can reach the coordinator."
        ) from error
    atexit.register(jax.distributed.shutdown)  # Waits until all processes end.


def _check(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    given = {
        "--coordinator_address": coordinator_address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if coordinator_address is None or num_processes is None or process_id is None:
        raise UserError(f"{' and '.join(missing)} missing: give {', '.join(given)}, or none.")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id} and --num_processes={num_processes}: processes are "
            f"numbered from 0 to --num_processes - 1."
        )
    if ":" not in coordinator_address:
        raise UserError(
            f"--coordinator_address={coordinator_address} lacks a port: write HOST:PORT."
        )


def launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX detects started several processes.

    Only then is JAX's detection used: under SLURM it gives a lone process one device of several.
    """

    def several(name: str) -> bool:
        return environment.get(name, "1") not in ("", "1")

    return (
        (several("SLURM_NTASKS") and "SLURM_STEP_NODELIST" in environment)
        or (several("OMPI_COMM_WORLD_SIZE") and "OMPI_MCA_orte_hnp_uri" in environment)
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or several("MEGASCALE_NUM_SLICES")
        or "JAX_COORDINATOR_ADDRESS" in environment
    )


def _on_tpu() -> bool:
    devices = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/*")
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def is_first() -> bool:
    """Whether this is the process that writes and prints for all."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether `flag` is true at any process; all call it and wait for one another."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


@contextlib.contextmanager
def raise_everywhere() -> Iterator[None]:
    """Turns an error of one process into an error of all; the body must hold no collectives.

    Raises:
        UserError: at the processes without an error, if another has one.
    """
    done = False
    try:
        yield
        done = True
    finally:
        failed = any_process(not done)
        if done and failed:
            raise UserError("another process of this run met an error: see its message.")


def check_same(what: str, value: bytes) -> None:
    """Raises UserError, at all processes, unless `value` is the same at all of them."""
    if jax.process_count() == 1:
        return
    sums = multihost_utils.process_allgather(np.array([zlib.crc32(value)], np.uint32))
    if len(np.unique(sums)) > 1:
        raise UserError(f"{what} differs between the processes of this run: give all the same.")


def of_first(array: np.ndarray) -> np.ndarray:
    """The first process's `array`, at all processes; all call it."""
    if jax.process_count() == 1:
        return array
    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def agreed(flag: Callable[[], bool]) -> Callable[[], bool]:
    """A function like `flag` that becomes true in the same call at all processes.

    Each call starts an agreement and returns the result of the one before, so that no process
    waits for the step that it has just begun.
    """
    if jax.process_count() == 1:
        return flag
    devices = np.array(jax.devices())
    mesh = Mesh(devices, ("all",))
    spread, whole = NamedSharding(mesh, PartitionSpec("all")), NamedSharding(mesh, PartitionSpec())
    total = jax.jit(jnp.sum, out_shardings=whole)
    pending: list[jax.Array] = []

    def ask() -> bool:
        mine = np.full(1, flag(), np.int32)
        flags = jax.make_array_from_callback(devices.shape, spread, lambda _: mine)
        pending.append(total(flags))
        return len(pending) > 1 and bool(pending.pop(0))

    return ask


@contextlib.contextmanager
def abort_on_error() -> Iterator[None]:
    """Ends this process at once on an error that the other processes do not have.

    A normal exit would wait for the others, which wait for this one or are gone. Files are whole at
    any moment, so nothing is lost. A UserError is raised as usual, because all processes raise it.
    A lone process raises every error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if jax.process_count() == 1:
            raise
        if not isinstance(error, jax.errors.JaxRuntimeError):
            traceback.print_exc()
        reason = " ".join(str(error).split())[:200]
        number, count = jax.process_index(), jax.process_count()
        line = (
            f"error: process {number} of {count} cannot go on ({reason}): see the messages of "
            f"the others; started again, all go on from the last checkpoint."
        )
        print(line, file=sys.stderr, flush=True)
        os._exit(LOST)
