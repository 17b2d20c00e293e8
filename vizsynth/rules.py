"""Backward rules, as tables of operations.

A rule belongs to the arithmetic and not to a module, so a re-used layer or a functional ReLU is treated like
any other.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vizsynth import ops
from vizsynth.core.pytrees import pytree
from vizsynth.cpu.convolution import with_bias


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    """Rectify; backward, pass R where the input and R are positive: R · 1[x > 0] · 1[R > 0].

    Source: Springenberg, Dosovitskiy, Brox & Riedmiller, Striving for Simplicity: The All Convolutional
    Net, 2014, section 3.4, figure 1.
    """
    return jax.nn.relu(x)


guided_relu.defvjp(
    lambda x: (jax.nn.relu(x), x > 0),
    lambda positive, R: (jnp.where(positive, jax.nn.relu(R), jnp.zeros_like(R)),),
)


@jax.custom_vjp
def deconvnet_relu(x: Array) -> Array:
    """Rectify; backward, rectify R whatever the input: R · 1[R > 0].

    Source: Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, section 2.1.
    """
    return jax.nn.relu(x)


deconvnet_relu.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, R: (jax.nn.relu(R),))

guided = ops.fast._replace(relu=guided_relu)
"""Guided backpropagation."""

deconvnet = ops.fast._replace(relu=deconvnet_relu)
"""The deconvolutional network; max-pooling goes back through its switches."""


# Layer-wise relevance propagation ---------------------------------------------------------------------
#
# Bach, Binder, Montavon, Klauschen, Müller & Samek, On Pixel-Wise Explanations for Non-Linear Classifier
# Decisions by Layer-Wise Relevance Propagation, 2015. Montavon, Binder, Lapuschkin, Samek & Müller,
# Layer-Wise Relevance Propagation: An Overview, 2019.
#
# A layer z = Σ_i f(a_i, W_i) + b, f linear in both, hands the relevance R of its outputs down in
# proportion to the contribution of each input to z:  R_in = Σ_i a_i ⊙ f(·, W_i)ᵀ (R / s(z)),
# s(z) = z + ε sign(z), sign(0) = 1. A rule defines the inputs a_i, the weights W_i and the bias.


class Group(NamedTuple):
    """One z of a rule: the pairs (a_i, W_i), the bias, and the share of R to hand down."""

    terms: Sequence[tuple[Array, Array]]
    bias: Array | None
    share: Any = 1.0


def _positive(a: Array | None) -> Any:
    return None if a is None else jnp.maximum(a, jnp.zeros_like(a))


def _negative(a: Array | None) -> Any:
    return None if a is None else jnp.minimum(a, jnp.zeros_like(a))


def _plus(w: Array | None, gamma: Any, part: Array | None) -> Any:
    return None if w is None or part is None else w + jnp.asarray(gamma, w.dtype) * part


@pytree
@dataclass(frozen=True)
class Epsilon:
    """LRP-ε: z = W x + b (Bach et al., eq. 58)."""

    epsilon: Any = 1e-6

    def groups(self, x: Array, w: Array, b: Array | None, z: Array) -> list[Group]:
        """Return the one group."""
        del z
        return [Group([(x, w)], b)]


@pytree
@dataclass(frozen=True)
class ZPlus:
    """z⁺, or α1β0: only positive contributions, z = W⁺x⁺ + W⁻x⁻ + b⁺ (Montavon et al., table 10.1)."""

    epsilon: Any = 1e-6

    def groups(self, x: Array, w: Array, b: Array | None, z: Array) -> list[Group]:
        """Return the one group."""
        del z
        return [Group([(_positive(x), _positive(w)), (_negative(x), _negative(w))], _positive(b))]


@pytree
@dataclass(frozen=True)
class AlphaBeta:
    """LRP-αβ: α times positive less β times negative contributions, α − β = 1 (Bach et al., eq. 60)."""

    alpha: Any = 2.0
    beta: Any = 1.0
    epsilon: Any = 1e-6

    def groups(self, x: Array, w: Array, b: Array | None, z: Array) -> list[Group]:
        """Return the positive and the negative group."""
        del z
        alpha, beta = jnp.asarray(self.alpha, x.dtype), jnp.asarray(self.beta, x.dtype)
        positive = [(_positive(x), _positive(w)), (_negative(x), _negative(w))]
        negative = [(_positive(x), _negative(w)), (_negative(x), _positive(w))]
        return [Group(positive, _positive(b), alpha), Group(negative, _negative(b), -beta)]


@pytree
@dataclass(frozen=True)
class Gamma:
    """LRP-γ: weights of the sign of the output count 1 + γ times (Montavon et al., table 10.1).

    In the form for inputs of any sign: an output z > 0 favours positive contributions, z < 0 negative ones,
    and z = 0 hands nothing down.
    """

    gamma: Any = 0.25
    epsilon: Any = 1e-6

    def groups(self, x: Array, w: Array, b: Array | None, z: Array) -> list[Group]:
        """Return the group of positive outputs and that of negative ones."""
        up, down = _plus(w, self.gamma, _positive(w)), _plus(w, self.gamma, _negative(w))
        b_up, b_down = _plus(b, self.gamma, _positive(b)), _plus(b, self.gamma, _negative(b))
        high, low = _positive(x), _negative(x)
        return [
            Group([(high, up), (low, down)], b_up, (z > 0).astype(z.dtype)),
            Group([(high, down), (low, up)], b_down, (z < 0).astype(z.dtype)),
        ]


@pytree
@dataclass(frozen=True)
class ZBox:
    """z^B, for pixels in [l, h]: z = W x − W⁺l − W⁻h (Montavon et al., Deep Taylor Decomposition, 2017).

    `low` and `high` bound the pixels of the image, before standardization.
    """

    low: Any = 0.0
    high: Any = 1.0
    epsilon: Any = 1e-6

    def groups(self, x: Array, w: Array, b: Array | None, z: Array) -> list[Group]:
        """Return the one group; the bias cancels, b − b⁺ − b⁻ = 0."""
        del b, z
        low = jnp.broadcast_to(jnp.asarray(self.low, x.dtype), x.shape)
        high = jnp.broadcast_to(jnp.asarray(self.high, x.dtype), x.shape)
        return [Group([(x, w), (-low, _positive(w)), (-high, _negative(w))], None)]


@pytree
@dataclass(frozen=True)
class WSquare:
    """w²: in proportion to the squared weights, whatever the inputs, z = W² 1 + b²."""

    epsilon: Any = 1e-6

    def groups(self, x: Array, w: Array, b: Array | None, z: Array) -> list[Group]:
        """Return the one group."""
        del z
        return [Group([(jnp.ones_like(x), w * w)], None if b is None else b * b)]


@pytree
@dataclass(frozen=True)
class Flat:
    """♭: evenly over all inputs, whatever the weights (Lapuschkin et al., 2019)."""

    epsilon: Any = 1e-6

    def groups(self, x: Array, w: Array, b: Array | None, z: Array) -> list[Group]:
        """Return the one group."""
        del b, z
        return [Group([(jnp.ones_like(x), jnp.ones_like(w))], None)]


Rule = Epsilon | ZPlus | AlphaBeta | Gamma | ZBox | WSquare | Flat


class Composite(NamedTuple):
    """The rule of each kind of layer. Numbers are leaves: a sweep of γ compiles once."""

    conv: Rule
    linear: Rule
    first: Rule | None = None
    """The rule of the first layer; None: that of its kind."""


EPSILON_PLUS = Composite(conv=ZPlus(), linear=Epsilon())
EPSILON_PLUS_FLAT = Composite(conv=ZPlus(), linear=Epsilon(), first=Flat())
EPSILON_GAMMA_BOX = Composite(conv=Gamma(), linear=Epsilon(), first=ZBox())
EPSILON_ALPHA2_BETA1 = Composite(conv=AlphaBeta(), linear=Epsilon())
EPSILON_ALPHA2_BETA1_FLAT = Composite(conv=AlphaBeta(), linear=Epsilon(), first=Flat())


def stabilized(z: Array, epsilon: Any) -> Array:
    """Return z + ε sign(z), sign(0) = 1."""
    epsilon = jnp.asarray(epsilon, z.dtype)
    return z + jnp.where(z >= 0, epsilon, -epsilon)


def _passing(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return a function of one value whose backward pass hands R down unchanged."""
    passing = jax.custom_vjp(function)
    passing.defvjp(lambda x: (function(x), None), lambda _, R: (R,))
    return passing


