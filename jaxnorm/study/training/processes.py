"""The processes that train together. Only this file asks JAX which there are."""

import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxnorm.errors import UserError, one_line

HEARTBEAT_SECONDS = 30
"""A process that is silent for so long counts as dead, and the others end."""


def num_processes() -> int:
    """Number of processes that train together.

    Returns:
        1 without `initialize_processes`.
    """
    return jax.process_count()


def process_index() -> int:
    """Place of this process among those that train together.

    Returns:
        A number from 0.
    """
    return jax.process_index()


def is_first() -> bool:
    """Whether this process writes files and messages; all others only compute.

    Returns:
        True in the first process.
    """
    return process_index() == 0


def is_distributed() -> bool:
    """Whether `initialize_processes` has connected this process to others. Does not start any device.

    Returns:
        True if it has.
    """
    return bool(jax.distributed.is_initialized())


def initialize_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process to the others that train with it; does nothing where there is only one.

    Call it before anything else in JAX. Slurm, Open MPI and TPU pods on Kubernetes need no arguments.

    Args:
        coordinator: HOST:PORT of the first process; "auto" lets JAX look for any launcher that it knows; None takes
            one of the three above, if there is one.
        num_processes: how many there are; None asks the launcher.
        process_id: place of this one, from 0; None asks the launcher.

    Raises:
        UserError: if the others cannot be reached.
    """
    if coordinator is None and not _is_launched_with_others():
        return
    coordinator = None if coordinator == "auto" else coordinator
    # Programs dispatched together on CPU may run in any order, but collectives need one order in all processes.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM and stop nothing
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=60,
        )
    except (RuntimeError, ValueError) as error:
        text = one_line(error, 200)
        raise UserError(
            f"the processes must find each other, but {coordinator or 'the launcher'} gives: {text}; check "
            "--coordinator, --num-processes and --process-id of each"
        ) from error


def any_of(flag: bool) -> bool:
    """Whether something is true in any process; all processes must call it at the same point.

    Args:
        flag: whether it is true here.

    Returns:
        The same value in every process.
    """
    if num_processes() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def broadcast(tree: Any) -> Any:
    """The arrays of the first process's `tree` in every process, as NumPy arrays; all processes must call it.

    Args:
        tree: arrays; in the other processes, arrays of the same shapes and dtypes.

    Returns:
        The first process's arrays; with one process, `tree` itself.
    """
    return tree if num_processes() == 1 else multihost_utils.broadcast_one_to_all(tree)


def barrier(name: str) -> bool:
    """Waits until every process has reached the same call.

    The wait ends after `HEARTBEAT_SECONDS`: a process that waits for a collective of the others never arrives.

    Args:
        name: used once in the life of the processes.

    Returns:
        Whether all arrived in time.
    """
    try:
        ocp.multihost.get_barrier_sync_fn()(key=name, timeout_ms=1000 * HEARTBEAT_SECONDS)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _is_launched_with_others() -> bool:
    """Whether a launcher that JAX knows has started this process as one of several."""
    sizes = (os.environ.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return any(size.isdigit() and int(size) > 1 for size in sizes) or "," in hosts
