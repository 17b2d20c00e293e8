"""A call of every public function that computes, at the size that people use, with few steps."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import vizsynth
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU
from vizsynth.scores import Channel, Class
from vizsynth.synthesis.features.multifaceted import Phase

PHOTO = Path(__file__).parents[2] / "experiments" / "photos" / "chelsea.jpg"
KEY = jax.random.key(0)
SIDE = 227
EPSILON = 8 / 255
BOXES = np.array([[20, 30, 150, 160], [0, 0, 227, 227]])
STYLES = ("relu1", "fire3")
SHORT: dict[str, Any] = {"steps": 2, "size": 64}


class Subject(NamedTuple):
    """What the calls are made with."""

    net: Any
    images: Any
    target: Any
    layer: str
    pooled: str | None = None
    """A layer that enters the logits by its mean alone."""


@cache
def bundled() -> Subject:
    """Return the network that comes with the package, and a photo twice, once mirrored."""
    with jax.ensure_compile_time_eval():
        image = vizsynth.read_image(PHOTO, (SIDE, SIDE))
        images = jnp.stack([image, image[:, ::-1]])
        return Subject(vizsynth.load("squeezenet1_1"), images, jnp.asarray([281, 285]), "fire9", "relu10")


def random_network(name: str) -> Subject:
    """Return a network of random weights, its batch normalization folded, and two random images."""
    images = jax.random.uniform(jax.random.key(1), (2, 224, 224, 3))
    if name == "resnet18":
        net = calm(vizsynth.models.fold_batch_norm(vizsynth.models.resnet18(key=KEY)))
        return Subject(net, images, jnp.asarray([281, 7]), "layer4.1", "layer4.1")
    return Subject(vizsynth.models.vgg11(key=KEY), images, jnp.asarray([281, 7]), "relu5_2")


def calm(net: Any) -> Any:
    """Return a ResNet whose last layer is small: of random weights, it is otherwise sure of one class."""

    def scaled(path: Any, leaf: Any) -> Any:
        return leaf * 0.01 if jax.tree_util.keystr(path).startswith(".fc.") else leaf

    return jax.tree_util.tree_map_with_path(scaled, net)


Call = Callable[[Subject], Any]


def maps() -> dict[str, Call]:
    """Return a call of each attribution method."""
    plain = ("gradient", "saliency", "input_x_gradient", "guided_backprop", "deconvnet", "lrp", "relevance")
    of_layer = ("grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam", "hires_cam", "guided_grad_cam")
    sampled = ("smooth_grad", "smooth_grad_squared", "var_grad")
    calls: dict[str, Call] = {}
    for name in plain:
        calls[name] = lambda s, f=name: getattr(vizsynth, f)(s.net, s.images, s.target)
    for name in of_layer:
        calls[name] = lambda s, f=name: getattr(vizsynth, f)(s.net, s.images, s.target, layer=s.layer)
    for name in sampled:
        calls[name] = lambda s, f=name: getattr(vizsynth, f)(s.net, s.images, s.target, key=KEY, samples=3)
    return calls | {
        "cam": lambda s: vizsynth.cam(s.net, s.images, s.target, layer=s.pooled),
        "eigen_cam": lambda s: vizsynth.eigen_cam(s.net, s.images, layer=s.layer),
        "score_cam": lambda s: vizsynth.score_cam(s.net, s.images[:1, :96, :96], s.target[:1], layer=s.layer),
        "ablation_cam": lambda s: vizsynth.ablation_cam(s.net, s.images, s.target, layer=s.layer),
        "integrated_gradients": lambda s: vizsynth.integrated_gradients(s.net, s.images, s.target, steps=6),
        "adaptive_integrated_gradients": lambda s: vizsynth.adaptive_integrated_gradients(
            s.net, s.images, s.target, max_steps=8
        ),
        "occlusion": lambda s: vizsynth.occlusion(s.net, s.images, s.target, window=96, stride=64),
        "rise": lambda s: vizsynth.rise(s.net, s.images, s.target, key=KEY, samples=4),
    }


def evaluations() -> dict[str, Call]:
    """Return a call of each measure."""
    heat = lambda s: jnp.abs(s.images).mean(axis=-1)  # noqa: E731
    curves = ("deletion", "insertion", "deletion_and_insertion")
    confidences = ("average_drop", "average_gain", "increase_in_confidence")
    calls: dict[str, Call] = {}
    for name in curves:
        calls[name] = lambda s, f=name: getattr(vizsynth, f)(s.net, s.images, s.target, heat(s), steps=3)
    for name in confidences:
        calls[name] = lambda s, f=name: getattr(vizsynth, f)(s.net, s.images, s.target, heat(s))
    how: dict[str, Any] = {"of": vizsynth.saliency, "key": KEY, "layers": ("conv10",)}
    return calls | {
        "bootstrap_mean": lambda s: vizsynth.bootstrap_mean(s.images[..., 0, 0], key=KEY, samples=32),
        "infidelity": lambda s: vizsynth.infidelity(s.net, s.images, s.target, s.images, key=KEY, samples=4),
        "energy_in_box": lambda s: vizsynth.energy_in_box(heat(s), BOXES),
        "pointing_game": lambda s: vizsynth.pointing_game(heat(s), BOXES),
        "max_sensitivity": lambda s: vizsynth.max_sensitivity(
            s.net, s.images, s.target, of=vizsynth.gradient, key=KEY, samples=2
        ),
        "cascading_randomization": lambda s: vizsynth.cascading_randomization(
            s.net, s.images, s.target, **how
        ),
        "independent_randomization": lambda s: vizsynth.independent_randomization(
            s.net, s.images, s.target, **how
        ),
        "noisy_linear_imputation": lambda s: vizsynth.noisy_linear_imputation(
            s.images[:, :64, :64], heat(s)[:, :64, :64] > 0.5, key=KEY
        ),
        "road": lambda s: vizsynth.road(
            s.net, s.images, s.target, heat(s), key=KEY, fractions=jnp.asarray([0.1, 0.5])
        ),
        "sensitivity_n": lambda s: vizsynth.sensitivity_n(
            s.net, s.images, s.target, heat(s), key=KEY, sizes=jnp.asarray([64, 512]), samples=4
        ),
        "completeness": lambda s: vizsynth.completeness(s.net, s.images, s.target, s.images),
        "blurred": lambda s: vizsynth.blurred(s.images),
        "normalized_error": lambda s: vizsynth.normalized_error(
            s.net, s.images, of=s.images[:, ::-1], layer="fire3"
        ),
        "same_class_share": lambda s: vizsynth.same_class_share(jnp.asarray([[1], [0]]), s.target),
        "fuse": lambda s: vizsynth.fuse([heat(s)[:, ::8, ::8], heat(s)], (64, 64)),
    }


def attacks() -> dict[str, Call]:
    """Return a call of each attack."""
    iterated = ("bim", "pgd", "mi_fgsm")
    keyed = ("apgd_ce", "apgd_dlr")
    calls: dict[str, Call] = {"fgsm": lambda s: vizsynth.fgsm(s.net, s.images, s.target, epsilon=EPSILON)}
    for name in iterated:
        key = {"key": KEY} if name == "pgd" else {}
        calls[name] = lambda s, f=name, key=key: getattr(vizsynth, f)(
            s.net, s.images, s.target, epsilon=EPSILON, steps=2, **key
        )
    for name in keyed:
        calls[name] = lambda s, f=name: getattr(vizsynth, f)(
            s.net, s.images, s.target, epsilon=EPSILON, steps=4, key=KEY
        )
    return calls | {
        "pgd_l2": lambda s: vizsynth.pgd_l2(s.net, s.images, s.target, epsilon=2.0, steps=2, key=KEY),
        "carlini_wagner": lambda s: vizsynth.carlini_wagner(s.net, s.images, s.target, searches=2, steps=3),
        "deepfool": lambda s: vizsynth.deepfool(s.net, s.images, s.target, steps=2, candidates=3),
        "universal_perturbation": lambda s: vizsynth.universal_perturbation(
            s.net, s.images, epsilon=EPSILON, epochs=1, steps=2, candidates=3, key=KEY
        ),
        "fooling_rate": lambda s: vizsynth.fooling_rate(
            s.net, s.images, perturbation=jnp.full(s.images.shape[1:], 0.1)
        ),
        "fool": lambda s: vizsynth.fool(s.net, s.images, s.target[::-1], steps=2),
        "magnified": lambda s: vizsynth.magnified(s.images, s.images[::-1]),
    }


def painted(weights: Any, code: Any) -> Any:
    """Return the picture of a code: a generator."""
    return jax.nn.sigmoid(code @ weights).reshape(64, 64, 3)


def pictures() -> dict[str, Call]:
    """Return a call of each method that makes pictures."""
    weights = jax.random.normal(KEY, (4, 64 * 64 * 3))
    generator = Partial(painted, weights)
    decoder = vizsynth.models.adain_decoder("relu2_1", widths=(8, 8), key=KEY)
    channels = Channel("fire7", jnp.arange(2))
    return {
        "visualize_class": lambda s: vizsynth.visualize_class(s.net, s.target, key=KEY, steps=2),
        "visualize_feature": lambda s: vizsynth.visualize_feature(s.net, channels, key=KEY, **SHORT),
        "visualize_diverse": lambda s: vizsynth.visualize_diverse(
            s.net, Channel("fire7", 3), layer="fire5", count=2, key=KEY, **SHORT
        ),
        "visualize_regularized": lambda s: vizsynth.visualize_regularized(s.net, s.target, key=KEY, **SHORT),
        "visualize_latent": lambda s: vizsynth.visualize_latent(
            s.net, Class(3), generator, shape=(4,), key=KEY, steps=2
        ),
        "visualize_facets": lambda s: vizsynth.visualize_facets(
            s.net, s.target, s.images, key=KEY, phases=(Phase(2, (1 / 255, 2 / 255), (100.0, 200.0)),)
        ),
        "interpolate": lambda s: vizsynth.interpolate(
            s.net, Channel("fire7", 3), Channel("fire7", 5), layer="fire5", count=2, key=KEY, **SHORT
        ),
        "activation_atlas": lambda s: vizsynth.activation_atlas(
            s.net, jnp.eye(512)[:2], "fire9", key=KEY, **SHORT
        ),
        "activation_grid": lambda s: vizsynth.activation_grid(
            s.net, s.images[0], "fire9", cells=(2, 2), key=KEY, **SHORT
        ),
        "deepdream": lambda s: vizsynth.deepdream(
            s.net, s.images, layer="fire7", octaves=2, steps=2, key=KEY
        ),
        "invert": lambda s: vizsynth.invert(s.net, s.images, "fire3", key=KEY, steps=2),
        "transfer_style": lambda s: vizsynth.transfer_style(
            s.net,
            s.images[0],
            [s.images[1]],
            key=KEY,
            steps=2,
            content_layers=("fire5",),
            style_layers=STYLES,
        ),
        "synthesize_texture": lambda s: vizsynth.synthesize_texture(
            s.net, s.images[0], key=KEY, size=(64, 64), steps=2, layers=STYLES
        ),
        "efros_leung": lambda s: vizsynth.efros_leung(
            s.images[0, :24, :24], key=KEY, size=(16, 16), window=5
        ),
        "wei_levoy": lambda s: vizsynth.wei_levoy(s.images[0, :32, :32], key=KEY, size=(16, 16), window=5),
        "quilt_texture": lambda s: vizsynth.quilt_texture(
            s.images[0, :64, :64], key=KEY, size=(64, 64), block=16
        ),
        "quilt_transfer": lambda s: vizsynth.quilt_transfer(
            s.images[0, :64, :64], s.images[1, :48, :48], key=KEY, block=12, iterations=2
        ),
        "stylize": lambda s: vizsynth.stylize(vizsynth.models.load_stylizer(), s.images[:, :128, :128]),
        "train_style": lambda s: vizsynth.train_style(
            s.net,
            vizsynth.models.load_stylizer(),
            s.images,
            s.images[jnp.asarray([0, 1, 0]), :64, :64],
            key=KEY,
            steps=2,
            size=64,
            batch_size=1,
            content_layers=("fire3",),
            style_layers=STYLES,
        ),
        "perceptual_loss": lambda s: vizsynth.perceptual_loss(
            s.net,
            s.images,
            s.images[::-1],
            s.images[:1],
            content_layers=("fire3",),
            style_layers=STYLES,
        ),
        "adain": lambda s: vizsynth.adain(s.images, s.images[::-1]),
        "adain_loss": lambda s: vizsynth.adain_loss(
            s.net, s.images, s.images[::-1], s.images[::-1], layer="fire5", style_layers=STYLES
        ),
        "transfer_adain": lambda s: vizsynth.transfer_adain(
            doubling(), decoder, s.images[:, :64, :64], s.images[:, -64:, :64], layer="relu2"
        ),
    }


def inspections() -> dict[str, Call]:
    """Return a call of what looks inside."""
    empty = lambda s: vizsynth.no_patches(s.net, "fire3", s.images.shape[1:3], k=2)  # noqa: E731
    return {
        "features": lambda s: vizsynth.features(s.net, s.images, ("fire3", "fire9")),
        "descriptors": lambda s: vizsynth.descriptors(s.net, s.images, layer="fire9"),
        "filters": lambda s: vizsynth.filters(s.net, "conv1"),
        "filter_colors": lambda s: vizsynth.filter_colors(vizsynth.filters(s.net, "conv1")),
        "filter_greys": lambda s: vizsynth.filter_greys(vizsynth.filters(s.net, "conv1")),
        "activation_tiles": lambda s: vizsynth.activation_tiles(s.images),
        "nearest_neighbors": lambda s: vizsynth.nearest_neighbors(s.images[0, :, :, 0], k=2),
        "no_patches": empty,
        "update_patches": lambda s: vizsynth.update_patches(
            s.net, s.images, patches=empty(s), layer="fire3", indices=jnp.arange(2)
        ),
        "whitening": lambda s: vizsynth.whitening(s.images.reshape(-1, 3)),
        "prepare": lambda s: jax.tree.leaves(vizsynth.prepare(s.net)),
        "over_rows": lambda s: vizsynth.over_rows(s.net, one_device())(s.images),
        "adapt": lambda s: adapted()(s.images),
    }


def one_device() -> Any:
    """Return a mesh of the first device."""
    return jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))


@cache
def adapted() -> Any:
    """Return a function of parameters and images as a network."""
    with jax.ensure_compile_time_eval():
        return vizsynth.adapt(scored, jnp.ones((3, 5)), example=jnp.zeros((1, SIDE, SIDE, 3)))


def scored(weights: Any, images: Any) -> Any:
    """Return the logits of a small network."""
    return jax.nn.relu(images @ weights).mean(axis=(1, 2))


@cache
def doubling() -> Any:
    """Return a small network whose second features are of half the size, as VGG's relu2_1."""
    stack = (Conv(8), ReLU(), MaxPool(), Conv(8), ReLU(), GlobalMean(), Dense(3))
    with jax.ensure_compile_time_eval():  # whoever asks first may be tracing
        return vizsynth.models.sequential(stack, (64, 64, 3), key=KEY)


