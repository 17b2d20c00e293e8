"""Memory that is freed is kept where it was asked for."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from vizsynth.memory import keep_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "keep":
    assert keep_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif("not hasattr(__import__('ctypes').CDLL(None), 'mallopt')", reason="glibc alone")
def test_a_block_that_was_freed_is_not_cleared_again() -> None:
    assert faults("keep") < 10 < faults("give back")
