"""The layers of a network by their use: for class activation maps, style, textures, dreams.

Each family names its layers: `net.roles.cam` of a ResNet-18 is `layer4.1`. For other networks, `roles_of`
derives them from the shapes of the layers.
"""

from typing import Any, NamedTuple

from vizsynth.core.entry import as_network
from vizsynth.models.network import layer_shapes


class Roles(NamedTuple):
    """The layers of a network by their use."""

    cam: str
    """The layer for class activation maps."""
    pooled: str | None
    """The layer that enters the logits by its mean alone, where CAM is exact; None if there is none."""
    channels: str
    """The layer whose channels are visualized: one that shows parts of objects. It lies before a ReLU if
    possible, as a channel after a ReLU may be zero, without gradient, on the first picture."""
    dream: str
    """The layer that DeepDream amplifies."""
    inverted: tuple[str, ...]
    """The layers for feature inversion, from shallow to deep."""
    content: tuple[str, ...]
    """The layers that hold the content of a picture."""
    style: tuple[str, ...]
    """The layers that hold its style."""
    texture: tuple[str, ...]
    """The layers that hold textures."""
    training_content: tuple[str, ...]
    """The content layers for the training of a stylizer: shallower than `content`, as it has one pass."""
    training_style: tuple[str, ...]
    """The style layers for the training of a stylizer."""
    cuts: tuple[str, ...] = ()
    """The layers at which the network is cut for large pictures (`cuts=` of `transfer_style`)."""
    style_weight: float = 10.0
    """The weight of the style relative to the content."""
    texture_start: tuple[float, float] = (0.2, 1.0)
    """Deviation and decay of the spectrum at the start of a texture. Small receptive fields leave large forms
    to chance: the smaller they are at the start, the more even is the texture."""


def roles_of(net: Any) -> Roles:
    """Return the network's roles: those of its family, or roles derived from the shapes of its layers.

    A layer of the family that this network lacks is left out, or replaced by a derived one.

    Args:
        net: a network with at least one layer of maps.

    Raises:
        ValueError: no layer is a map.

    Example:
        >>> import jax, vizsynth
        >>> roles = roles_of(vizsynth.load("squeezenet1_1"))
        >>> roles.cam, roles.pooled, roles.content
        ('fire9', 'relu10', ('fire3',))
        >>> def mine(images, *, tap=vizsynth.taps.passthrough, ops=vizsynth.ops.plain):
        ...     return tap("logits", tap("relu1", ops.relu(images)).mean(axis=(1, 2)))
        >>> roles_of(mine).cam
        'relu1'
    """
    told = getattr(net, "roles", None)
    return derived(net) if told is None else told


def derived(net: Any) -> Roles:
    """Return roles derived from the shapes of the layers.

    The last map is for CAMs and dreams, every ReLU for style, the middle ReLU for content.
    """
    shapes = layer_shapes(as_network(net), _image_size(net))
    names, maps = list(shapes), [name for name, shape in shapes.items() if len(shape) == 3]
    if not maps:
        raise ValueError(f"the network has no layer of maps among {', '.join(names) or 'its layers'}")
    cam = maps[-1]
    rectified = tuple(name for name in maps if name.startswith("relu")) or tuple(maps)
    content = (rectified[len(rectified) // 2],)
    return Roles(
        cam=cam,
        pooled=None,
        channels=before_relu(names, cam),
        dream=cam,
        inverted=tuple(name for name in names if name.startswith("relu")) or (cam,),
        content=content,
        style=rectified,
        texture=rectified,
        training_content=content,
        training_style=rectified,
    )


def before_relu(names: list[str], name: str) -> str:
    """Return the layer before a ReLU, or the layer itself if it is none."""
    return names[names.index(name) - 1] if name.startswith("relu") and name != names[0] else name


def present(net: Any, told: Roles) -> Roles:
    """Return a family's roles for a network that may lack some of the layers: a trunk, a VGG-11."""
    known = list(net.layers)
    kept = {
        field: tuple(name for name in value if name in known)
        for field, value in told._asdict().items()
        if field != "texture_start" and isinstance(value, tuple)
    }
    roles = told._replace(
        pooled=told.pooled if told.pooled in known else None,
        channels=told.channels if told.channels in known else before_relu(known, told.cam),
        dream=told.dream if told.dream in known else told.cam,
        **kept,
    )
    groups = (("inverted",), ("content", "style", "texture", "cuts"), ("training_content", "training_style"))
    lost = [group for group in groups if any(not kept[field] for field in group if field != "cuts")]
    if not lost:
        return roles
    other = derived(net)._asdict()
    return roles._replace(**{field: other[field] for group in lost for field in group})


def _image_size(net: Any) -> tuple[int, int]:
    """Return the height and width of images that the network takes."""
    if (shape := getattr(getattr(net, "config", None), "input_shape", None)) is not None:
        return shape[:2]
    if (record := getattr(net, "record", None)) is not None:
        return record.input_size
    return getattr(net, "example_size", (224, 224))
