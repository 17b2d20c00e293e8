"""Any Flax module, or function of parameters and images, as a network."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jaxtyping import Array

from vizsynth import ops as arithmetic
from vizsynth.core.pytrees import pytree
from vizsynth.cpu import convolution
from vizsynth.images import Standardize
from vizsynth.ops import Ops, Padding, Pair
from vizsynth.programs.interpret import Plan, execute
from vizsynth.programs.names import layer_names
from vizsynth.programs.steps import Path, dependent, read
from vizsynth.programs.trace import Known, Program, trace
from vizsynth.taps import passthrough
from vizsynth.types import Images, Tap, Value

# The arguments of Flax modules for evaluation mode.
_EVALUATION = {"train": False, "training": False, "is_training": False, "deterministic": True}
_EVALUATION |= {"use_running_average": True}


class Source:
    """A function of (parameters, images), and its programs for images of each size."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        root: str = "",
        collections: bool = False,
        absolute: bool = False,
    ):
        self.function = function
        self.root = root
        """The scope around the whole program, left out of names."""
        self.collections = collections
        """Whether parameters lie in collections, whose names belong to no module."""
        self.absolute = absolute
        """Whether scopes are whole paths of modules, not names within the enclosing scope."""
        self._plans: dict[Any, Plan] = {}

    def plan(self, params: Any, images: Any, *, fold: bool) -> Plan:
        """Return the program for parameters and images of these shapes."""
        leaves, structure = jax.tree.flatten((params, images))
        key = (fold, structure, *((leaf.shape, str(leaf.dtype)) for leaf in leaves))
        if key not in self._plans:
            shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
            self._plans[key] = self._made(*jax.tree.unflatten(structure, shapes), fold=fold)
        return self._plans[key]

    def _made(self, params: Any, images: Any, *, fold: bool) -> Plan:
        program = trace(self.function, params, images)
        if len(program.outputs) != 1 or isinstance(program.outputs[0], Known):
            raise ValueError(
                f"a network must return one array that depends on its images, not {len(program.outputs)}: "
                "give a function of (params, images) that returns one of them"
            )
        program.equations = [replace(e, scope=self._modules(e.scope)) for e in program.equations]
        pixels = program.inputs[-1]
        steps = read(program, pixels, self._owners(program, params), fold=fold)
        data = dependent(program, pixels)
        (result,) = program.outputs
        classes = len(program.shape(result)) == 2
        return Plan(
            program,
            pixels,
            steps,
            layer_names(steps, {result}, classes=classes),
            [e for e in program.equations if not data & {a for a in e.inputs if not isinstance(a, Known)}],
        )

    def _modules(self, scope: Path) -> Path:
        """Return the full names of the modules around an equation, from the outermost."""
        names: list[str] = []
        for part in scope[1:] if scope[:1] == (self.root,) else scope:
            if part.startswith("["):  # a step of a scan
                names.append(f"{names[-1] if names else 'scan'}{part}")
            else:
                names.append(part if not names or self.absolute else f"{names[-1]}.{part}")
        return tuple(names)

    def _owners(self, program: Program, params: Any) -> dict[int, Path]:
        """Return the module of each parameter, and of values computed from one module's parameters alone."""
        owners: dict[int, Path] = {}
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for value, path in zip(program.inputs, paths, strict=False):
            parts = tuple(
                part
                for part in jax.tree_util.keystr(path, simple=True, separator="/").split("/")
                if part != "value"
            )
            path = ".".join(parts[1 if self.collections else 0 : -1])
            owners[value] = (path,) if path else ()
        for equation in program.equations:
            modules = {owners[a] for a in equation.inputs if not isinstance(a, Known) and a in owners}
            others = [a for a in equation.inputs if not isinstance(a, Known) and a not in owners]
            if len(modules) == 1 and not others:
                owners |= dict.fromkeys(equation.outputs, next(iter(modules)))
        return owners


