"""The conventions of everything that `vizsynth` exports, held by looking at it."""

import ast
import inspect
import re
import sys
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
    "jit": {"function"},
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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_called_as_it_is_exported(name: str) -> None:
    assert FUNCTIONS[name].__name__ == name


@pytest.mark.parametrize("name", of("maps"))
def test_maps_take_the_network_first(name: str) -> None:
    if name not in BY_POSITION:
        assert next(iter(parameters(name))) == "net"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_not_data_is_given_by_name(name: str) -> None:
    for parameter in parameters(name).values():
        assert parameter.kind is not parameter.VAR_KEYWORD, "forwarded keywords hide what is taken"
        assert parameter.kind is not parameter.VAR_POSITIONAL
        if parameter.kind is not parameter.KEYWORD_ONLY and name not in ("completeness",):
            assert parameter.name in {*DATA, *BY_POSITION.get(name, ())}
        if parameter.name == "key":
            assert parameter.kind is parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", FUNCTIONS)
def test_everything_is_annotated(name: str) -> None:
    function = inspect.unwrap(FUNCTIONS[name])
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter.name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_docstring_tells_all_there_is_to_know(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    assert ">>> " in text
    if "net" not in parameters(name):
        return  # a helper of arrays: its example says it
    elsewhere = " ".join(re.findall(r"^(.*): as f(?:or|rom) ", text, re.MULTILINE))
    for section in ("Args", "Returns", "Raises", "Example"):
        written = re.search(rf"^{section}:$", text, re.MULTILINE)
        assert written or re.search(rf"\b{section}\b", elsewhere), section
    if "Args:\n" in text:
        described = re.split(r"\n(?:Returns|Raises|Example)\b", text.split("Args:\n")[1])[0]
        for parameter in parameters(name):
            heads = re.findall(r"^ {4}([\w, ]+):", described, re.MULTILINE)
            assert parameter in re.findall(r"\w+", " ".join(heads)) or "as for" in described, parameter


PAPERS = [name for package in ("maps", "synthesis", "evaluation") for name in of(package)]


@pytest.mark.parametrize("name", PAPERS)
def test_a_method_names_its_source_and_year(name: str) -> None:
    words = f"{module_of(FUNCTIONS[name]).__doc__}\n{inspect.getdoc(FUNCTIONS[name])}"
    assert re.search(r"\b(19|20)\d\d\b", words)


@pytest.mark.parametrize("name", [name for name, f in FUNCTIONS.items() if hasattr(f, "compiled")])
def test_numbers_are_traced_and_structure_is_not(name: str) -> None:
    """An array cannot be structure: what is static must have a hashable default, if any."""
    for parameter in parameters(name).values():
        if parameter.default is not parameter.empty and parameter.default is not None:
            hash(parameter.default)


def test_the_list_of_names_is_explicit() -> None:
    tree = ast.parse((PACKAGE / "api.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Expr):
            continue
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "a re-export says `as` its own name"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        vizsynth.no_such_thing  # noqa: B018
