"""A flat program, run through a table of `ops`, its layers tapped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vizsynth.cpu.convolution import Convolution
from vizsynth.cpu.winograd import Kernel
from vizsynth.ops import Ops, Padding
from vizsynth.programs.steps import Step, spatial, spread
from vizsynth.programs.trace import Atom, Equation, Known, Program
from vizsynth.types import Tap, Value


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is known of a network's program before it is run."""

    program: Program
    images: int
    steps: Sequence[Step]
    names: Sequence[Sequence[str]]
    constant: Sequence[Equation]
    """The equations that do not depend on the images."""

    @property
    def makers(self) -> dict[int, Equation]:
        """Which equation computes a value."""
        return {value: equation for equation in self.program.equations for value in equation.outputs}


def execute(
    plan: Plan, weights: Sequence[Any], images: Value, *, tap: Tap, ops: Ops, transformed: Mapping[str, Any]
) -> Value:
    """Return what the program computes for weights (its other inputs, in their order) and images.

    `transformed` is what the kernels of convolutions were transformed to, by the convolutions' names.
    """
    others = [value for value in plan.program.inputs if value != plan.images]
    values: dict[int, Any] = dict(zip(others, weights, strict=True))
    values[plan.images] = images
    run = _Run(plan, values, ops, transformed)
    for equation in plan.constant:
        run.compute(equation)
    for step, names in zip(plan.steps, plan.names, strict=True):
        run.take(step, names[0] if names else "")
        for name in names:
            values[step.output] = tap(name, values[step.output])
    (output,) = plan.program.outputs
    return run.value(output)


