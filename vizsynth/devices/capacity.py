"""The number of images that fit a device at once, by the compiled program's own account of its memory."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vizsynth.core.chunks import check_count

_SHARE = 0.9  # of the free memory: the allocator and earlier results need the rest


def program_bytes(function: Callable[..., Any], *args: Any) -> int:
    """Return the memory of a function's program: arguments, results and intermediate values.

    Args:
        function: it is jitted.
        args: arrays, or their `jax.ShapeDtypeStruct`.

    >>> program_bytes(lambda x: x + 1, jax.ShapeDtypeStruct((256,), jnp.float32))
    2048
    """
    account = jax.jit(function).lower(*args).compile().memory_analysis()
    if account is None:
        raise ValueError(f"{jax.default_backend()} gives no account of a program's memory: set a batch size")
    kinds = ("argument", "output", "temp")
    return int(sum(getattr(account, f"{kind}_size_in_bytes") for kind in kinds) - account.alias_size_in_bytes)


def free_bytes(device: Any = None) -> int:
    """Return the free memory of a device by its allocator's limit; of a CPU, that of the system.

    >>> free_bytes() > 0
    True
    """
    device = jax.local_devices()[0] if device is None else device
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # caches count as free
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = [1024 * int(lines["MemAvailable"].split()[0])]
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free.append(max(0, int(text) - int(used.read_text())))
    return min(free)


def largest_batch(
    function: Callable[[Any, Any], Any],
    net: Any,
    size: tuple[int, int],
    *,
    limit: int | None = None,
    most: int = 256,
    dtype: Any = jnp.float32,
) -> int:
    """Return the largest batch for which the memory of `function(net, images)` fits the device.

    The programs for one image and for two give the memory per image, bytes(n) = a + b n. The program for the
    resulting n is compiled too, and n reduced until it fits. A larger batch is not always faster: a CPU wants
    a few images at once, a GPU many.

    Args:
        function: of a network and images `[n, h, w, 3]`, such as `lambda net, x: vizsynth.lrp(net, x, 281)`.
        net: or its shapes.
        size: height and width of the images.
        limit: in bytes; by default nine tenths of the device's free memory.
        most: the largest number to try.
        dtype: of the images.

    Returns:
        From 1 to `most`.

    Raises:
        ValueError: not even one image fits; the message has both numbers of bytes.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> at_once = vizsynth.largest_batch(lambda net, x: net(x), net, (64, 64), limit=20_000_000)
        >>> 1 <= at_once <= 256
        True
    """
    check_count(most, "most")
    allowed = int(_SHARE * free_bytes()) if limit is None else limit

    def needed(n: int) -> int:
        return program_bytes(function, net, jax.ShapeDtypeStruct((n, *size, 3), dtype))

    one = needed(1)
    if one > allowed:
        raise ValueError(
            f"one image of {size[0]}x{size[1]} needs {_text(one)}, and the device has {_text(allowed)}: give "
            "smaller images, a network in bfloat16 (vizsynth.models.with_precision), several devices "
            "(vizsynth.over_rows), or cuts= where a method has them"
        )
    if most == 1:
        return 1
    two = needed(2)
    if two > allowed:
        return 1
    each = max(two - one, 1)
    found = min(most, 2 + (allowed - two) // each)
    while found > 2 and (bytes_ := needed(found)) > allowed:
        found = max(2, min(found - 1, math.floor(found * allowed / bytes_)))
    return found


def _text(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
