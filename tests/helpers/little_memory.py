"""Run a stage in this process with little memory left once its libraries are loaded.

python -m tests.helpers.little_memory STAGE BYTES
"""

import importlib
import os
import resource
import sys
from pathlib import Path

from stages.entry import run_stage


def main(name, left):
    module = importlib.import_module(f"stages.{name}")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    allowed = pages * os.sysconf("SC_PAGE_SIZE") + left
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    sys.argv = [name]
    run_stage(module.main)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
