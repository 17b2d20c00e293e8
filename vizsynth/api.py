"""What `import vizsynth` offers: one explicit re-export a line.

It is a module of its own so that `vizsynth --help` need not wait for JAX: `vizsynth/__init__.py`
imports it when one of its names is first asked for.
"""

from vizsynth import models as models
from vizsynth.maps.grad_cam import grad_cam as grad_cam
from vizsynth.maps.gradient import gradient as gradient
from vizsynth.maps.saliency import saliency as saliency
from vizsynth.models import load as load
from vizsynth.taps import features as features
