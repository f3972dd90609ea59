"""Run one training in several processes, one per device, by torchrun's launcher.

The process that calls it only waits; its end ends the ranks, and the end of one ends all.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

_GRACE_SECONDS = 2
"""So long may a rank take to end by itself; shorter than the stage gives the calling process."""


def launch_ranks(
    function: Callable[..., None], *arguments: Any, num_ranks: int, start_method: str
) -> None:
    """Call a function in several processes, which `own_rank` tells apart; waits for all of them.

    When a rank ends by a signal or a status, the others are ended, and this process ends likewise;
    after SIGTERM too.

    Args:
        function: a function of a module.
        arguments: what it is given, which can be pickled.
        num_ranks: how many processes.
        start_method: `spawn`; or `fork`, where the calling process has computed nothing.
    """
    # The launcher tells at length what the stage says in a line.
    logging.disable()
    # They meet in a file, in a folder of this user's: what they leave there is unpickled, and into
    # a port anybody could write.
    folder = tempfile.mkdtemp(prefix="distillation-")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=str(Path(folder, "ranks")),
        rdzv_configs={"store_type": "file"},
        local_addr="localhost",
        max_restarts=0,
        start_method=start_method,
        signals_to_handle="SIGTERM",
        **_grace(),
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    try:
        elastic_launch(config, function)(*arguments)
    except SignalException as error:
        status = 128 + error.sigval
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        status = failure.exitcode
    else:
        status = 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if status < 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    if status:
        os._exit(status)


def _grace() -> dict[str, Any]:
    """Return the launcher's argument for the grace; torch before 2.12 has none, and waits 30 s."""
    names = {field.name for field in dataclasses.fields(LaunchConfig)}
    return {name: _GRACE_SECONDS for name in ("shutdown_timeout",) if name in names}


def own_rank() -> int:
    """Return which of the ranks this process is, and let it log."""
    logging.disable(logging.NOTSET)
    return int(os.environ["RANK"])