def _per_image(R: Array) -> Array:
    return R.sum(axis=tuple(range(1, R.ndim)))


def _hand_down(
    f: Callable[[Array, Array], Array], rule: Rule, x: Array, w: Array, b: Array | None, R: Array
) -> Array:
    """Return the relevance of the inputs of a layer."""
    total = jnp.zeros_like(x)
    z = with_bias(f(x, w), b)
    for terms, bias, share in rule.groups(x, w, b, z):
        values, transposed = zip(*(jax.vjp(lambda a, w=w: f(a, w), a) for a, w in terms), strict=True)
        z_group = with_bias(reduce(jnp.add, values), bias)
        ratio = jnp.asarray(share, R.dtype) * R / stabilized(z_group, rule.epsilon)
        for (a, _), back in zip(terms, transposed, strict=True):
            total = total + a * back(ratio)[0]
    return total


def lrp(composite: Composite, lost: Mapping[str, Array], dtype: Any) -> ops.Ops:
    """Return the table whose backward pass hands relevance down.

    ReLUs and standardization pass it on; max-pooling sends it to the maximum; sums and means split it by the
    contributions of the inputs; concatenation splits it by channels.

    Args:
        composite: the rules of convolutions and matrix products.
        lost: zeros `[n]` for each layer of weights, sum and mean. The "gradient" with respect to them is the
            relevance that the layer received and did not hand down: absorbed by its bias and by ε. Unnamed
            layers are `add1`, `add2`, ..., `mean1`, ...
        dtype: the precision of the numbers.
    """
    counts: Counter[str] = Counter()
    first = True
    pixels: list[Callable[[Any], Any]] = []

    def numbered(kind: str) -> str:
        counts[kind] += 1
        return f"{kind}{counts[kind]}"

    def propagate(forward: Callable[..., Array], down: Callable[..., Any], inputs: Any, name: str) -> Array:
        """Compute `forward(*inputs)`; backward, `down(R, *inputs)` and the loss of relevance."""

        @jax.custom_vjp
        def layer(inputs: Any, lost: Array) -> Array:
            del lost
            return forward(*inputs)

        def pull(inputs: Any, R: Array) -> Any:
            handed = down(R, *inputs)
            passed = sum(_per_image(r) for r in handed if r is not None)
            # Relevance has no gradient in the weights: NaN shows that to callers who ask for one.
            nothing = lambda a: jnp.full_like(a, jnp.nan)  # noqa: E731
            down_all = tuple(
                jax.tree.map(nothing, a) if r is None else r for r, a in zip(handed, inputs, strict=True)
            )
            return down_all, _per_image(R) - passed

        layer.defvjp(lambda inputs, lost: (forward(*inputs), inputs), pull)
        return layer(inputs, lost.get(name, jnp.zeros(inputs[0].shape[:1], dtype)))

    def weighted(
        f: Callable[[Array, Array], Array], kind: Rule, x: Array, w: Array, b: Any, name: str
    ) -> Array:
        nonlocal first
        rule = composite.first if first and composite.first is not None else kind
        first = False
        if isinstance(rule, ZBox) and pixels:
            pixel = lambda value: pixels[0](jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape))  # noqa: E731
            rule = ZBox(pixel(rule.low), pixel(rule.high), rule.epsilon)
        w = w.astype(x.dtype)
        b = None if b is None else b.astype(x.dtype)

        def forward(x: Array, w: Array, b: Array | None, rule: Rule) -> Array:
            return with_bias(f(x, w), b)

        def down(R: Array, x: Array, w: Array, b: Array | None, rule: Rule) -> Any:
            return _hand_down(f, rule, x, w, b, R), None, None, None

        return propagate(forward, down, (x, w, b, rule), name)

    def conv(
        x: Array,
        kernel: Array,
        bias: Any,
        *,
        strides: Any = (1, 1),
        padding: Any = ((0, 0), (0, 0)),
        name: str = "",
    ) -> Array:
        def f(x: Array, w: Array) -> Array:
            return ops.fast.conv(x, w, None, strides=strides, padding=padding, name=name)

        return weighted(f, composite.conv, x, kernel, bias, name or numbered("conv"))

    def linear(x: Array, kernel: Array, bias: Any, *, name: str = "") -> Array:
        return weighted(lambda x, w: x @ w, composite.linear, x, kernel, bias, name or numbered("linear"))

    def shared(function: Callable[[Array], Array], x: Array) -> Array:
        """Compute a linear function without weights; split relevance in proportion to the contributions."""

        def down(R: Array, x: Array) -> Any:
            z, back = jax.vjp(function, x)
            return (x * back(R / stabilized(z, 1e-6))[0],)

        return propagate(function, down, (x,), numbered("mean"))

    def add(x: Array, y: Array) -> Array:
        def down(R: Array, x: Array, y: Array) -> Any:
            ratio = R / stabilized(x + y, 1e-6)
            return x * ratio, y * ratio

        return propagate(ops.add, down, (x, y), numbered("add"))

    def standardize(images: Array, how: Callable[[Any], Any]) -> Array:
        pixels.append(how)
        return _passing(how)(images)

    def batch_norm(
        x: Array, scale: Array, bias: Array, mean: Array, variance: Array, *, eps: float, name: str = ""
    ) -> Array:
        raise ValueError(
            f"LRP has no rule for the batch normalization {name!r}: fold it into the convolution first, "
            "net = vizsynth.models.fold_batch_norm(net)"
        )

    def other(
        function: Callable[..., Any],
        *values: Any,
        name: str = "",
        linear: bool = False,
        elementwise: bool = False,
    ) -> Array:
        if linear and len(values) == 1:
            return shared(function, *values)
        if not elementwise or len(values) != 1:
            raise ValueError(
                f"LRP has no rule for {name!r} of {len(values)} value{'s' * (len(values) != 1)}: it has "
                "rules for products with weights, sums, means, maxima and elementwise functions of one value"
            )
        return _passing(function)(*values)

    return ops.fast._replace(
        other=other,
        standardize=standardize,
        conv=conv,
        linear=linear,
        batch_norm=batch_norm,
        relu=_passing(jax.nn.relu),
        mean_pool=lambda x, **how: shared(partial(ops.mean_pool, **how), x),
        adaptive_mean_pool=lambda x, *, size: shared(partial(ops.adaptive_mean_pool, size=size), x),
        add=add,
    )
