"""Imports run one way, and algorithms neither print nor plot nor check by assertion."""

import ast
from pathlib import Path

import pytest

import vizsynth

ROOT = Path(vizsynth.__file__).parent

# From the bottom up: a module imports what lies below it. Within a layer, the pairs of ALLOWED.
LAYERS = (
    ("core",),
    ("types", "windows", "memory", "compiling", "pytrees"),
    ("winograd",),
    ("convolution",),
    ("scores",),
    ("entry",),
    ("taps", "images", "ops", "chunks", "linearity"),
    ("priors", "transforms", "parametrizations", "updates", "colors", "fields", "streams", "capacity"),
    ("rules", "ascent", "models", "incremental", "ablation", "parts", "programs", "rows"),
    ("maps", "synthesis", "inspection", "evaluation", "training"),
    ("files", "figures", "page", "planted", "datasets", "sheets", "stores"),
    ("api", "cli"),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
ALLOWED = {
    ("taps", "ops"),
    ("chunks", "taps"),
    ("models", "rules"),
    ("incremental", "models"),
    ("ablation", "incremental"),
    ("files", "figures"),
    ("page", "files"),
    ("planted", "files"),
    ("sheets", "figures"),
    ("datasets", "files"),
    ("cli", "api"),
    ("api", "cli"),
}
# One paper that builds on another; never models.
BUILDS_ON = {("synthesis", "maps"), ("evaluation", "maps")}
ALGORITHMS = ("maps", "synthesis", "inspection", "evaluation", "training", "ascent", "rules", "priors")
BENEATH_THE_NETWORK = ("maps", "synthesis", "inspection", "evaluation", "training")

FILES = sorted(path for path in ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def part(name: str) -> str:
    """Return the module or package at the top that a file belongs to."""
    return Path(name).parts[0].removesuffix(".py")


def imported(name: str) -> set[tuple[str, ...]]:
    """Return what of the package a file imports when it is imported, as paths."""
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            path = tuple((node.module or "").split("."))
            if path == ("vizsynth",):
                found |= {("vizsynth", alias.name) for alias in node.names}
            elif path[0] == "vizsynth":
                found.add(path)
        elif isinstance(node, ast.Import):
            paths = [tuple(alias.name.split(".")) for alias in node.names]
            found |= {path for path in paths if path[0] == "vizsynth"}
    return {path[1:] for path in found if len(path) > 1}


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_one_way(name: str) -> None:
    here = part(name)
    if here in ("__init__", "__main__"):
        return
    assert here in RANK, f"{here} has no layer yet"
    for path in imported(name):
        there = path[0]
        if there == here or (here, there) in ALLOWED | BUILDS_ON:
            continue
        assert there in RANK, f"{there} has no layer yet"
        assert RANK[there] < RANK[here], f"{name} imports {'.'.join(path)}"


@pytest.mark.parametrize("name", [n for n in NAMES if part(n) in BENEATH_THE_NETWORK])
def test_methods_know_no_network_in_particular(name: str) -> None:
    assert not [path for path in imported(name) if path[0] == "models"]


def top_level_packages(name: str) -> set[str]:
    tree = ast.parse((ROOT / name).read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("name", [n for n in NAMES if part(n) in ALGORITHMS])
def test_algorithms_neither_print_nor_plot(name: str) -> None:
    assert not top_level_packages(name) & {"matplotlib", "tqdm", "click", "PIL", "torch"}
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "input"), f"line {node.lineno}"


UNDOCUMENTED = {"_src", "ffi", "ffi_call", "custom_call", "Primitive", "mlir", "xla_bridge"}


@pytest.mark.parametrize("name", NAMES)
def test_only_documented_parts_of_jax_are_used(name: str) -> None:
    """No private module, no custom call and no primitive of ours, no look into the modules of the process."""
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        words: set[str] = set()
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("jax", "jaxlib"):
            words = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            words = {word for alias in node.names for word in alias.name.split(".")}
        elif isinstance(node, ast.Attribute):
            words = {node.attr}
            assert not (node.attr == "modules" and ast.unparse(node.value) == "sys"), f"line {node.lineno}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = {*node.value.split(".")} & {"_src"}
        assert not words & UNDOCUMENTED, f"{sorted(words & UNDOCUMENTED)}, line {node.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_checked_by_assertion(name: str) -> None:
    lines = [n.lineno for n in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(n, ast.Assert)]
    assert not lines, "an assertion is left out under -O: raise, and say what must hold"


@pytest.mark.parametrize("name", NAMES)
def test_no_transforms_of_nnx(name: str) -> None:
    """Plain JAX alone: an exception within nnx's own transforms leaves marks on the user's network."""
    banned = {"jit", "grad", "vmap", "scan", "value_and_grad", "capture", "sow", "perturb", "remat"}
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nnx":
            assert node.attr not in banned, f"line {node.lineno}"


@pytest.mark.parametrize("name", [n for n in NAMES if part(n) not in ("cli", "api", "__init__", "__main__")])
def test_no_keywords_are_forwarded_by_functions_of_the_package(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            allowed = node.name in (
                "with_attributes",
                "call",
                "visit",
                "update",  # optax hands on extra arguments
                "lower",  # as a function is called
            )
            assert node.args.kwarg is None or allowed, f"{node.name}, line {node.lineno}"
