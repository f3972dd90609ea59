"""Entry point of `distillation`, an installed command, and of `python -m distillation`.

`compare`, `predict` and `sweep` are commands of their own. Each is imported alone: the others'
libraries take seconds to load.
"""

from __future__ import annotations

import sys

from distillation.base.command import end_quietly_while_loading
from distillation.base.limits import check_address_space


def main() -> int:
    """Run the command that the first argument names; returns the exit status."""
    end_quietly_while_loading()
    command, rest = sys.argv[1:2], sys.argv[2:]
    if command == ["compare"]:
        from distillation.compare import main as compare

        return compare(rest)
    if command == ["predict"]:
        from distillation.cli.predict import main as predict

        return predict(rest)
    if command == ["sweep"]:
        from distillation.cluster import main as sweep

        return sweep(rest)
    check_address_space()
    from distillation.cli.train import main as train

    return train()


if __name__ == "__main__":
    sys.exit(main())
