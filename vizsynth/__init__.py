"""See into convolutional networks and make pictures with them, in JAX.

Networks take float RGB images in [0, 1], `[n, h, w, 3]`, and everything here is a pure, jitted function
of a network, some images and a target (labels or a score).
"""

from vizsynth import models as models
from vizsynth.maps.grad_cam import grad_cam as grad_cam
from vizsynth.maps.gradient import gradient as gradient
from vizsynth.maps.saliency import saliency as saliency
from vizsynth.taps import features as features
