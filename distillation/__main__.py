"""Entry point of `python -m distillation`; `compare` is a command of its own."""

from __future__ import annotations

import sys

from distillation.program import end_quietly_while_loading

end_quietly_while_loading()

if sys.argv[1:2] == ["compare"]:
    from distillation.compare import main

    sys.exit(main(sys.argv[2:]))
else:
    from distillation.cli import main

    sys.exit(main())