@pytree
@dataclass
class Adapted:
    """A network from a traced program. Its parameters are its leaves."""

    params: Any
    fixed: Any
    """The rest of the module's state: counters, keys."""
    source: Source = field(metadata={"static": True})
    layers: tuple[str, ...] = field(metadata={"static": True})
    """The names of the layers, in the order of computation."""
    num_classes: int | None = field(metadata={"static": True})
    """The number of classes; None unless the program returns one vector per image."""
    labels: tuple[str, ...] | None = field(metadata={"static": True})
    standardize: Standardize | None = field(metadata={"static": True})
    fold: bool = field(metadata={"static": True})
    example_size: tuple[int, int] = field(metadata={"static": True})
    """Height and width of the example images."""
    dtype: Any = field(default=None, metadata={"static": True})
    arithmetic: Ops = field(default=arithmetic.plain, metadata={"static": True})
    exact: bool = field(default=False, metadata={"static": True})
    transformed: dict[str, Any] | None = None
    """The transformed kernels of convolutions (`vizsynth.prepare`)."""

    def prepared(self, exact: bool) -> "Adapted":
        """Return the network with transformed kernels; if exact, with kernels that stay untransformed."""
        if self.exact or (self.transformed is not None and not exact):
            return self
        return replace(self, exact=exact, transformed=None if exact else _transforms(self))

    def unprepared(self) -> "Adapted":
        """Return the network without transforms."""
        return replace(self, transformed=None)

    def __call__(self, images: Images, *, tap: Tap = passthrough, ops: Ops | None = None) -> Value:
        """Return the program's output."""
        ops = self.arithmetic if ops is None else ops
        x = images if self.standardize is None else ops.standardize(images, self.standardize)
        x = x if self.dtype is None else x.astype(self.dtype)
        given = _merged(self.params, self.fixed)
        described = x if hasattr(x, "dtype") and len(x.shape) == 4 else images
        plan = self.source.plan(given, jax.ShapeDtypeStruct(described.shape, described.dtype), fold=self.fold)
        transformed = self.transformed or {}
        return execute(plan, jax.tree.leaves(given), x, tap=tap, ops=ops, transformed=transformed)


@jax.jit
def _transforms(net: Adapted) -> dict[str, Any]:
    """Return the transforms of each convolution's kernel, with normalization folded in."""
    found: dict[str, Any] = {}

    def conv(
        x: Array, kernel: Array, bias: Array | None, *, strides: Pair, padding: Padding, name: str
    ) -> Array:
        if name and kernel.shape[:2] != (1, 1) and kernel.dtype == jnp.float32:
            found[name] = convolution.transforms(kernel, strides, padding)
        return arithmetic.plain.conv(x, kernel, bias, strides=strides, padding=padding, name=name)

    net(jnp.zeros((1, *net.example_size, 3), jnp.float32), ops=arithmetic.plain._replace(conv=conv))
    return found


def _is_real(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.inexact)


def _merged(params: Any, fixed: Any) -> Any:
    return jax.tree.map(lambda a, b: b if a is None else a, params, fixed, is_leaf=lambda x: x is None)


