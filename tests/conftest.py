"""What every test runs under: strict arithmetic, a compilation cache, few but fixed examples."""

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

if version("jaxlib").startswith("0.10."):  # another one may not know the flag, and would end
    # Tiny programs: what is fused by hand-written loops is compiled in two thirds of the time.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()
# Threads of OpenMP wait by spinning: where two workers share the cores, t-SNE takes thirty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest
from hypothesis import HealthCheck, settings
from tiny import FAMILIES, Subject, tiny

MOST_RESIDENT = 4 << 30
CACHE = Path(__file__).parent.parent / ".jax_cache"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tiny programs: compiling them takes far longer than running them.
jax.config.update("jax_disable_most_optimizations", True)
# Programs of microseconds gain nothing from running beside the interpreter, and two workers share the cores.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Tracing makes millions of objects that reference counts free: searching them for cycles rarely pays.
gc.set_threshold(200_000, 50, 100)

settings.register_profile(
    "vizsynth",
    deadline=None,  # the first example of a shape compiles
    max_examples=15,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("vizsynth")


def pytest_configure(config: pytest.Config) -> None:
    # Two runs may share the cache; an entry that the other is still writing is compiled again.
    for verb in ("reading", "writing"):
        message = f"ignore:Error {verb} persistent compilation cache entry"
        config.addinivalue_line("filterwarnings", message)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
    """Let go of compiled programs and networks once they fill the memory; till then modules share them."""
    yield
    if resident() > MOST_RESIDENT:
        jax.clear_caches()
        gc.collect()


def resident() -> int:
    """Return the bytes of memory that this process holds; more than any where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return MOST_RESIDENT + 1


@pytest.fixture
def x64() -> Iterator[None]:
    """Let float64 be float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[name for name in FAMILIES if name != "squeezenet"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """A small network of each family; SqueezeNet would take as long as the others together."""
    return tiny(request.param)
