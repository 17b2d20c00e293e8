"""See into convolutional networks and make pictures with them, in JAX.

Networks take float RGB images in [0, 1], `[n, h, w, 3]`, and everything here is a pure, jitted function
of a network, some images and a target (labels or a score).
"""

from vizsynth import models as models
from vizsynth.taps import features as features
