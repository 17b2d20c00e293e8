"""Dataclasses as pytrees: scores, rules, transforms, parametrizations."""

import dataclasses
from typing import Any, TypeVar

from jax.tree_util import GetAttrKey, register_pytree_with_keys

T = TypeVar("T")


def pytree(kind: type[T]) -> type[T]:
    """Register a dataclass as a pytree; fields with `metadata={"static": True}` are structure, others leaves.

    `jax.tree_util.register_dataclass` ignores the class when structures are compared (JAX 0.10): in one case
    of a hundred, a compiled function confuses two classes with equally many fields, and silently runs the
    wrong program.

    Args:
        kind: a dataclass that can be built from its fields by name.

    Returns:
        The class itself: this is a decorator, above `dataclass`.

    Example:
        >>> import jax
        >>> from dataclasses import dataclass
        >>> @pytree
        ... @dataclass(frozen=True)
        ... class Scaled:
        ...     factor: float
        >>> jax.tree.map(lambda factor: 2 * factor, Scaled(1.5))
        Scaled(factor=3.0)
    """
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # anything else raises
    static = tuple(field.name for field in fields if field.metadata.get("static"))
    leaves = tuple(field.name for field in fields if field.name not in static)

    def flatten(value: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(value, name) for name in leaves), tuple(getattr(value, name) for name in static)

    def flatten_with_keys(value: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        values, structure = flatten(value)
        return tuple(zip(map(GetAttrKey, leaves), values, strict=True)), structure

    def unflatten(structure: tuple[Any, ...], values: Any) -> T:
        return kind(**dict(zip(static, structure, strict=True)), **dict(zip(leaves, values, strict=True)))

    register_pytree_with_keys(kind, flatten_with_keys, unflatten, flatten)
    return kind
