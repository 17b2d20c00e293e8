"""Dataclasses as pytrees: scores, rules, transforms, parametrizations."""

import dataclasses
from typing import Any, TypeVar

from jax.tree_util import GetAttrKey, register_pytree_with_keys

T = TypeVar("T")


def pytree(kind: type[T]) -> type[T]:
    """Register a dataclass: its fields are leaves, those of `metadata={"static": True}` structure.

    `jax.tree_util.register_dataclass` leaves the class out where structures are compared (JAX 0.10): by
    chance, one in a hundred, a compiled function takes a class for another with fields of the same number,
    and silently answers with its program.

    Args:
        kind: a dataclass, made anew from its fields by their names.

    Returns:
        The class itself: it is a decorator, above `dataclass`.

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
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # whatever is none raises
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