@cache
def _scoped(kind: type, name: str) -> type:
    """Return a module's class with its calls marked by a name in the program."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(name):
            return kind.__call__(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__doc__": kind.__doc__})


def _from_nnx(module: nnx.Module) -> tuple[Source, Any]:
    copy = nnx.merge(*nnx.split(module))  # the caller's module stays unchanged
    copy.eval()
    graph, state = nnx.split(copy)

    def function(state: Any, images: Array) -> Any:
        net = nnx.merge(graph, state)
        for path, part in nnx.iter_modules(net):
            if path and callable(part):
                object.__setattr__(part, "__class__", _scoped(type(part), ".".join(map(str, path))))
        return net(images)

    return Source(function, absolute=True), state


def _from_linen(module: linen.Module, params: Any) -> tuple[Source, Any]:
    known = inspect.signature(type(module).__call__).parameters
    how: dict[str, Any] = {name: value for name, value in _EVALUATION.items() if name in known}

    def function(params: Any, images: Array) -> Any:
        return module.apply(params, images, **how)

    return Source(function, root=type(module).__name__, collections=True), params


def _source(module: Any, params: Any) -> tuple[Source, Any]:
    if isinstance(module, nnx.Module):
        if params is not None:
            raise TypeError("an NNX module holds its parameters: give adapt(module, example=images)")
        return _from_nnx(module)
    if isinstance(module, linen.Module):
        if params is None:
            raise TypeError(
                "a Linen module needs its variables: give adapt(module, variables, example=images), "
                "with trained variables or those of module.init(key, images)"
            )
        return _from_linen(module, params)
    if not callable(module):
        raise TypeError(
            f"module must be a Flax module or a function of (params, images), not {type(module).__name__}"
        )
    if params is None:
        raise TypeError("a function needs its parameters: give adapt(function, params, example=images)")
    return Source(module), params


def adapt(
    module: Any,
    params: Any = None,
    *,
    example: Any,
    standardize: Standardize | None = None,
    labels: Sequence[str] | None = None,
    fold: bool = True,
) -> Adapted:
    """Return any Flax module, or function of (parameters, images), as a network, unmodified.

    The network runs the program that JAX traces: convolutions, products with parameters, ReLUs (also
    `maximum(x, 0)` and `where(x > 0, x, 0)`), pools, means, sums of branches and concatenations go through
    `ops`, also inside nested `jit`, `custom_jvp`, `custom_vjp`, `checkpoint` or `scan`. So a functional ReLU
    and a module used twice are treated like any other.

    Layers have the paths of modules, `ResNetBlock_0.Conv_1`, `blocks.0.conv`, or of parameters if there are
    no modules; operations between them are numbered within the enclosing module, `ResNetBlock_0.relu1`;
    the second use of a module is `conv@2`. The last layer, one vector per image, is also `logits`.
    `net.layers` lists them. Images of another size are traced again, so the network takes all sizes of the
    module.

    Args:
        module: an NNX module, a Linen module, or a function of (params, images). NNX modules run in
            evaluation mode, Linen modules with `train=False` (`training`, `is_training`) and
            `deterministic=True`, if they have such an argument; for others give a function.
        params: the variables of a Linen module, `{"params": ..., "batch_stats": ...}`; the first argument
            of a function; none for an NNX module.
        example: images `[n, h, w, 3]` that the module takes, or their `jax.ShapeDtypeStruct`.
        standardize: how to standardize pixels (`vizsynth.images.Standardize`) for a module trained on
            standardized images; by default it takes [0, 1].
        labels: the names of the classes.
        fold: fold normalization by running statistics into the product before it, as LRP needs; the layer
            then has the normalization's name. False keeps both as layers.

    Returns:
        A network with the given parameters, not copies.

    Raises:
        TypeError: no module or function; a Linen module without variables.
        ValueError: several results; a product or convolution in a `while` or `cond`. A method without a rule
            for an operation raises later, with the operation's name.

    Example:
        >>> import jax, vizsynth
        >>> from flax import nnx
        >>> class Net(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        ...         self.dense = nnx.Linear(8, 10, rngs=rngs)
        ...
        ...     def __call__(self, x):
        ...         return self.dense(nnx.relu(self.conv(x)).mean(axis=(1, 2)))
        >>> images = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
        >>> net = vizsynth.adapt(Net(nnx.Rngs(0)), example=images)
        >>> net.layers
        ('conv', 'relu1', 'mean1', 'dense', 'logits')
        >>> vizsynth.grad_cam(net, images, 3, layer="relu1").shape
        (1, 32, 32)
    """
    source, given = _source(module, params)
    images = jax.ShapeDtypeStruct(example.shape, example.dtype)
    real = jax.tree.map(lambda leaf: leaf if _is_real(leaf) else None, given)
    fixed = jax.tree.map(lambda leaf: None if _is_real(leaf) else leaf, given)
    height, width = images.shape[1:3]
    known = None if labels is None else tuple(labels)
    net = Adapted(real, fixed, source, (), None, known, standardize, fold, (height, width))
    names: list[str] = []

    def listed(name: str, value: Value) -> Value:
        names.append(name)
        return value

    output = jax.eval_shape(lambda net, images: net(images, tap=listed), net, images)
    net.layers = tuple(names)
    net.num_classes = output.shape[-1] if output.ndim == 2 else None
    if labels is not None and len(labels) != net.num_classes:
        raise ValueError(f"there are {len(labels)} labels for {net.num_classes} classes: give one per class")
    return net
