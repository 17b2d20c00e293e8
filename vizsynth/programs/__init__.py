"""Networks of other libraries, unmodified: their traced program, run through `ops` and tapped."""

from vizsynth.programs.network import Adapted as Adapted
from vizsynth.programs.network import adapt as adapt
