"""Every public function as a program for any platform: JAX refuses custom calls that are not its own."""

from typing import Any

import calls
import jax
import pytest

PLATFORMS = ("cpu", "cuda", "tpu")


@pytest.mark.parametrize("name", calls.compiled())
def test_a_call_is_exported_for_every_platform(name: str) -> None:
    subject = calls.bundled()

    def call(net: Any, images: Any) -> Any:
        return jax.tree.leaves(calls.compiled()[name](subject._replace(net=net, images=images)))

    exported = jax.export.export(jax.jit(call), platforms=PLATFORMS)(subject.net, subject.images)
    assert exported.platforms == PLATFORMS
