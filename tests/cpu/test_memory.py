"""Memory that is freed is kept where it was asked for."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys, threading
from vizsynth.cpu.memory import keep_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "keep":
    assert keep_memory()
found = []

def twice():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(80 << 20)
        ctypes.memset(block, 1, 80 << 20)
        libc.free(block)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[2] == "here":
    twice()
else:
    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
print(*found)
"""


def faults(how: str, where: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how, where]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif("not hasattr(__import__('ctypes').CDLL(None), 'mallopt')", reason="glibc alone")
@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_a_block_that_was_freed_is_not_cleared_again(where: str) -> None:
    assert faults("keep", where) < 10 < faults("give back", where)
