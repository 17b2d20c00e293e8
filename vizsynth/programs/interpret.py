"""Run a flat program through a table of `ops`, and tap its layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vizsynth.cpu.convolution import Convolution
from vizsynth.cpu.winograd import Kernel
from vizsynth.ops import Ops, Padding
from vizsynth.programs.steps import Step, spatial, spread
from vizsynth.programs.trace import Atom, Equation, Known, Program
from vizsynth.types import Tap, Value


@dataclass(frozen=True, eq=False)
class Plan:
    """A network's program, ready to run."""

    program: Program
    images: int
    steps: Sequence[Step]
    names: Sequence[Sequence[str]]
    constant: Sequence[Equation]
    """The equations that do not depend on the images."""

    @property
    def makers(self) -> dict[int, Equation]:
        """The equation that computes each value."""
        return {value: equation for equation in self.program.equations for value in equation.outputs}


def execute(
    plan: Plan, weights: Sequence[Any], images: Value, *, tap: Tap, ops: Ops, transformed: Mapping[str, Any]
) -> Value:
    """Return the program's output for weights (its other inputs, in order) and images.

    `transformed` holds the transformed kernels of convolutions, by the convolutions' names.
    """
    others = [value for value in plan.program.inputs if value != plan.images]
    values: dict[int, Any] = dict(zip(others, weights, strict=True))
    values[plan.images] = images
    run = _Run(plan, values, ops, transformed)
    for equation in plan.constant:
        run.compute(equation)
    for step, names in zip(plan.steps, plan.names, strict=True):
        value = run.take(step, names[0] if names else "")
        for name in names:
            value = tap(name, value)
        values[step.output] = value
    (output,) = plan.program.outputs
    return run.value(output)


