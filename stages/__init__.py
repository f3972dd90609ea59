"""The pipeline's steps, run as `python -m stages.NAME` from the root of the work tree."""

import sys

from distillation.base.command import end_quietly_while_loading
from distillation.base.limits import check_address_space

if sys.argv[0] == "-m":  # python is about to run one of them, and not a test that imports it
    end_quietly_while_loading()
    check_address_space()
