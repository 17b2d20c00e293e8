"""A flat program as operations of `ops`.

Equations are recognized by their primitives, their constants and the users of their outputs: a sum over a map
with a division is a mean, a product with the sum of a parameter is a layer with a bias, normalization by
running statistics is one factor and one offset per channel.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from vizsynth.programs.trace import ACTIVATIONS, Atom, Equation, Known, Program

Path = tuple[str, ...]


@dataclass(eq=False)
class Step:
    """One operation of `ops`, or equations that it has no operation for."""

    kind: str
    equations: list[Equation]
    """Its equations; the output of the last is the step's."""
    inputs: tuple[int, ...]
    """The values that depend on the images."""
    output: int
    owner: Path
    """Its module."""
    affine: list[Equation] = field(default_factory=list)
    """The arithmetic by constants per channel after a product: bias, normalization."""
    weight: Atom = None
    """The constant factor of a product."""
    folded: bool = False
    """Whether a normalization is among `affine`."""


_RESHAPING = {"reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "rev", "copy"}
_RESHAPING |= {"convert_element_type", "dynamic_slice", "copy_p", "sharding_constraint", "split", "gather"}
_RESHAPING |= {"optimization_barrier", "reduce_precision", "stack", "layout_constraint"}
_AFFINE = {"add", "sub", "mul", "div"}
# Elementwise functions of one value.
_ELEMENTWISE = {"tanh", "logistic", "erf", "exp", "log", "log1p", "expm1", "abs", "sign", "sqrt", "rsqrt"}
_ELEMENTWISE |= {"sin", "cos", "cbrt", "square", "integer_pow", "max", "min", "clamp", "pow", "exp2"}
_LINEAR = {"neg", "reduce_sum", "reduce_window_sum", "cumsum", "mul", "div", "sub", "add", "pad", "add_any"}


def dependent(program: Program, images: int) -> set[int]:
    """Return the values that depend on the images."""
    found = {images}
    for equation in program.equations:
        if any(not isinstance(a, Known) and a in found for a in equation.inputs):
            found |= set(equation.outputs)
    return found


class _Reader:
    """Reads a program equation by equation, with the makers and users of every value."""

    def __init__(self, program: Program, images: int, owners: dict[int, Path], fold: bool):
        self.program, self.fold = program, fold
        self.images = images
        self.data = dependent(program, images)
        self.owners = owners
        """The module of each parameter, and of values computed from it alone."""
        self.users: dict[int, list[Equation]] = {}
        self.makers: dict[int, Equation] = {}
        for equation in program.equations:
            for atom in equation.inputs:
                if not isinstance(atom, Known):
                    self.users.setdefault(atom, []).append(equation)
            self.makers |= dict.fromkeys(equation.outputs, equation)
        self.places = {o: i for i, e in enumerate(program.equations) for o in e.outputs}
        self.results = {a for a in program.outputs if not isinstance(a, Known)}
        self.done: set[int] = set()

    def is_data(self, atom: Atom) -> bool:
        return not isinstance(atom, Known) and atom in self.data

    def next_alone(self, value: int) -> Equation | None:
        """Return the only equation that uses a value; None if there are more or the value is a result."""
        users = self.users.get(value, [])
        return users[0] if len(users) == 1 and value not in self.results else None

    def partner(self, equation: Equation) -> Atom:
        """Return the operand (of two) that does not depend on the images; None if both do."""
        one, other = equation.inputs
        if self.is_data(one) and self.is_data(other):
            return None
        return other if self.is_data(one) else one

    def owner(self, equation: Equation) -> Path:
        """Return the module of an equation: its scope or, without a scope, that of its parameters."""
        if equation.scope:
            return equation.scope
        modules = {self.owners[a] for a in equation.inputs if not isinstance(a, Known) and a in self.owners}
        return modules.pop() if len(modules) == 1 else ()

    def along(self, atom: Atom, shape: Sequence[int], axis: int) -> bool:
        """Tell whether a constant differs along one axis at most."""
        return spread(self, atom) in ((), (axis,)) or all(
            size == 1 or i == axis - len(shape) + len(own)
            for own in [self.program.shape(atom)]
            for i, size in enumerate(own)
        )

    def affine_chain(self, value: int, axis: int) -> list[Equation]:
        """Return the chain of arithmetic by constants along the axis that is the only use of a value."""
        found: list[Equation] = []
        shape = self.program.shape(value)
        while (after := self.next_alone(value)) is not None and after.name in _AFFINE:
            constant = self.partner(after)
            divided_by_data = after.name == "div" and not self.is_data(after.inputs[0])
            if constant is None or divided_by_data or not self.along(constant, shape, axis):
                break
            if self.program.shape(after.outputs[0]) != shape:
                break
            found.append(after)
            value = after.outputs[0]
        return found


def spread(reader: Any, atom: Atom) -> tuple[int, ...] | None:
    """Return the axes along which a broadcast constant varies; None if unknown."""
    if isinstance(atom, Known):
        return () if atom.scalar is not None else None
    maker = reader.makers.get(atom)
    if maker is None or maker.name != "broadcast_in_dim":
        return None
    return tuple(
        axis
        for axis, size in zip(
            maker.params["broadcast_dimensions"], reader.program.shape(maker.inputs[0]), strict=True
        )
        if size > 1
    )


def channel_axis(equation: Equation, program: Program) -> int:
    """Return the axis of a product's output that its weights produce."""
    if equation.name == "conv_general_dilated":
        return equation.params["dimension_numbers"].out_spec[1]
    return len(program.shape(equation.outputs[0])) - 1


def _is_zero(reader: _Reader, atom: Atom) -> bool:
    return _number(reader, atom) == 0


def _number(reader: _Reader, atom: Atom) -> float | None:
    if isinstance(atom, Known):
        return atom.scalar
    maker = reader.makers.get(atom)
    known = maker is not None and maker.name in ("broadcast_in_dim", "convert_element_type")
    return _number(reader, maker.inputs[0]) if maker is not None and known else None


def spatial(window: Sequence[int]) -> tuple[int, int] | None:
    """Return the two axes of maps that a window slides over: (1, 2), or (2, 3) if channels come second."""
    if len(window) != 4 or window[0] != 1:
        return None
    wide = {axis for axis, size in enumerate(window) if size > 1}
    return (1, 2) if wide <= {1, 2} else (2, 3) if wide <= {2, 3} else None


def _mean(reader: _Reader, equation: Equation, count: int) -> Equation | None:
    """Return the division that turns a sum of `count` values into a mean."""
    after = reader.next_alone(equation.outputs[0])
    if after is None or after.name not in ("div", "mul"):
        return None
    constant = reader.partner(after)
    if constant is None or (after.name == "div" and not reader.is_data(after.inputs[0])):
        return None
    number = _number(reader, constant)
    wanted = count if after.name == "div" else 1 / count
    return after if number is not None and abs(number - wanted) <= 1e-6 * wanted else None


def _undilated(params: Any) -> bool:
    return all(d == 1 for key in ("base_dilation", "window_dilation") for d in params[key])


def read(program: Program, images: int, owners: dict[int, Path], *, fold: bool) -> list[Step]:
    """Return the part of the program that depends on the images, as operations of `ops`."""
    reader = _Reader(program, images, owners, fold)
    steps: list[Step] = []
    for equation in program.equations:
        if equation.outputs[0] in reader.done or not any(reader.is_data(a) for a in equation.inputs):
            continue
        step = _step(reader, equation)
        reader.done |= {o for e in (*step.equations, *step.affine) for o in e.outputs}
        steps.append(step)
    return _standardized(reader, _alive(reader, steps))


def _alive(reader: _Reader, steps: list[Step]) -> list[Step]:
    """Drop unused steps, such as the comparison inside a ReLU."""
    wanted, kept = set(reader.results), []
    for step in reversed(steps):
        if wanted & {step.output, *step.equations[-1].outputs}:
            kept.append(step)
            wanted |= set(step.inputs)
    return kept[::-1]


def _step(reader: _Reader, equation: Equation) -> Step:
    name, params, program = equation.name, equation.params, reader.program
    given = tuple(a for a in equation.inputs if reader.is_data(a))
    owner = reader.owner(equation)

    def step(kind: str, *more: Equation, inputs: tuple[int, ...] = given) -> Step:
        equations = [equation, *more]
        return Step(kind, equations, inputs, equations[-1].outputs[0], owner)

    if name in ("conv_general_dilated", "dot_general") and len(given) == 1:
        if name == "conv_general_dilated" and not reader.is_data(equation.inputs[0]):
            return step("other")
        return _product(reader, equation, step)
    if name == "max" and len(given) == 1 and _is_zero(reader, reader.partner(equation)):
        return step("relu")
    if (pair := _selected(reader, equation)) is not None:
        return step("relu", inputs=(pair,))
    if name == "reduce_window_max" and spatial(params["window_dimensions"]) and _undilated(params):
        return step("max_pool")
    if name == "reduce_max" and _over_map(program, equation, given[0]):
        return step("global_max")
    division, kind = None, ""
    if name == "reduce_window_sum" and spatial(params["window_dimensions"]) and _undilated(params):
        division = _mean(reader, equation, math.prod(params["window_dimensions"]))
        kind = "mean_pool"
    elif name == "reduce_sum" and _over_map(program, equation, given[0]):
        h, w = (program.shape(given[0])[axis] for axis in params["axes"])
        division = _mean(reader, equation, h * w)
        kind = "global_mean"
    if division is not None:
        return step(kind, division)
    if (region := _region(reader, equation)) is not None:
        return step("activation", *region, inputs=given[:1])
    if name in ("add", "add_any") and len(given) == 2:
        same = program.shape(given[0]) == program.shape(given[1])
        return step("add" if same else "other")
    if name == "concatenate" and len(given) == len(equation.inputs):
        last = params["dimension"] == len(program.shape(equation.outputs[0])) - 1
        return step("concatenate" if last and len(program.shape(given[0])) == 4 else "reshape")
    if name in _AFFINE and len(given) == 1:
        return _constant_arithmetic(reader, equation, step)
    if not jnp.issubdtype(program.dtypes[equation.outputs[0]], jnp.inexact):
        return step("reshape")  # a comparison, an index: no gradient flows
    if name in _RESHAPING or (name in ("concatenate", "pad") and _blank(reader, equation)):
        return step("reshape")
    if name in ACTIVATIONS or (name in _ELEMENTWISE and len(given) == 1):
        return step("activation")
    return step("linear" if name in _LINEAR and len(given) == 1 else "other")


def _region(reader: _Reader, first: Equation) -> list[Equation] | None:
    """Return the later equations with which an equation is an elementwise function of one value; or None.

    For instance GELU, written out: x (1 + tanh(a x + b x³)) / 2. A ReLU or a chain of constants is none.
    """
    given = {a for a in first.inputs if reader.is_data(a)}
    if len(given) != 1:
        return None
    (x,) = given
    shape, within = reader.program.shape(x), {x}
    if not _is_elementwise(reader, first, shape):
        return None
    region: list[Equation] = []
    begin = reader.places[first.outputs[0]]
    for equation in reader.program.equations[begin:]:
        data = [a for a in equation.inputs if reader.is_data(a)]
        if not data or not set(data) <= within or not _is_elementwise(reader, equation, shape):
            continue
        region.append(equation)
        within |= set(equation.outputs)
    left = [
        equation
        for equation in region
        for value in equation.outputs
        if value in reader.results or any(user not in region for user in reader.users.get(value, []))
    ]
    nonlinear = any(e.name in _ELEMENTWISE or len({*e.inputs} & within) > 1 for e in region)
    if len(left) != 1 or left[0] is not region[-1] or not nonlinear:
        return None
    return region[1:]


def _is_elementwise(reader: _Reader, equation: Equation, shape: tuple[int, ...]) -> bool:
    constants = [a for a in equation.inputs if not reader.is_data(a)]
    if equation.name == "max" and any(_is_zero(reader, a) for a in constants):
        return False
    if _selected(reader, equation) is not None:
        return False
    known = equation.name in _ELEMENTWISE | _AFFINE | {"select_n", "gt", "ge", "lt", "le", "neg"}
    return (
        known
        and reader.program.shape(equation.outputs[0]) == shape
        and all(_number(reader, a) is not None for a in constants)
    )


def _over_map(program: Program, equation: Equation, value: int) -> bool:
    """Tell whether a reduction is over all positions of maps."""
    return len(program.shape(value)) == 4 and tuple(equation.params["axes"]) in ((1, 2), (2, 3))


def _blank(reader: _Reader, equation: Equation) -> bool:
    """Tell whether all constant operands are zeros."""
    return all(reader.is_data(a) or _is_zero(reader, a) for a in equation.inputs)


def _product(reader: _Reader, equation: Equation, step: Any) -> Step:
    weight = reader.partner(equation)
    chain: list[Equation] = []
    swapped = not reader.is_data(equation.inputs[0])
    if not swapped and _outputs(equation, reader.program) == 1:
        chain = reader.affine_chain(equation.outputs[0], channel_axis(equation, reader.program))
    own = reader.owner(equation)
    # A sum in the layer's own module is the bias; later arithmetic is normalization.
    bias = 1 if chain and chain[0].name == "add" and reader.owner(chain[0]) in (own, ()) else 0
    kept = chain if reader.fold else chain[:bias]
    made: Step = step("product")
    made.weight = weight
    made.affine, made.folded = kept, len(kept) > bias
    made.output = (kept[-1] if kept else equation).outputs[0]
    if made.folded:
        made.owner = reader.owner(kept[-1])
    return made


def _outputs(equation: Equation, program: Program) -> int:
    """Return the number of axes of a product's output that its weights produce."""
    if equation.name == "conv_general_dilated":
        return 1
    (_, own), (_, batch) = equation.params["dimension_numbers"]
    return len(program.shape(equation.inputs[1])) - len(own) - len(batch)


def _selected(reader: _Reader, equation: Equation) -> int | None:
    """Return x of `where(x > 0, x, 0)`."""
    if equation.name != "select_n" or len(equation.inputs) != 3:
        return None
    which, no, yes = equation.inputs
    test = reader.makers.get(which) if not isinstance(which, Known) else None
    if test is None or test.name not in ("gt", "ge") or not reader.is_data(yes) or not _is_zero(reader, no):
        return None
    return yes if test.inputs[0] == yes and _is_zero(reader, test.inputs[1]) else None


def _constant_arithmetic(reader: _Reader, equation: Equation, step: Any) -> Step:
    """Return arithmetic by constants that follows no product: a factor and offset per channel, if it is."""
    value = next(a for a in equation.inputs if reader.is_data(a))
    shape = reader.program.shape(value)
    constant = reader.partner(equation)
    if equation.name == "div" and not reader.is_data(equation.inputs[0]):
        return step("other")
    if len(shape) < 2 or reader.program.shape(equation.outputs[0]) != shape:
        return step("linear")
    if not reader.along(constant, shape, len(shape) - 1):
        return step("linear")
    made: Step = step("affine")
    made.affine = [equation, *reader.affine_chain(equation.outputs[0], len(shape) - 1)]
    made.output, made.owner = made.affine[-1].outputs[0], reader.owner(made.affine[-1])
    factors = [_number(reader, reader.partner(e)) for e in made.affine if e.name in ("mul", "div")]
    if len(factors) == len(made.affine) and None not in factors:
        made.kind = "scale"
    return made


def _standardized(reader: _Reader, steps: list[Step]) -> list[Step]:
    """Join the first arithmetic on the pixels into one step, the standardization."""
    pixels, first, value = [], reader.images, reader.images
    by_input = {step.inputs: step for step in steps if len(step.inputs) == 1}
    uses = Counter(i for step in steps for i in step.inputs)
    while uses[value] == 1 and (step := by_input.get((value,))) is not None:
        if step.kind not in ("affine", "scale", "linear", "reshape") or value in reader.results:
            break
        if any(len(e.outputs) > 1 for e in step.equations) or step.equations[0].name.startswith("reduce"):
            break
        pixels.append(step)
        value = step.output
    while pixels and pixels[-1].kind == "reshape":  # not part of it
        pixels.pop()
    if not pixels:
        return steps
    whole = Step("standardize", [], (first,), pixels[-1].output, pixels[-1].owner)
    whole.equations = [e for step in pixels for e in (step.affine or step.equations)]
    return [whole, *(step for step in steps if step not in pixels)]
