"""Is a function affine, and does it depend on its input? Answered from its traced program, before a run."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

# Linear in all array operands together.
_LINEAR = {"add", "sub", "add_any", "neg", "copy", "convert_element_type", "reduce_sum", "reshape", "pad"}
_LINEAR |= {"broadcast_in_dim", "transpose", "squeeze", "expand_dims", "slice", "concatenate", "rev"}
# Linear in the operand at this place, if no other operand depends on the input.
_LINEAR_IN = {"div": 0, "gather": 0, "dynamic_slice": 0}
# Linear in either operand, if the other does not depend on the input.
_BILINEAR = frozenset({"mul", "dot_general", "conv_general_dilated"})


def is_affine(function: Callable[[Any], Any], example: Any) -> bool:
    """Tell whether a function of one array is certainly affine; False in doubt.

    >>> import jax.numpy as jnp
    >>> is_affine(lambda x: 2 * x.mean() + 1, jnp.ones(3)), is_affine(jnp.abs, jnp.ones(3))
    (True, False)
    """
    closed = jax.make_jaxpr(function)(example)
    return _depends_affinely(closed.jaxpr, [True]) is not None


def depends(function: Callable[[Any], Any], example: Any) -> bool:
    """Tell whether a function of one array may depend on it; True in doubt.

    >>> import jax.numpy as jnp
    >>> depends(lambda x: x.mean(), jnp.ones(3)), depends(lambda x: jnp.zeros_like(x), jnp.ones(3))
    (True, False)
    """
    jaxpr = jax.make_jaxpr(function)(example).jaxpr
    dependent = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in dependent for v in equation.invars):
            dependent |= set(equation.outvars)
    return any(not isinstance(v, Literal) and v in dependent for v in jaxpr.outvars)


def _depends_affinely(jaxpr: Jaxpr, inputs: Sequence[bool]) -> list[bool] | None:
    """Tell per output whether it depends on the marked inputs; None if one is not affine in them."""
    dependent = {v for v, marked in zip(jaxpr.invars, inputs, strict=True) if marked}

    def marked(v: Any) -> bool:
        return not isinstance(v, Literal) and v in dependent

    for equation in jaxpr.eqns:
        marks = [marked(v) for v in equation.invars]
        if not any(marks):
            continue
        name = equation.primitive.name
        if name in _LINEAR:
            outputs: list[bool] | None = [True] * len(equation.outvars)
        elif name in _BILINEAR:
            outputs = [True] if sum(marks) == 1 else None
        elif name in _LINEAR_IN:
            outputs = [True] if marks[_LINEAR_IN[name]] and sum(marks) == 1 else None
        elif name in ("jit", "pjit"):
            outputs = _depends_affinely(equation.params["jaxpr"].jaxpr, marks)
        else:
            outputs = None
        if outputs is None:
            return None
        dependent |= {v for v, mark in zip(equation.outvars, outputs, strict=True) if mark}
    return [marked(v) for v in jaxpr.outvars]
