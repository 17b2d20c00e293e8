"""`python -m vizsynth` is the `vizsynth` command."""

import sys

from vizsynth.cli import main

sys.exit(main())
