"""The variants as tasks of Ray: the cluster they run on, and their results as they come.

Ray decides which node runs what and when, and starts a task again whose node has died.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from distillation.cluster import node
from distillation.cluster.errors import SweepError
from distillation.cluster.project import Project
from distillation.cluster.variants import Variant

_OBJECT_STORE_BYTES = 100 * 2**20
"""Results are a few words each; Ray would take a third of the memory."""

_CANCEL_SECONDS = 20
"""How long tasks that are called off may take to remove their clones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task reserves on its node, how often it is tried again, and what it gets along."""

    cpus: float
    gpus: float | None
    """None: one where the cluster has any."""
    retries: int
    work_dir: str | None
    environment: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """How a variant ended."""

    variant: Variant
    node: str
    seconds: float
    error: str | None


def import_ray() -> ModuleType:
    """Return Ray.

    Raises:
        SweepError: it is not installed.
    """
    # Read when Ray is imported: nothing is reported to its makers, and no line of a node is held
    # back because another node has printed it too.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
    except ImportError as error:
        raise SweepError(
            "sweep: Ray is not installed; pip install -c requirements-extras.txt ray, or the extra "
            "distillation[cluster]"
        ) from error
    return ray


@contextlib.contextmanager
def cluster(ray: ModuleType, address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine and end it in the end.

    Raises:
        SweepError: there is no such cluster, or it cannot be used.
    """
    if address:
        _check_address(address)
    handler = signal.getsignal(signal.SIGTERM)
    local: dict[str, Any] = {
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    try:
        ray.init(address=address or "local", logging_level="ERROR", **({} if address else local))
    except (ConnectionError, RuntimeError, ValueError) as error:
        first_line, *_ = str(error).splitlines()
        raise SweepError(f"--address {address or 'of this machine'}: {first_line}") from error
    signal.signal(signal.SIGTERM, handler)  # Ray has put its own in its place
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for eight minutes."""
    if parts := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):
        try:
            socket.create_connection((parts[1], int(parts[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise SweepError(
                f"--address {address}: nothing answers there ({error}); must be HOST:PORT of a "
                "running Ray cluster, or auto"
            ) from error


def run_tasks(
    ray: ModuleType, project: Project, variants: Sequence[Variant], resources: Resources
) -> Generator[Result]:
    """Run variants on the cluster; yield their results as they end.

    Whoever stops asking for results calls off what has not ended.
    """
    ray.cloudpickle.register_pickle_by_value(node)  # nodes need no copy of this package
    gpus = resources.gpus
    if gpus is None:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
    wanted = {"CPU": resources.cpus, "GPU": gpus}
    nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    if not any(all(has.get(kind, 0) >= wanted[kind] for kind in wanted) for has in nodes):
        print(
            f"no node has {resources.cpus:g} CPUs and {gpus:g} GPUs: variants wait for one",
            file=sys.stderr,
        )
    task = ray.remote(node.run_variant)
    waiting = {
        task.options(
            name=variant.name,
            num_cpus=resources.cpus,
            num_gpus=gpus,
            max_retries=resources.retries,
            runtime_env={"env_vars": environment_of(resources, gpus)},
        ).remote(
            name=variant.name,
            overrides=variant.overrides,
            url=project.url,
            commit=project.commit,
            folder=project.folder,
            ref=project.ref(variant.name),
            work_dir=resources.work_dir,
        ): variant
        for variant in variants
    }
    try:
        while waiting:
            (ended, *_), _ = ray.wait(list(waiting))
            yield _result(ray, ended, waiting.pop(ended))
    finally:
        for unfinished in waiting:
            ray.cancel(unfinished)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL_SECONDS)


def environment_of(resources: Resources, gpus: float) -> dict[str, str]:
    """Return what keeps a variant to what it reserved, and what the user hands on.

    Its seeds do not train side by side. Ray sets the threads only where the node says none, and
    hides no GPU from what reserved none.
    """
    environment = {
        "DISTILLATION_PROCESSES": "1",
        "OMP_NUM_THREADS": str(max(1, int(resources.cpus))),
    }
    if gpus == 0:
        environment["DISTILLATION_DEVICE"] = "cpu"
    return {**environment, **resources.environment}


def _result(ray: ModuleType, reference: Any, variant: Variant) -> Result:
    try:
        return Result(variant=variant, **ray.get(reference))
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        # Of a traceback the last line tells, of what Ray itself says the first sentence.
        is_bug = isinstance(error, ray.exceptions.RayTaskError)
        words = lines[-1] if is_bug else lines[0].partition(". ")[0]
        return Result(variant=variant, node="", seconds=0, error=words)