class _Run:
    def __init__(self, plan: Plan, values: dict[int, Any], ops: Ops, transformed: Mapping[str, Any]):
        self.program, self.makers = plan.program, plan.makers
        self.values, self.ops = values, ops
        self.ruled = not isinstance(ops.conv, Convolution)
        self.transformed = transformed if isinstance(ops.conv, Convolution) and ops.conv.transforms else {}

    def value(self, atom: Atom) -> Any:
        return atom.value if isinstance(atom, Known) else self.values[atom]

    def compute(self, equation: Equation) -> None:
        """Do what the equation says."""
        found = equation.call(*(self.value(a) for a in equation.inputs))
        self.values |= dict(zip(equation.outputs, found, strict=True))

    def take(self, step: Step, name: str) -> None:
        """Do a step in the words of `ops`."""
        x = self.values[step.inputs[0]]
        match step.kind:
            case "standardize":
                self.values[step.output] = self.ops.standardize(x, lambda x: self.replayed(step, x))
            case "product" if step.equations[0].name == "conv_general_dilated":
                self.values[step.output] = self.convolved(step, x, name)
            case "product":
                self.values[step.output] = self.multiplied(step, x, name)
            case "relu":
                self.values[step.output] = self.ops.relu(x)
            case "add":
                self.values[step.output] = self.ops.add(x, self.values[step.inputs[1]])
            case "concatenate":
                self.values[step.output] = self.ops.concatenate([self.values[i] for i in step.inputs])
            case "max_pool" | "mean_pool":
                self.values[step.output] = self.pooled(step, x)
            case "global_max" | "global_mean":
                self.values[step.output] = self.pooled_whole(step, x)
            case "affine":
                shape = self.program.shape(step.inputs[0])
                factor, offset = self.affine(step.affine, len(shape) - 1, shape[-1], step.inputs[0])
                zeros, ones = jnp.zeros_like(offset), jnp.ones_like(offset)
                self.values[step.output] = self.ops.batch_norm(
                    x, factor, offset, zeros, ones, eps=0.0, name=name
                )
            case "scale":
                self.values[step.output] = self.ops.other(
                    lambda x: self.replayed(step, x), x, name=step.equations[0].name, linear=True
                )
            case "reshape":
                self.reshaped(step)
            case _:
                self.whole(step)

    def replayed(self, step: Step, x: Any) -> Any:
        """Return what a chain of equations makes of another value than the program's."""
        value = step.inputs[0]
        for equation in step.affine or step.equations:
            inputs = [x if a == value else self.value(a) for a in equation.inputs]
            (x,) = equation.call(*inputs)
            (value,) = equation.outputs
        return x

    def reshaped(self, step: Step) -> None:
        (equation,) = step.equations
        x = self.values[step.inputs[0]]
        if isinstance(x, jax.Array) or len(step.inputs) > 1:
            return self.compute(equation)
        if equation.name not in ("reshape", "squeeze", "expand_dims", "convert_element_type"):
            raise TypeError(f"{equation.name} of what is no array")
        same = equation.name == "convert_element_type"
        self.values[step.output] = x if same else self.in_shape(x, step)
        return None

    def in_shape(self, x: Any, step: Step) -> Any:
        """Return a value in the shape of a step's output."""
        shape = self.program.shape(step.output)
        # So that what is no array is told from its arguments to be made flat.
        return x.reshape(shape[0], -1) if len(shape) == 2 else x.reshape(shape)

    def whole(self, step: Step) -> None:
        """Do what `ops` has no word for."""
        *_, last = step.equations
        if len(last.outputs) != 1:
            return self.compute(last)

        def function(*xs: Any) -> Any:
            given = dict(zip(step.inputs, xs, strict=True))
            for equation in step.equations:
                inputs = [given[a] if a in given else self.value(a) for a in equation.inputs]
                given |= dict(zip(equation.outputs, equation.call(*inputs), strict=True))
            return given[step.output]

        self.values[step.output] = self.ops.other(
            function,
            *(self.values[i] for i in step.inputs),
            name=last.name,
            linear=step.kind == "linear",
            elementwise=step.kind == "activation",
        )
        return None

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
        """Return a constant that differs along one axis alone, one number a channel."""
        value = self.value(atom)
        known = spread(self, atom)
        if known is not None and not isinstance(atom, Known):
            value = self.value(self.makers[atom].inputs[0])
        return jnp.broadcast_to(jnp.asarray(value).reshape(-1), (size,))

    def affine(self, chain: Sequence[Equation], axis: int, size: int, value: int) -> tuple[Array, Array]:
        """Return the factor and the offset of each channel."""
        del axis
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

    def bias_of(self, step: Step, kernel: Array, size: int, axis: int) -> tuple[Array, Array | None]:
        """Return the kernel `[..., size]` and the bias, what follows the product made part of them."""
        if not step.affine:
            return kernel, None
        factor, offset = self.affine(step.affine, axis, size, step.equations[0].outputs[0])
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
        axis = numbers.out_spec[1]
        kernel, bias = self.bias_of(step, kernel, kernel.shape[-1], axis)
        last = numbers.lhs_spec == (0, 3, 1, 2)
        if not last:
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
        order = [0, 0, 0, 0]
        for place, at in zip(
            (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1]), range(4), strict=True
        ):
            order[place] = at
        return y.transpose(order)

    def by_the_compiler(self, step: Step, x: Any, name: str) -> Any:
        """Convolve as the program says, where `ops.conv` has no such form: grouped, or not of maps."""
        value = step.inputs[0]

        def function(x: Any) -> Any:
            at = value
            for equation in (*step.equations, *step.affine):
                (x,) = equation.call(*(x if a == at else self.value(a) for a in equation.inputs))
                (at,) = equation.outputs
            return x

        return self.ops.other(function, x, name=name or "conv_general_dilated")

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
        contracted = _size(shape[axis] for axis in own)
        outputs = [weight.shape[axis] for axis in made]
        kernel = weight.transpose(*other, *made).reshape(contracted, _size(outputs))
        kernel, bias = self.bias_of(step, kernel, kernel.shape[1], -1)
        free_shape = [shape[axis] for axis in free]
        if len(free) == 1:
            flat = x if len(own) == 1 else x.reshape(free_shape[0], contracted)
            y = self.ops.linear(flat, kernel, bias, name=name)
        else:  # at each position the same product: a 1x1 convolution
            maps = x.reshape(free_shape[0], *_as_map(free_shape[1:]), contracted)
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


def _size(sides: Any) -> int:
    product = 1
    for side in sides:
        product *= int(side)
    return product


def _as_map(sides: Sequence[int]) -> tuple[int, int]:
    return (sides[0], 1) if len(sides) == 1 else (sides[0], _size(sides[1:]))


def ungrouped(kernel: Array, groups: int) -> Array:
    """Return a grouped convolution's kernel as that of all channels, zeros where a group does not see.

    >>> ungrouped(jnp.ones((1, 1, 1, 2)), 2)[0, 0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    kh, kw, inputs, outputs = kernel.shape
    own = jnp.eye(groups, dtype=kernel.dtype)
    split = kernel.reshape(kh, kw, 1, inputs, groups, outputs // groups)
    return (split * own.reshape(1, 1, groups, 1, groups, 1)).reshape(kh, kw, groups * inputs, outputs)


def dilated(kernel: Array, steps: Sequence[int]) -> Array:
    """Return a kernel whose taps lie so many pixels apart, zeros between them.

    >>> dilated(jnp.ones((2, 1, 1, 1)), (2, 1))[:, 0, 0, 0].tolist()
    [1.0, 0.0, 1.0]
    """
    rows, cols = (step - 1 for step in steps)
    zero = jnp.zeros((), kernel.dtype)
    return jax.lax.pad(kernel, zero, ((0, 0, rows), (0, 0, cols), (0, 0, 0), (0, 0, 0)))
