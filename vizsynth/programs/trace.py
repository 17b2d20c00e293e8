"""A traced program as one flat list of equations.

JAX nests programs: a jitted function, a checkpoint, a custom derivative or a scan is an equation that holds
equations. Here they are one list. Each equation knows its module, by the name scopes of the program.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

Atom = Any
"""A value's number, or a `Known`."""


@dataclass(frozen=True, eq=False)
class Known:
    """A constant in the program."""

    value: Any

    @property
    def scalar(self) -> float | None:
        """The value, if it is one number."""
        value = np.asarray(self.value) if np.ndim(self.value) == 0 else None
        return None if value is None or value.dtype.kind not in "fiub" else float(value)


@dataclass(frozen=True, eq=False)
class Equation:
    """One operation of the program."""

    name: str
    """The name of its primitive; for a call kept whole, the name of the function."""
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]
    params: Mapping[str, Any]
    call: Callable[..., Sequence[Any]]
    """Computes the outputs."""
    scope: tuple[str, ...]


@dataclass
class Program:
    """Equations in the order of computation."""

    inputs: list[int]
    outputs: list[Atom] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[int, Any] = field(default_factory=dict)

    def new(self, aval: Any) -> int:
        """Return a new value's number."""
        number = len(self.shapes)
        self.shapes[number], self.dtypes[number] = tuple(aval.shape), aval.dtype
        return number

    def shape(self, atom: Atom) -> tuple[int, ...]:
        """Return a value's shape."""
        return tuple(np.shape(atom.value)) if isinstance(atom, Known) else self.shapes[atom]


# Primitives of the operations in `ops`: calls that hold them are opened.
_WORDS = {"conv_general_dilated", "dot_general", "reduce_window_max", "reduce_window_sum"}
_PLAIN_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_DERIVATIVES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
# Elementwise functions of one value, kept whole so that a rule can pass through them.
ACTIVATIONS = {"silu", "swish", "gelu", "elu", "selu", "celu", "leaky_relu", "softplus", "sigmoid"}
ACTIVATIONS |= {"hard_swish", "hard_silu", "hard_sigmoid", "mish", "soft_sign", "log_sigmoid", "squareplus"}


def trace(function: Callable[..., Any], *avals: Any) -> Program:
    """Return the flat program of a function of arrays and trees of arrays.

    >>> program = trace(lambda x: jax.nn.relu(x) @ x, jax.ShapeDtypeStruct((2, 2), jnp.float32))
    >>> [equation.name for equation in program.equations]
    ['max', 'dot_general']
    """
    # The author of the network may rely on promotions that the caller forbids.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        closed = jax.make_jaxpr(function)(*avals)
    program = Program([])
    program.inputs = [program.new(v.aval) for v in closed.jaxpr.invars]
    constants = [Known(value) for value in closed.consts]
    program.outputs = _walk(program, closed.jaxpr, constants, list(program.inputs), ())
    return program