class _Run:
    def __init__(self, plan: Plan, values: dict[int, Any], ops: Ops, transformed: Mapping[str, Any]):
        self.program, self.makers = plan.program, plan.makers
        self.values, self.ops = values, ops
        # Whether the convolution has a rule of its own.
        self.ruled = not isinstance(ops.conv, Convolution)
        self.transformed = transformed if isinstance(ops.conv, Convolution) and ops.conv.transforms else {}

    def value(self, atom: Atom) -> Any:
        return atom.value if isinstance(atom, Known) else self.values[atom]

    def compute(self, equation: Equation) -> None:
        """Compute an equation."""
        found = equation.call(*(self.value(a) for a in equation.inputs))
        self.values |= dict(zip(equation.outputs, found, strict=True))

    def take(self, step: Step, name: str) -> Value:
        """Return the output of a step, by an operation of `ops`."""
        x, ops = self.values[step.inputs[0]], self.ops
        match step.kind:
            case "standardize":
                return ops.standardize(x, lambda x: self.replayed(step, x, step.equations))
            case "product" if step.equations[0].name == "conv_general_dilated":
                return self.convolved(step, x, name)
            case "product":
                return self.multiplied(step, x, name)
            case "relu":
                return ops.relu(x)
            case "add":
                return ops.add(x, self.values[step.inputs[1]])
            case "concatenate":
                return ops.concatenate([self.values[i] for i in step.inputs])
            case "max_pool" | "mean_pool":
                return self.pooled(step, x)
            case "global_max" | "global_mean":
                return self.pooled_whole(step, x)
            case "affine":
                size = self.program.shape(step.inputs[0])[-1]
                factor, offset = self.affine(step.affine, size, step.inputs[0])
                zeros, ones = jnp.zeros_like(offset), jnp.ones_like(offset)
                return ops.batch_norm(x, factor, offset, zeros, ones, eps=0.0, name=name)
            case "scale":
                return ops.other(
                    lambda x: self.replayed(step, x, step.affine),
                    x,
                    name=step.equations[0].name,
                    linear=True,
                )
            case "reshape":
                return self.reshaped(step, x)
            case _:
                return self.whole(step)

    def replayed(self, step: Step, x: Any, chain: Sequence[Equation]) -> Any:
        """Return the result of a chain of equations for another value in place of the step's input."""
        value = step.inputs[0]
        for equation in chain:
            inputs = [x if a == value else self.value(a) for a in equation.inputs]
            (x,) = equation.call(*inputs)
            (value,) = equation.outputs
        return x

    def reshaped(self, step: Step, x: Any) -> Any:
        (equation,) = step.equations
        if isinstance(x, jax.Array) or len(step.inputs) > 1:
            return self.computed(step, equation)
        if equation.name not in ("reshape", "squeeze", "expand_dims", "convert_element_type"):
            raise TypeError(f"{equation.name} takes an array, not a {type(x).__name__}")
        return x if equation.name == "convert_element_type" else self.in_shape(x, step)

    def computed(self, step: Step, equation: Equation) -> Any:
        self.compute(equation)
        return self.values[step.output]

    def in_shape(self, x: Any, step: Step) -> Any:
        """Return a value in the shape of a step's output."""
        shape = self.program.shape(step.output)
        # Values that are no arrays recognize this form of flattening.
        return x.reshape(shape[0], -1) if len(shape) == 2 else x.reshape(shape)

    def whole(self, step: Step) -> Any:
        """Compute a step that `ops` has no operation for."""
        *_, last = step.equations
        if len(last.outputs) != 1:
            return self.computed(step, last)

        def function(*xs: Any) -> Any:
            given = dict(zip(step.inputs, xs, strict=True))
            for equation in step.equations:
                inputs = [given[a] if a in given else self.value(a) for a in equation.inputs]
                given |= dict(zip(equation.outputs, equation.call(*inputs), strict=True))
            return given[step.output]

        return self.ops.other(
            function,
            *(self.values[i] for i in step.inputs),
            name=last.name,
            linear=step.kind == "linear",
            elementwise=step.kind == "activation",
        )

    # Pools --------------------------------------------------------------------------

    def pooled(self, step: Step, x: Any) -> Any:
        params = step.equations[0].params
        axes = spatial(params["window_dimensions"])
        window, strides, padding = (
            tuple(params[key][axis] for axis in axes or ())
            for key in ("window_dimensions", "window_strides", "padding")
        )
        pool = self.ops.max_pool if step.kind == "max_pool" else self.ops.mean_pool
        return self.channels_last(x, axes, lambda x: pool(x, window=window, strides=strides, padding=padding))

    def pooled_whole(self, step: Step, x: Any) -> Any:
        axes = tuple(step.equations[0].params["axes"])
        window = tuple(self.program.shape(step.inputs[0])[axis] for axis in axes)

        def pool(x: Any) -> Any:
            if step.kind == "global_mean":
                return self.ops.adaptive_mean_pool(x, size=(1, 1))
            return self.ops.max_pool(x, window=window, strides=window, padding=((0, 0), (0, 0)))

        return self.in_shape(self.channels_last(x, axes, pool), step)

    @staticmethod
    def channels_last(x: Any, axes: Any, function: Any) -> Any:
        if axes == (1, 2):
            return function(x)
        return function(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    # Products ------------------------------------------------------------------------

    def vector(self, atom: Atom, size: int) -> Array:
        """Return a constant that varies along one axis, as one number per channel."""
        value = self.value(atom)
        known = spread(self, atom)
        if known is not None and not isinstance(atom, Known):
            value = self.value(self.makers[atom].inputs[0])
        return jnp.broadcast_to(jnp.asarray(value).reshape(-1), (size,))

    def affine(self, chain: Sequence[Equation], size: int, value: int) -> tuple[Array, Array]:
        """Return the factor and the offset per channel of a chain of arithmetic by constants."""
        dtype = self.program.dtypes[value]
        factor, offset = jnp.ones(size, dtype), jnp.zeros(size, dtype)
        for equation in chain:
            before = equation.inputs[0] == value
            constant = self.vector(equation.inputs[1 if before else 0], size).astype(dtype)
            match equation.name:
                case "add":
                    offset = offset + constant
                case "sub" if before:
                    offset = offset - constant
                case "sub":
                    factor, offset = -factor, constant - offset
                case "mul":
                    factor, offset = factor * constant, offset * constant
                case "div":
                    factor, offset = factor / constant, offset / constant
            (value,) = equation.outputs
        return factor, offset

    def bias_of(self, step: Step, kernel: Array) -> tuple[Array, Array | None]:
        """Return the kernel `[..., size]` and the bias, with the later arithmetic folded in."""
        if not step.affine:
            return kernel, None
        factor, offset = self.affine(step.affine, kernel.shape[-1], step.equations[0].outputs[0])
        if step.folded:
            kernel = kernel * jnp.broadcast_to(factor.astype(kernel.dtype), kernel.shape)
        return kernel, offset

    def convolved(self, step: Step, x: Any, name: str) -> Any:
        equation = step.equations[0]
        params, numbers = equation.params, equation.params["dimension_numbers"]
        if len(numbers.lhs_spec) != 4 or params["batch_group_count"] != 1:
            return self.by_the_compiler(step, x, name)
        kernel = self.value(step.weight).transpose(
            *numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]
        )
        groups = params["feature_group_count"]
        if groups != 1:
            if not self.ruled:
                return self.by_the_compiler(step, x, name)
            kernel = ungrouped(kernel, groups)
        if params["rhs_dilation"] != (1, 1):
            kernel = dilated(kernel, params["rhs_dilation"])
        kernel, bias = self.bias_of(step, kernel)
        if numbers.lhs_spec != (0, 3, 1, 2):
            x = x.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
        if params["lhs_dilation"] != (1, 1):
            rows, cols = (d - 1 for d in params["lhs_dilation"])
            zero = jnp.zeros((), x.dtype)
            x = jax.lax.pad(x, zero, ((0, 0, 0), (0, 0, rows), (0, 0, cols), (0, 0, 0)))
        padding: Padding = tuple((int(a), int(b)) for a, b in params["padding"])  # type: ignore[assignment]
        known: Any = Kernel(kernel, *self.transformed[name]) if name in self.transformed else kernel
        y = self.ops.conv(x, known, bias, strides=tuple(params["window_strides"]), padding=padding, name=name)
        if numbers.out_spec == (0, 3, 1, 2):
            return y
        batch, channel, *positions = numbers.out_spec
        return y.transpose(*np.argsort([batch, *positions, channel]).tolist())

    def by_the_compiler(self, step: Step, x: Any, name: str) -> Any:
        """Compute a product that `ops` has no form for: grouped, batched, or not of maps."""
        chain = (*step.equations, *step.affine)
        return self.ops.other(lambda x: self.replayed(step, x, chain), x, name=name or "conv_general_dilated")

    def multiplied(self, step: Step, x: Any, name: str) -> Any:
        equation = step.equations[0]
        (lhs, rhs), batch = equation.params["dimension_numbers"]
        swapped = equation.inputs[0] != step.inputs[0]
        own, other = (rhs, lhs) if swapped else (lhs, rhs)
        weight = self.value(step.weight)
        if any(batch) or 0 in own:
            return self.by_the_compiler(step, x, name)
        shape = self.program.shape(step.inputs[0])
        free = [axis for axis in range(len(shape)) if axis not in own]
        made = [axis for axis in range(weight.ndim) if axis not in other]
        order = (*free, *own)
        if order != tuple(range(len(shape))):
            x = x.transpose(order)
        contracted = math.prod(shape[axis] for axis in own)
        outputs = [weight.shape[axis] for axis in made]
        kernel = weight.transpose(*other, *made).reshape(contracted, math.prod(outputs))
        kernel, bias = self.bias_of(step, kernel)
        free_shape = [shape[axis] for axis in free]
        if len(free) == 1:
            flat = x if len(own) == 1 else x.reshape(free_shape[0], contracted)
            y = self.ops.linear(flat, kernel, bias, name=name)
        else:  # the same product at each position: a 1x1 convolution
            maps = x.reshape(free_shape[0], free_shape[1], math.prod(free_shape[2:]), contracted)
            y = self.ops.conv(
                maps, kernel[None, None], bias, strides=(1, 1), padding=((0, 0), (0, 0)), name=name
            )
        if len(free) == 1 and len(outputs) == 1 and not swapped:
            return y
        y = y.reshape(*free_shape, *outputs)
        if not swapped:
            return y
        k = len(free)
        return y.transpose(*range(k, k + len(outputs)), *range(k))


def ungrouped(kernel: Array, groups: int) -> Array:
    """Return a grouped convolution's kernel as a dense one, with zeros between groups.

    >>> ungrouped(jnp.ones((1, 1, 1, 2)), 2)[0, 0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    kh, kw, inputs, outputs = kernel.shape
    own = jnp.eye(groups, dtype=kernel.dtype)
    split = kernel.reshape(kh, kw, 1, inputs, groups, outputs // groups)
    return (split * own.reshape(1, 1, groups, 1, groups, 1)).reshape(kh, kw, groups * inputs, outputs)


def dilated(kernel: Array, steps: Sequence[int]) -> Array:
    """Return a dilated kernel: its taps `steps` pixels apart, with zeros between.

    >>> dilated(jnp.ones((2, 1, 1, 1)), (2, 1))[:, 0, 0, 0].tolist()
    [1.0, 0.0, 1.0]
    """
    rows, cols = (step - 1 for step in steps)
    zero = jnp.zeros((), kernel.dtype)
    return jax.lax.pad(kernel, zero, ((0, 0, rows), (0, 0, cols), (0, 0, 0), (0, 0, 0)))
