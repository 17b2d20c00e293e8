"""A batch is as large as its program's own account allows, and no larger."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tiny import tiny

import vizsynth
from vizsynth.devices import capacity


def saliency(net: Any, images: Any) -> Any:
    return vizsynth.saliency(net, images, 1)


@pytest.mark.parametrize("limit", [700_000, 1_500_000])
def test_one_more_would_not_fit(limit: int) -> None:
    net, size = tiny("vgg").net, (24, 24)
    n = vizsynth.largest_batch(saliency, net, size, limit=limit)

    def needed(n: int) -> int:
        return capacity.program_bytes(saliency, net, jax.ShapeDtypeStruct((n, *size, 3), jnp.float32))

    assert needed(n) <= limit
    assert needed(n + 1 + n // 8) > limit  # memory grows by steps: an eighth more is surely too much
    assert 1 < n < 256


def test_no_more_than_asked() -> None:
    net = tiny("vgg").net
    assert vizsynth.largest_batch(saliency, net, (24, 24), most=1) == 1
    assert vizsynth.largest_batch(saliency, net, (24, 24), most=3) == 3


def test_where_nothing_fits_it_says_what_would() -> None:
    with pytest.raises(ValueError, match=r"one image of 24x24 needs .* has 0\.0 MiB: give smaller images"):
        vizsynth.largest_batch(saliency, tiny("vgg").net, (24, 24), limit=1000)


def test_the_device_says_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 1000, "bytes_in_use": 400}

    assert capacity.free_bytes(Device()) == 600
    assert 2**20 < capacity.free_bytes() < 2**45
