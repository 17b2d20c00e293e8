"""What the process does with memory that a program has freed."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)


def keep_memory() -> bool:
    """Let the C library keep the memory that a program has freed for the next one; tell whether it does.

    glibc hands blocks of more than 32 MB back to the system and asks for them again, and each page of them
    is cleared when it is first touched; so it does with blocks of 64 MB that a thread other than the first
    asks for, unless all threads share one arena. Compiled programs take all their memory as one such block
    at each call, in a thread of JAX: kept, a gradient of VGG-16 on two cores takes up to a fifth less, and
    eight at once from a sixth less to a tenth more, by the state of the machine's memory. The process then
    stays as large as it has once been. What other libraries allocate is kept as well.

    Call it before the first computation: a thread that has an arena of its own stays with it. The command
    line does.

    Returns:
        Whether the C library is one that can be told so (glibc, on Linux).

    Raises:
        Nothing.

    Example:
        >>> import vizsynth
        >>> kept = vizsynth.keep_memory()
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    options = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1}
    return mallopt is not None and all([mallopt(name, value) for name, value in options.items()])
