"""Compiled programs: `jax.jit`, with the options of the compiler that are fastest for convolutions."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property, update_wrapper
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

R = TypeVar("R")

# Of the two libraries that XLA has on a CPU, YNNPACK's convolutions take up to 2.5 times as long as Eigen's;
# its products of matrices are left to it, as large transposed ones are ten times faster.
_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}}


@cache
def compiler_options() -> dict[str, Any]:
    """Return the options of XLA that programs are compiled with; none where the compiler does not know them.

    >>> compiler_options() == {} or jax.default_backend() == "cpu"
    True
    """
    options = _OPTIONS.get(jax.default_backend(), {})
    try:
        if options:
            jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except (RuntimeError, ValueError):  # an XLA of another time has other options
        return {}
    return options


class Program(Generic[R]):
    """A function that is compiled when it is called with other shapes, or traced into what calls it."""

    def __init__(self, function: Callable[..., R], static: Sequence[str], donated: Sequence[str]):
        self.function = function
        self.names: dict[str, Any] = {"static_argnames": tuple(static), "donate_argnames": tuple(donated)}
        self.traced = jax.jit(function, **self.names)
        update_wrapper(self, function)

    @cached_property
    def compiled(self) -> Any:
        """The function with the compiler's options, which only a program has that is part of no other."""
        options = compiler_options()
        return jax.jit(self.function, compiler_options=options, **self.names) if options else self.traced

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Run it; within another transformation, become a part of that."""
        return (self.traced if _within(args, kwargs) else self.compiled)(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Return the program for these arguments, not compiled yet."""
        return self.compiled.lower(*args, **kwargs)

    def clear_cache(self) -> None:
        """Forget what was compiled."""
        for program in self._programs():
            program.clear_cache()

    def _cache_size(self) -> int:
        return sum(program._cache_size() for program in self._programs())

    def _programs(self) -> list[Any]:
        return [self.traced] if self.compiled is self.traced else [self.traced, self.compiled]


def jit(
    function: Callable[..., R], *, static_argnames: Sequence[str] = (), donate_argnames: Sequence[str] = ()
) -> Program[R]:
    """Return `jax.jit(function)`, with the options of the compiler that are fastest for convolutions.

    On a CPU the compiler's own choice of a library makes convolutions up to 2.5 times slower. Inside another
    `jit`, `grad` or `vmap` it is `jax.jit`: what is outermost sets the options.

    Args:
        function: pure; as `jax.jit` takes it.
        static_argnames: arguments that are structure: another value of one of them compiles anew.
        donate_argnames: arguments whose memory the results may take; they cannot be used again.

    Returns:
        What is called as the function is. `lower` gives the program for some arguments.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> logits = vizsynth.jit(lambda net, images: net(images))
        >>> logits(net, jax.numpy.zeros((2, 64, 64, 3))).shape
        (2, 1000)
    """
    return Program(function, static_argnames, donate_argnames)


def _within(args: Any, kwargs: Any) -> bool:
    """Tell whether another transformation is at work: then the program is a part of another."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))) or isinstance(
        jnp.zeros(()), Tracer
    )
