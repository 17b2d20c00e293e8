"""See into convolutional networks and make pictures with them, in JAX.

Networks take float RGB images in [0, 1], `[n, h, w, 3]`, and everything here is a pure, jitted function
of a network, some images and a target (labels or a score).

The public names are listed in `vizsynth/__init__.pyi`, and each is imported when it is first used.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