@cache
def small() -> Any:
    """Return a small network and what it is trained with."""
    stack = (Conv(8), ReLU(), MaxPool(), GlobalMean(), Dense(3))
    images = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    data = vizsynth.Examples(images, np.arange(8) % 3, ("a", "b", "c"))
    return vizsynth.models.sequential(stack, (32, 32, 3), key=KEY), data


def on_the_host() -> dict[str, Call]:
    """Return a call of what needs the host: files, libraries of others, loops over batches."""
    points = np.random.default_rng(0).normal(size=(40, 8))
    few: dict[str, Any] = {"count": 1, "nearest": 1, "components": 2, "perplexity": 2.0}
    four = lambda s: np.repeat(np.asarray(s.images), 2, axis=0)  # noqa: E731
    patches = lambda s: vizsynth.top_patches(s.net, [(np.arange(2), s.images)], layer="fire3", k=2)  # noqa: E731
    return {
        "check": lambda s: np.asarray(vizsynth.check(s.net, s.images, s.target) is None),
        "load": lambda s: jax.tree.leaves(vizsynth.load("squeezenet1_1")),
        "read_image": lambda s: vizsynth.read_image(PHOTO, 64),
        "embed_pca": lambda s: vizsynth.embed_pca(points),
        "embed_tsne": lambda s: vizsynth.embed_tsne(points, key=KEY, perplexity=5.0),
        "grid_layout": lambda s: vizsynth.grid_layout(points[:9, :2]),
        "facets_of": lambda s: vizsynth.facets_of(four(s), points[:4], **few),
        "facets": lambda s: vizsynth.facets(s.net, four(s), "fire9", **few),
        "segment": lambda s: vizsynth.segment(np.asarray(s.images[0]), np.asarray(s.images[0, ..., 0])),
        "intersection_over_union": lambda s: np.asarray(
            vizsynth.intersection_over_union(np.eye(4) > 0, np.ones((4, 4)) > 0)
        ),
        "invert_layers": lambda s: vizsynth.invert_layers(
            s.net, s.images, ("fire2", "fire3"), key=KEY, steps=2
        ),
        "deepdream_zoom": lambda s: list(
            vizsynth.deepdream_zoom(s.net, s.images, layer="fire7", octaves=1, steps=1, frames=2, key=KEY)
        ),
        "receptive_field": lambda s: np.asarray(
            vizsynth.receptive_field(s.net, "fire3", (3, 3), (SIDE, SIDE))
        ),
        "parameter_layers": lambda s: np.asarray(len(vizsynth.parameter_layers(s.net, s.images))),
        "top_patches": patches,
        "patch_boxes": lambda s: vizsynth.patch_boxes(
            s.net, patches(s), layer="fire3", image_size=(SIDE, SIDE)
        ),
        "atlas_cells": lambda s: vizsynth.atlas_cells(points, points[:, :2], grid=(2, 2), least=1),
        "stream": lambda s: list(vizsynth.stream(lambda x: x.mean(axis=(1, 2)), s.images, batch_size=1)),
        "largest_batch": lambda s: np.asarray(
            vizsynth.largest_batch(lambda net, x: net(x), s.net, (64, 64), limit=2**28, most=2)
        ),
        "fit": lambda s: jax.tree.leaves(vizsynth.fit(*small(), key=KEY, epochs=1, batch_size=4).net),
        "predict": lambda s: vizsynth.predict(*small()),
    }


def compiled() -> dict[str, Call]:
    """Return the calls that can be a part of a caller's own program."""
    return maps() | evaluations() | attacks() | pictures() | inspections()


def waiting() -> set[str]:
    """Return the names of those that may return late: on the host, or not in one program.

    The latter fetch nothing (`test_exports` traces them), but a CPU runs their operations one by one.
    """
    return {"over_rows", "blurred", "filters", "filter_colors", "filter_greys", *on_the_host()}


def leaves(result: Any) -> list[np.ndarray]:
    """Return all arrays of a result."""

    def plain(leaf: Any) -> Any:
        is_key = jnp.issubdtype(getattr(leaf, "dtype", np.dtype("O")), jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(result)]


def different(found: Mapping[str, Any], wanted: Mapping[str, list[np.ndarray]]) -> list[str]:
    """Return the calls whose results differ in a bit."""
    return [
        name
        for name, result in found.items()
        if not all(a.tobytes() == b.tobytes() for a, b in zip(leaves(result), wanted[name], strict=True))
    ]
