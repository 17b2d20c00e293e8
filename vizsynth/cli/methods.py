"""The attribution methods that the command line knows: one row a method.

A method is called as the function is, with hyphens: `grad-cam` is `vizsynth.grad_cam`.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vizsynth.cli import common
from vizsynth.cli.settings import option


@dataclass(frozen=True)
class Method:
    """How a method is called, and what its maps look like."""

    function: str
    """The name of the function in `vizsynth`."""
    figure: Literal["heat", "relief", "signed", "cam", "signed-cam"]
    """`heat`: at least 0, at the pixels. `relief`: of that, what rises above the least. `signed`: of both
    signs. `cam`, `signed-cam`: at a layer's resolution; it is also laid over the photo."""
    usual: bool = False
    """Whether it is among those that are shown when none is named."""
    needs_layer: bool = False
    needs_key: bool = False
    pooled: bool = False
    """Whether the layer must be one that global average pooling follows."""
    contributions: bool = False
    """Whether the values of a pixel's channels add up; else the largest counts, whatever its sign."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments other than the function's own defaults."""
    flattens: str | None = None
    """The method whose maps these are, one number a pixel: where both are asked for, one is enough."""

    @property
    def name(self) -> str:
        """What the method is called on the command line, and its files."""
        return self.function.replace("_", "-")

    def maps(self, net: Any, images: Any, target: Any, layer: str | None, seed: int) -> Any:
        """Return the maps of the images; a method of the pooled layer takes that."""
        import jax

        import vizsynth

        arguments = dict(self.options)
        if self.needs_layer:
            arguments["layer"] = common.pooled_layer(net) if self.pooled else layer
        if self.needs_key:
            arguments["key"] = jax.random.key(seed)
        return getattr(vizsynth, self.function)(net, images, target, **arguments)

    def flat(self, maps: Any) -> Any:
        """Return one number a pixel: the channels' sum, or the largest absolute value among them."""
        import jax.numpy as jnp

        if maps.ndim == 3:
            return maps
        return maps.sum(axis=-1) if self.contributions else jnp.abs(maps).max(axis=-1)


METHODS = {
    method.name: method
    for method in (
        Method("saliency", "heat", usual=True, flattens="gradient"),
        Method("gradient", "signed", usual=True),
        Method("input_x_gradient", "signed", contributions=True),
        Method("integrated_gradients", "signed", contributions=True),
        Method("guided_backprop", "signed"),
        Method("deconvnet", "signed"),
        Method("smooth_grad", "signed", needs_key=True),
        Method("smooth_grad_squared", "heat", needs_key=True),
        Method("var_grad", "heat", needs_key=True),
        Method("lrp", "signed", contributions=True),
        Method("occlusion", "signed"),
        Method("rise", "relief", needs_key=True, options={"samples": 1000}),
        Method("cam", "signed-cam", needs_layer=True, pooled=True),
        Method("grad_cam", "cam", usual=True, needs_layer=True),
        Method("guided_grad_cam", "signed", needs_layer=True),
        Method("grad_cam_pp", "cam", needs_layer=True),
        Method("xgrad_cam", "cam", needs_layer=True),
        Method("layer_cam", "cam", needs_layer=True),
        Method("hires_cam", "signed-cam", needs_layer=True),
        Method("eigen_cam", "cam", needs_layer=True),
        Method("score_cam", "cam", needs_layer=True),
        Method("ablation_cam", "cam", needs_layer=True),
    )
}


USUAL = [method.name for method in METHODS.values() if method.usual]


def methods(help: str, usual: Sequence[str] = USUAL) -> Any:
    """Return the option for methods, by commas or one by one, each once; `all` is every one."""
    return option(
        (), f"{help} [{','.join(usual)}]", "--method", "-m", metavar="NAME,...", record=None,
        parse=lambda typed: parse_methods(typed or usual),
    )  # fmt: skip


def parse_methods(typed: Sequence[str]) -> tuple[Method, ...]:
    """Return the methods that were named.

    Raises:
        ValueError: there is none of a name; the message has similar ones.
    """
    names = [name.strip().lower().replace("_", "-") for text in typed for name in text.split(",")]
    for name in names:
        if name not in METHODS and name != "all":
            near = difflib.get_close_matches(name, METHODS, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(METHODS)}, all"
            raise ValueError(f"no method is called {name!r}; {hint}")
    return tuple(METHODS.values()) if "all" in names else tuple(METHODS[n] for n in dict.fromkeys(names))


def pick_layer(net: Any, methods: Sequence[Method], typed: str | None) -> str | None:
    """Return the layer that was typed, or the usual one where a method needs one."""
    needed = any(m.needs_layer and not m.pooled for m in methods)
    return common.pick_layer(net, typed) if needed or typed is not None else None
