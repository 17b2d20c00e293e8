"""The conventions of everything that `vizsynth` exports, held by looking at it."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vizsynth

PACKAGE = Path(vizsynth.__file__).parent
PUBLIC = {name: getattr(vizsynth, name) for name in dir(vizsynth) if not name.startswith("_")}
FUNCTIONS = {
    name: value for name, value in PUBLIC.items() if inspect.isfunction(value) or hasattr(value, "compiled")
}
DATA = (
    *("net", "images", "image", "target", "labels", "layers", "layer", "heatmaps", "attributions"),
    *("content", "styles", "texture", "values", "boxes"),
)
# Described once, in docs/reference/index.md: a docstring names them only where it departs.
EVERYWHERE = {
    *("net", "images", "image", "target", "labels", "key", "layer", "layers", "steps", "learning_rate"),
    *("batch_size", "state", "epsilon"),
}
# What is given by position besides: what these functions are about.
BY_POSITION = {
    "load": {"name", "weights"},
    "read_image": {"path", "size"},
    "write_image": {"path", "image"},
    "adapt": {"module", "params"},
    "receptive_field": {"net", "layer", "position", "image_size"},
    "over_rows": {"mesh"},
    "fuse": {"size"},
    "magnified": {"before", "after"},
    "blurred": {"sigma"},
    "noisy_linear_imputation": {"removed"},
    "interpolate": {"first", "second"},
    "atlas_cells": {"activations", "layout"},
    "whitening": {"activations"},
    "activation_atlas": {"directions"},
    "visualize_latent": {"generator"},
    "visualize_facets": {"starts"},
    "stylize": {"stylizer", "style"},
    "train_style": {"stylizer"},
    "adain": {"content_features", "style_features"},
    "transfer_adain": {"decoder"},
    "activation_tiles": {"activations"},
    "no_patches": {"image_size"},
    "top_patches": {"batches"},
    "patch_boxes": {"patches"},
    "fit": {"data"},
    "predict": {"data"},
    "nearest_neighbors": {"queries"},
    "same_class_share": {"indices", "query_labels"},
    "grid_layout": {"points"},
    "stream": {"function"},
    "largest_batch": {"function", "size"},
    "segment": {"heatmap"},
    "intersection_over_union": {"mask", "truth"},
}


def module_of(function: Any) -> Any:
    return sys.modules[function.__module__]


def of(package: str) -> list[str]:
    return [name for name, f in FUNCTIONS.items() if f.__module__.startswith(f"vizsynth.{package}.")]


def parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(FUNCTIONS[name]).parameters)


def test_there_is_something_to_hold() -> None:
    assert {"gradient", "saliency", "grad_cam", "features", "load"} <= set(FUNCTIONS)


def test_a_function_is_called_as_it_is_exported() -> None:
    assert {name: f.__name__ for name, f in FUNCTIONS.items()} == {name: name for name in FUNCTIONS}


def test_maps_take_the_network_first() -> None:
    firsts = {name: next(iter(parameters(name))) for name in of("maps") if name not in BY_POSITION}
    assert firsts and firsts == dict.fromkeys(firsts, "net")


def test_what_is_not_data_is_given_by_name() -> None:
    wrong: list[str] = []
    for name in FUNCTIONS:
        for parameter in parameters(name).values():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                wrong.append(f"{name}: forwarded {parameter} hides what is taken")
            elif parameter.kind is not parameter.KEYWORD_ONLY and (
                parameter.name == "key"
                or (name != "completeness" and parameter.name not in {*DATA, *BY_POSITION.get(name, ())})
            ):
                wrong.append(f"{name}: {parameter} is given by position")
    assert not wrong


def test_everything_is_annotated() -> None:
    wrong: list[str] = []
    for name, function in FUNCTIONS.items():
        signature = inspect.signature(inspect.unwrap(function))
        if signature.return_annotation is signature.empty:
            wrong.append(f"what {name} returns")
        wrong += [f"{name}: {p.name}" for p in signature.parameters.values() if p.annotation is p.empty]
    assert not wrong


def untold(name: str) -> Iterator[str]:
    """Give what is missing in a function's docstring."""
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    if ">>> " not in text:
        yield f"{name}: >>>"
    if "net" not in parameters(name):
        return  # a helper of arrays: its example says it
    elsewhere = " ".join(re.findall(r"^(.*): as f(?:or|rom) ", text, re.MULTILINE))
    own = parameters(name).keys() - EVERYWHERE
    for section in (("Args", "Raises") if own else ()) + ("Returns", "Example"):
        written = re.search(rf"^{section}:$", text, re.MULTILINE)
        if not written and not re.search(rf"\b{section}\b", elsewhere):
            yield f"{name}: {section}"
    if "Args:\n" in text:
        described = re.split(r"\n(?:Returns|Raises|Example)\b", text.split("Args:\n")[1])[0]
        heads = re.findall(r"\w+", " ".join(re.findall(r"^ {4}([\w, ]+):", described, re.MULTILINE)))
        if "as for" not in described:
            yield from (f"{name}: {parameter}" for parameter in own if parameter not in heads)


def test_the_docstring_tells_all_there_is_to_know() -> None:
    assert not [missing for name in FUNCTIONS for missing in untold(name)]


def test_arguments_that_are_the_same_everywhere_are_described() -> None:
    page = (PACKAGE.parent / "docs" / "reference" / "index.md").read_text()
    rows = re.findall(r"^\| (`.*`) \|", page, re.MULTILINE)
    assert not EVERYWHERE - set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_a_method_names_its_source_and_year() -> None:
    papers = [name for package in ("maps", "synthesis", "evaluation") for name in of(package)]
    assert papers
    assert not [
        name
        for name in papers
        if not re.search(
            r"\b(19|20)\d\d\b", f"{module_of(FUNCTIONS[name]).__doc__}\n{inspect.getdoc(FUNCTIONS[name])}"
        )
    ]


def test_numbers_are_traced_and_structure_is_not() -> None:
    """An array cannot be structure: what is static must have a hashable default, if any."""
    assert not [
        f"{name}: {parameter}"
        for name, function in FUNCTIONS.items()
        if hasattr(function, "compiled")
        for parameter in parameters(name).values()
        if not hashes(parameter.default)
    ]


def hashes(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def test_the_list_of_names_is_explicit() -> None:
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    for node in tree.body:
        if isinstance(node, ast.Expr):
            continue
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "a re-export says `as` its own name"


def test_every_folder_and_module_is_an_attribute() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    entries = {path.stem for path in PACKAGE.glob("*.py")} | folders
    private = {"__init__", "__main__", "cli"}  # the command line is a program, not a part of the library
    assert not entries - private - set(vizsynth.__all__)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        vizsynth.no_such_thing  # noqa: B018
