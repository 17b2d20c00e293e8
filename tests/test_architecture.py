"""Imports run one way, and algorithms neither print nor plot nor check by assertion."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import vizsynth

ROOT = Path(vizsynth.__file__).parent

# From the bottom up: a module imports what lies below it. The door of the public functions stands apart in
# its room, as it knows what a target is.
LAYERS = (
    ("core", "cpu", "types", "images"),
    ("ops", "scores", "colors", "parametrizations", "priors", "transforms", "updates", "streams", "figures"),
    ("core.entry", "rules", "ascent", "files", "stores"),
    ("taps", "planted"),
    ("models", "programs", "replay", "devices"),
    ("maps", "synthesis", "inspection", "evaluation", "training"),
    ("datasets",),
    ("cli",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
ALGORITHMS = ("maps", "synthesis", "inspection", "evaluation", "training", "ascent", "rules", "priors")
BENEATH_THE_NETWORK = ("maps", "synthesis", "inspection", "evaluation", "training")

NAMES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))


def part(path: tuple[str, ...]) -> str:
    """Return what a module belongs to: one at the top, a room, or one that stands apart in its room."""
    return apart if (apart := ".".join(path[:2])) in RANK else path[0]


def place(name: str) -> tuple[str, ...]:
    """Return the path of a file's module."""
    return Path(name).with_suffix("").parts


@cache
def nodes(name: str) -> list[ast.AST]:
    """Return everything that a file says."""
    return list(ast.walk(ast.parse((ROOT / name).read_text())))


def imported(name: str) -> set[tuple[str, ...]]:
    """Return what of the package a file imports when it is imported, as paths."""
    found: set[tuple[str, ...]] = set()
    for node in nodes(name):
        if isinstance(node, ast.ImportFrom):
            path = tuple((node.module or "").split("."))
            if path == ("vizsynth",):
                found |= {("vizsynth", alias.name) for alias in node.names}
            elif path[0] == "vizsynth":
                found.add(path)
        elif isinstance(node, ast.Import):
            paths = [tuple(alias.name.split(".")) for alias in node.names]
            found |= {path for path in paths if path[0] == "vizsynth"}
    return {path[1:] for path in found if len(path) > 1}


def test_there_are_files_to_hold() -> None:
    assert {"__init__.py", "core/entry.py", "cli/__init__.py", "maps/cam.py"} <= set(NAMES)


def test_every_module_has_a_layer() -> None:
    parts = {part(path) for name in NAMES for path in (place(name), *imported(name))}
    assert not parts - {"__init__", "__main__", *RANK}


def test_imports_run_one_way() -> None:
    wrong = [
        f"{name} imports {'.'.join(path)}"
        for name in NAMES
        if name not in ("__init__.py", "__main__.py")
        for path in imported(name)
        if part(path) != part(place(name)) and RANK[part(path)] >= RANK[part(place(name))]
    ]
    assert not wrong


def test_imports_are_absolute() -> None:
    assert not [
        f"{name}, line {node.lineno}"
        for name in NAMES
        for node in nodes(name)
        if isinstance(node, ast.ImportFrom) and node.level != 0
    ]


def test_methods_know_no_network_in_particular() -> None:
    below = [name for name in NAMES if part(place(name)) in BENEATH_THE_NETWORK]
    assert not [name for name in below if any(path[0] == "models" for path in imported(name))]


def top_level_packages(name: str) -> set[str]:
    found: set[str] = set()
    for node in nodes(name):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def test_algorithms_neither_print_nor_plot() -> None:
    wrong: list[str] = []
    for name in NAMES:
        if part(place(name)) in ALGORITHMS:
            banned = top_level_packages(name) & {"matplotlib", "tqdm", "click", "PIL", "torch"}
            wrong += [f"{name} imports {package}" for package in banned]
            wrong += [
                f"{name}, line {node.lineno}"
                for node in nodes(name)
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("print", "input")
            ]
    assert not wrong


UNDOCUMENTED = {"_src", "ffi", "ffi_call", "custom_call", "Primitive", "mlir", "xla_bridge"}


def undocumented(name: str) -> Iterator[str]:
    for node in nodes(name):
        words: set[str] = set()
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("jax", "jaxlib"):
            words = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            words = {word for alias in node.names for word in alias.name.split(".")}
        elif isinstance(node, ast.Attribute):
            words = {node.attr}
            if node.attr == "modules" and ast.unparse(node.value) == "sys":
                yield f"sys.modules, {name}, line {node.lineno}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = {*node.value.split(".")} & {"_src"}
        if words & UNDOCUMENTED:
            yield f"{sorted(words & UNDOCUMENTED)}, {name}, line {getattr(node, 'lineno', 0)}"


def test_only_documented_parts_of_jax_are_used() -> None:
    """No private module, no custom call and no primitive of ours, no look into the modules of the process."""
    assert not [found for name in NAMES for found in undocumented(name)]


def test_programs_are_compiled_as_jax_compiles_them() -> None:
    """No option of the compiler: one that chose another library gave wrong results to calls from threads."""
    keywords = (node for name in NAMES for node in nodes(name) if isinstance(node, ast.keyword))
    assert not [node.lineno for node in keywords if node.arg == "compiler_options"]


def test_nothing_is_checked_by_assertion() -> None:
    lines = [
        f"{name}, line {node.lineno}"
        for name in NAMES
        for node in nodes(name)
        if isinstance(node, ast.Assert)
    ]
    assert not lines, "an assertion is left out under -O: raise, and say what must hold"


def test_no_transforms_of_nnx() -> None:
    """Plain JAX alone: an exception within nnx's own transforms leaves marks on the user's network."""
    banned = {"jit", "grad", "vmap", "scan", "value_and_grad", "capture", "sow", "perturb", "remat"}
    assert not [
        f"nnx.{node.attr}, {name}, line {node.lineno}"
        for name in NAMES
        for node in nodes(name)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "nnx"
        and node.attr in banned
    ]


def test_no_keywords_are_forwarded_by_functions_of_the_package() -> None:
    allowed = (
        "with_attributes",
        "call",
        "visit",
        "update",  # optax hands on extra arguments
        "lower",  # as a function is called
    )
    assert not [
        f"{node.name}, {name}, line {node.lineno}"
        for name in NAMES
        if part(place(name)) not in ("cli", "__init__", "__main__")
        for node in nodes(name)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if node.args.kwarg is not None and node.name not in allowed
    ]


def test_what_is_not_looked_at_under_jit_is_not_looked_at_on_a_device() -> None:
    """Tests call every function under `jit`, where looking at a value fails: no check tells the two apart."""
    assert [name for name in NAMES if "Tracer" in (ROOT / name).read_text()] == ["devices/rows.py"]
