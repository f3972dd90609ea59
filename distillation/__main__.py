"""Entry point of `python -m distillation`."""

from __future__ import annotations

import sys

from distillation.cli import main

sys.exit(main())
