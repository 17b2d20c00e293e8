"""Dataclasses as pytrees: what goes in comes out, and no class is taken for another."""

import dataclasses
import itertools
import pkgutil
from importlib import import_module
from typing import Any

import jax
import pytest

import vizsynth
from vizsynth import rules, scores
from vizsynth.core.pytrees import pytree

MODULES = [
    import_module(found.name)
    for found in pkgutil.walk_packages(vizsynth.__path__, "vizsynth.")
    if not found.name.endswith("__main__")
]


def filled(kind: type[Any]) -> Any:
    """Return one whose fields are 1, whatever its constructor would say of that."""
    made = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(made, field.name, 1.0)
    return made


KINDS = {
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type)
    and value.__module__.startswith("vizsynth")
    and dataclasses.is_dataclass(value)
    and jax.tree.structure(filled(value)) != jax.tree.structure(1.0)
}


def test_no_class_has_the_structure_of_another() -> None:
    """A compiled function finds its program by the structure of what it is given."""
    assert {scores.Class, scores.Probability, rules.Flat, rules.WSquare} <= KINDS
    assert len(KINDS) > 40
    for one, other in itertools.combinations(KINDS, 2):
        assert jax.tree.structure(filled(one)) != jax.tree.structure(filled(other)), (one, other)


@pytree
@dataclasses.dataclass(frozen=True)
class Both:
    value: Any
    how: str = dataclasses.field(default="plain", metadata={"static": True})
    more: Any = None


def test_fields_are_leaves_by_their_names_or_structure() -> None:
    given = Both(1.0, "other", {"a": 2.0})
    leaves, structure = jax.tree_util.tree_flatten_with_path(given)
    assert [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves] == [
        (".value", 1.0),
        (".more['a']", 2.0),
    ]
    assert jax.tree.unflatten(structure, [3.0, 4.0]) == Both(3.0, "other", {"a": 4.0})
    assert jax.tree.structure(Both(1.0)) != jax.tree.structure(Both(1.0, "other"))
    assert jax.jit(lambda both: both.value if both.how == "plain" else 0.0)(Both(5.0)) == 5.0


def test_only_dataclasses_are_taken() -> None:
    with pytest.raises(TypeError, match="dataclass"):
        pytree(int)
