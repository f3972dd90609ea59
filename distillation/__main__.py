"""Entry point of `python -m distillation`; `compare` and `predict` are commands of their own."""

from __future__ import annotations

import sys

from distillation.base.command import end_quietly_while_loading

end_quietly_while_loading()

if sys.argv[1:2] == ["compare"]:
    from distillation.compare import main

    sys.exit(main(sys.argv[2:]))
elif sys.argv[1:2] == ["predict"]:
    from distillation.cli.predict import main

    sys.exit(main(sys.argv[2:]))
else:
    from distillation.cli.train import main

    sys.exit(main())