def _inner(equation: Any) -> tuple[Any, list[Known]] | None:
    """Return the program that an equation calls, with its constants."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(key)
        if isinstance(inner, core.ClosedJaxpr):
            return inner.jaxpr, [Known(value) for value in inner.consts]
        if isinstance(inner, core.Jaxpr):
            return inner, []
    return None


def holds_words(jaxpr: Any) -> bool:
    """Tell whether a program holds an operation of `ops`."""
    return any(
        e.primitive.name in _WORDS or (e.primitive.name == "max" and _has_zero(e)) or _holds_any(e)
        for e in jaxpr.eqns
    )


def _holds_any(equation: Any) -> bool:
    """Tell whether an equation calls a program that holds an operation of `ops`."""
    programs = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program)
    return any(_is_program(p) and holds_words(getattr(p, "jaxpr", p)) for p in programs)


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _has_zero(equation: Any) -> bool:
    literals = [v.val for v in equation.invars if isinstance(v, core.Literal)]
    return any(np.ndim(value) == 0 and value == 0 for value in literals)


def _scope(equation: Any) -> tuple[str, ...]:
    return tuple(part for part in str(equation.source_info.name_stack).split("/") if part)


def _walk(
    program: Program, jaxpr: Any, constants: Sequence[Atom], inputs: Sequence[Atom], scope: tuple[str, ...]
) -> list[Atom]:
    """Append a program's equations to the list; return its outputs."""
    atoms: dict[Any, Atom] = dict(zip(jaxpr.constvars, constants, strict=True))
    atoms |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(v: Any) -> Atom:
        return Known(v.val) if isinstance(v, core.Literal) else atoms[v]

    for equation in jaxpr.eqns:
        name = equation.primitive.name
        given = [read(v) for v in equation.invars]
        here = scope + _scope(equation)
        inner = _inner(equation)
        function = str(equation.params.get("name", name))
        ruled = inner is not None and holds_words(inner[0])
        if name == "scan" and ruled:
            found = _unrolled(program, equation, given, here)
        elif name in ("while", "cond") and _holds_any(equation):
            raise ValueError(
                f"{'.'.join(here) or 'the network'} convolves, multiplies or pools within a {name!r} of JAX, "
                "whose steps cannot be separated: use a Python loop or condition, or jax.lax.scan"
            )
        elif inner is not None and (
            (name in _PLAIN_CALLS and (ruled or function not in ACTIVATIONS))
            or (name in _DERIVATIVES and ruled)
        ):
            found = _walk(program, inner[0], inner[1], given, here)
        else:
            outputs = tuple(program.new(v.aval) for v in equation.outvars)
            call = _binding(jaxpr, equation)
            title = function if name in _PLAIN_CALLS | _DERIVATIVES else name
            program.equations.append(Equation(title, tuple(given), outputs, equation.params, call, here))
            found = list(outputs)
        atoms |= dict(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _binding(jaxpr: Any, equation: Any) -> Callable[..., Sequence[Any]]:
    """Return the equation as a function of all its inputs, its literals included."""
    variables = list(dict.fromkeys(v for v in equation.invars if not isinstance(v, core.Literal)))
    alone = jaxpr.replace(constvars=[], invars=variables, outvars=equation.outvars, eqns=[equation])
    function = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))

    def call(*values: Any) -> Sequence[Any]:
        given = [
            (v, x) for v, x in zip(equation.invars, values, strict=True) if not isinstance(v, core.Literal)
        ]
        known = dict(given)
        return function(*(known[v] for v in variables))

    return call


def _unrolled(program: Program, equation: Any, given: Sequence[Atom], scope: tuple[str, ...]) -> list[Atom]:
    """Append the steps of a scan one after another, step i in the scope `[i]`."""
    body, length = equation.params["jaxpr"], equation.params["length"]
    fixed, carried = equation.params["num_consts"], equation.params["num_carry"]
    constants, carry, rows = given[:fixed], list(given[fixed : fixed + carried]), given[fixed + carried :]
    results: list[list[Atom]] = []
    order = range(length)[::-1] if equation.params["reverse"] else range(length)
    for i in order:
        row = [_picked(program, x, i, scope) for x in rows]
        known = [Known(value) for value in body.consts]
        found = _walk(program, body.jaxpr, known, [*constants, *carry, *row], (*scope, f"[{i}]"))
        carry, ys = found[:carried], found[carried:]
        results.append(ys)
    if equation.params["reverse"]:
        results.reverse()
    stacked = [_stacked(program, list(ys), scope) for ys in zip(*results, strict=True)]
    return [*carry, *stacked]


def _structural(
    program: Program, name: str, call: Callable[..., Any], inputs: Sequence[Atom], scope: tuple[str, ...]
) -> int:
    avals = [
        jax.eval_shape(lambda v=a.value: jnp.asarray(v))
        if isinstance(a, Known)
        else jax.ShapeDtypeStruct(program.shapes[a], program.dtypes[a])
        for a in inputs
    ]
    output = program.new(jax.eval_shape(call, *avals))
    program.equations.append(
        Equation(name, tuple(inputs), (output,), {}, lambda *values: [call(*values)], scope)
    )
    return output


def _picked(program: Program, x: Atom, i: int, scope: tuple[str, ...]) -> int:
    return _structural(program, "slice", lambda x: jnp.asarray(x)[i], [x], scope)


def _stacked(program: Program, ys: list[Atom], scope: tuple[str, ...]) -> int:
    return _structural(program, "stack", lambda *ys: jnp.stack(ys), ys, scope)
