"""The parts of a report: what each computes of a photo, its pictures, and what the page says of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from vizsynth.cli import common
from vizsynth.cli.commands.evaluate import measured
from vizsynth.cli.commands.explain import probabilities_of
from vizsynth.cli.comparison import BRIGHTEST, one_a_pixel
from vizsynth.cli.methods import METHODS, Method
from vizsynth.cli.photos import Photo
from vizsynth.core.texts import literal, printable

SIDE = 260  # pixels: the longer side of each picture in a sheet
COLUMNS = 5
CLASSES = 8  # that are listed
PATCHES = 4  # of each channel
GREY = 0.02  # the deviation below which a picture shows nothing
MAPS = "maps.npz"
QUICK = ("saliency", "integrated-gradients", "occlusion", "cam", "grad-cam", "layer-cam")


class Effort(NamedTuple):
    """How much is computed: what `--quick` makes less of."""

    methods: Sequence[str]
    side: int | None
    """The shorter side of what the network sees; None is the network's own."""
    rise_samples: int
    curve_steps: int
    channels: int
    feature_side: int
    feature_steps: int
    dream_side: int
    octaves: int
    dream_steps: int
    inverted: int
    inversion_steps: int


FULL = Effort(tuple(METHODS), None, 250, 12, 6, 112, 96, 300, 3, 10, 3, 48)
SMALL = Effort(QUICK, 112, 100, 8, 3, 64, 24, 128, 2, 6, 2, 16)


class Part(NamedTuple):
    """What came of a part."""

    pictures: dict[str, Any]
    """By the names of the files."""
    shown: Sequence[tuple[str, str, str]]
    """Which of them the page shows: file, label, alternative text."""
    caption: str
    numbers: dict[str, Any]
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    compared: Sequence[tuple[str, str, str]] = ()
    """Which of them, all of one size, the page lays over each other."""


@dataclass(eq=False, kw_only=True)
class Subject:
    """A photo, the network that sees it, and what is asked of both; nothing is computed yet."""

    net: Any
    name: str
    """What the network is called."""
    photo: Photo
    image: np.ndarray
    """What the network sees of the photo."""
    target: int | None
    """The class that is explained; None is the likeliest."""
    layer: str
    """Whose maps are weighted."""
    inside: str
    """Whose channels are shown."""
    seed: int
    effort: Effort
    maps: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def picture(self) -> np.ndarray:
        """The photo as it is shown."""
        return self.photo.shown()

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The probability of each class."""
        return probabilities_of(self.net, self.image)

    @property
    def label(self) -> int:
        """The class that is explained."""
        return int(self.probabilities.argmax()) if self.target is None else self.target

    @property
    def title(self) -> str:
        """The name of the class that is explained."""
        return common.class_name(self.net, self.label)

    @property
    def key(self) -> Any:
        """A key of the seed."""
        import jax

        return jax.random.key(self.seed)

    @cached_property
    def methods(self) -> list[Method]:
        """The methods that this network can have, those that draw samples drawing as many as are wanted."""
        pooled = common.pooled_layer(self.net)
        chosen = [METHODS[n] for n in self.effort.methods if pooled is not None or not METHODS[n].pooled]
        options = {
            "rise": {"samples": self.effort.rise_samples},
            "occlusion": {"window": self.window, "stride": self.window // 2},
        }
        return [replace(m, options=options.get(m.name, m.options)) for m in chosen]

    @property
    def window(self) -> int:
        """The side of the square that hides a place, in pixels of what the network sees."""
        return max(8, min(self.image.shape[:2]) // 7)

    @cached_property
    def inverted(self) -> list[str]:
        """The layers that are inverted, from shallow to deep."""
        names = common.roles(self.net).inverted
        spread = [names[i] for i in (0, (len(names) - 1) // 2, len(names) - 1)]
        return list(dict.fromkeys(spread))[: self.effort.inverted]


def map_file(method: str) -> str:
    """Return the file of a method's map."""
    return f"map-{method}.png"


def inversion_file(layer: str) -> str:
    """Return the file of what a layer knows."""
    return f"inverted-{layer.replace('/', '-')}.png"


def classes(subject: Subject, begin: Callable[[str], None]) -> Part:
    """Name what the network sees."""
    begin("classes")
    p = subject.probabilities
    order = [int(i) for i in np.argsort(-p, kind="stable")[:CLASSES]]
    found = [(common.class_name(subject.net, i), i, float(p[i])) for i in order]
    first = ", ".join(f"{name} {q:.1%}" for name, _, q in found[:3])
    target, asked = common.likely(subject.net, p, subject.label), ""
    if subject.target is not None:
        asked = (
            f" The maps below explain {literal(subject.title)} ({subject.label}), p = {p[subject.label]:.3f}."
        )
    bars = bar_chart([name for name, _, _ in found], {"probability": [q for _, _, q in found]})
    height, width = subject.image.shape[:2]
    return Part(
        {"photo.png": subject.picture, "classes.png": bars},
        [
            ("photo.png", "the photo", f"the photo {subject.photo.name}"),
            ("classes.png", "the likeliest classes", f"bars of probabilities: {first}"),
        ],
        f"{literal(subject.name)} sees the photo at {width}x{height} pixels, and takes it for: "
        f"{literal(first)}.{asked}",
        {
            "classes": [common.likely(subject.net, p, i) for i in order],
            "target": target,
        },
        (("class", "number", "probability"), [(n, str(i), f"{q:.1%}") for n, i, q in found]),
    )


def maps(subject: Subject, begin: Callable[[str], None]) -> Part:
    """Say by every method which pixels count, on one scale."""
    from vizsynth.figures import caption, sheet

    for method in subject.methods:
        begin(f"map {method.name}")
        found = method.maps(subject.net, subject.image[None], subject.label, subject.layer, subject.seed)
        subject.maps[method.name] = np.asarray(found[0])
    pictures: dict[str, Any] = {
        map_file(m.name): _on_one_scale(m, subject.maps[m.name], subject.picture.shape[:2])
        for m in subject.methods
    }
    files = {m.name: map_file(m.name) for m in subject.methods}
    cells = [caption(_small(subject.picture), "photo")]
    cells += [caption(_small(pictures[file]), name) for name, file in files.items()]
    title = f"{subject.name}: {subject.title}, p = {subject.probabilities[subject.label]:.2f}"
    told = {name: f"which pixels count for {subject.title} by {name}" for name in files}
    everything = ", ".join(files)
    sheets = {"maps.png": sheet([cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)], title=title)}
    raw = dict(subject.maps)
    return Part(
        {**pictures, **sheets, MAPS: lambda path: np.savez_compressed(path, allow_pickle=False, **raw)},
        [("maps.png", "all maps", f"maps of which pixels count for {subject.title}: {everything}")],
        f"What speaks for {literal(subject.title)} is red, what speaks against it blue. Methods have "
        f"different units: each is divided by its own largest absolute value (the {BRIGHTEST}th "
        f"percentile), so that all have one scale. Class activation maps are of the layer {subject.layer}.",
        {
            name: {"shape": list(m.shape), "min": float(m.min()), "max": float(m.max())}
            for name, m in subject.maps.items()
        },
        compared=[
            ("photo.png", "the photo", f"the photo {subject.photo.name}"),
            *((file, name, told[name]) for name, file in files.items()),
        ],
    )


def occlusion(subject: Subject, begin: Callable[[str], None]) -> Part:
    """Hide the square that counts most."""
    import jax.numpy as jnp

    from vizsynth.figures import heat
    from vizsynth.images import upsample
    from vizsynth.maps.occlusion import window_starts

    begin("occlusion")
    drop = subject.maps["occlusion"]
    height, width = subject.image.shape[:2]
    side = subject.window
    row, column = (int(n) for n in np.unravel_index(drop.argmax(), drop.shape))
    before, after, (top, left) = float(subject.probabilities[subject.label]), np.inf, (0, 0)
    for y in window_starts(height, side, side // 2):
        for x in window_starts(width, side, side // 2):
            if y <= row < y + side and x <= column < x + side:  # of the squares there, the one that counts
                hidden = subject.image.copy()
                hidden[y : y + side, x : x + side] = 0.5
                p = float(probabilities_of(subject.net, hidden)[subject.label])
                after, (top, left) = min((after, (top, left)), (p, (int(y), int(x))))
    shape = subject.picture.shape[:2]
    large = np.asarray(upsample(jnp.asarray(drop), shape))
    blend = 0.35 * subject.picture + 0.65 * heat(np.clip(large, 0, None), colormap="inferno")
    y, x = shape[0] / height, shape[1] / width
    covered = subject.picture.copy()
    box = (slice(round(top * y), round((top + side) * y)), slice(round(left * x), round((left + side) * x)))
    covered[box] = (0.85, 0.15, 0.15)  # its frame
    covered[box][2:-2, 2:-2] = 0.5
    square = [top, left, top + side, left + side]
    bright = f"occlusion map for {subject.title}, bright where it counts"
    covers = "the photo with the square that counts most hidden"
    return Part(
        {"occlusion.png": blend, "hidden.png": covered},
        [
            ("occlusion.png", "how much each place counts", bright),
            ("hidden.png", f"p from {before:.3f} to {after:.3f}", covers),
        ],
        "A grey square is laid over each place (Zeiler & Fergus, 2013): where it is bright, the probability "
        f"of {literal(subject.title)} falls. With the square hidden that counts most it is {after:.3f}, and "
        f"was {before:.3f}.",
        {"largest_mean_drop": float(drop.max()), "square": square, "before": before, "hidden": after},
    )


def faithfulness(subject: Subject, begin: Callable[[str], None]) -> Part:
    """Score how well each map finds what the class needs."""
    import jax.numpy as jnp

    from vizsynth.images import upsample

    x, labels = jnp.asarray(subject.image[None]), jnp.asarray([subject.label])
    scores: dict[str, dict[str, float]] = {}
    for method in subject.methods:
        begin(f"score {method.name}")
        flat = upsample(method.flat(jnp.asarray(subject.maps[method.name])[None]), (x.shape[1], x.shape[2]))
        values, _, _ = measured(subject.net, x, labels, flat, subject.effort.curve_steps)
        scores[method.name] = {name: float(value[0]) for name, value in values.items()}
    order = sorted(scores, key=lambda name: scores[name]["deletion"] - scores[name]["insertion"])
    columns = {c: [scores[name][c] for name in order] for c in ("insertion", "deletion")}
    told = f"bars of insertion and deletion by method, the best first: {', '.join(order)}"
    heads = ("method", *(c.replace("_", " ") for c in scores[order[0]]))
    return Part(
        {"faithfulness.png": bar_chart(order, columns)},
        [("faithfulness.png", "insertion and deletion", told)],
        "Insertion: the probability reached as the pixels come that the map ranks first; high is good. "
        "Deletion: what is left of it as they go; low is good. Average drop, increase, average gain: what "
        "the explained part alone loses (low is good), whether it is surer, what it gains (high is good). "
        f"One photo proves little; `vizsynth evaluate` scores a folder. The best here: {order[0]}.",
        {"order": order, "scores": scores},
        (heads, [(name, *(f"{value:.3f}" for value in scores[name].values())) for name in order]),
    )


def channels(subject: Subject, begin: Callable[[str], None]) -> Part:
    """Show what the channels that answer most look for, and what of the photo excites them."""
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.cli.sheets import cut, fitted
    from vizsynth.figures import sheet
    from vizsynth.inspection.places import strongest_places
    from vizsynth.scores import Channel

    begin("channels")
    layer, effort = subject.inside, subject.effort
    images = jnp.asarray(subject.image[None])
    answers = np.maximum(vizsynth.features(subject.net, images, [layer])[layer][0], 0)
    means = answers.mean(axis=(0, 1))
    top = [int(c) for c in np.argsort(-means, kind="stable")[: effort.channels]]
    side, score = effort.feature_side, Channel(layer, jnp.asarray(top))
    made = vizsynth.visualize_feature(
        subject.net, score, key=subject.key, steps=effort.feature_steps, size=side
    )
    size = (subject.image.shape[0], subject.image.shape[1])
    pictures: dict[str, Any] = {}
    rows: list[list[Any]] = []
    labels, numbers = [], []
    side = max(side, 96)
    for rank, (channel, picture) in enumerate(zip(top, np.asarray(made.images), strict=True), start=1):
        places = strongest_places(answers[..., channel], PATCHES, apart=max(1, answers.shape[0] // 8))
        boxes = [vizsynth.receptive_field(subject.net, layer, (*place, channel), size) for place in places]
        pictures[f"channel-{rank}.png"] = picture
        rows.append([fitted(picture, side), *(fitted(cut(subject.image, box), side) for box in boxes)])
        labels.append(f"{channel}\nmean {means[channel]:.3g}")
        numbers.append(
            {"channel": channel, "mean": float(means[channel]), "boxes": [list(map(int, b)) for b in boxes]}
        )
    rows = [[*row, *[None] * (1 + PATCHES - len(row))] for row in rows]
    heads = ["what excites it", "its places", *[""] * (PATCHES - 1)]
    title = f"{subject.name}, {layer}"
    pictures["channels.png"] = sheet(rows, row_labels=labels, column_labels=heads, title=title)
    names = ", ".join(map(str, top))
    dead = [c for c, picture in zip(top, np.asarray(made.images), strict=True) if picture.std() < GREY]
    grey = f" Grey stayed, for want of a gradient where they began, {', '.join(map(str, dead))}."
    told = f"channels {names} of {layer}: what excites each, and its places in the photo"
    return Part(
        pictures,
        [("channels.png", layer, told)],
        f"The {len(top)} channels of {layer} whose mean activation is highest for this photo; for each a "
        f"picture that excites it (Olah, Mordvintsev & Schubert, 2017; {effort.feature_steps} steps) and the "
        f"places of the photo where it answers most, cut to what a neuron there sees.{grey if dead else ''}",
        {"layer": layer, "channels": numbers},
    )


def dreams(subject: Subject, begin: Callable[[str], None]) -> Part:
    """Let the network exaggerate what it sees."""
    import jax.numpy as jnp

    import vizsynth

    begin("dream")
    effort, layer = subject.effort, common.roles(subject.net).dream
    octaves, steps = effort.octaves, effort.dream_steps
    image = _resized(subject.picture, min(effort.dream_side, *subject.picture.shape[:2]))
    made = vizsynth.deepdream(
        subject.net, jnp.asarray(image[None]), layer=layer, key=subject.key, octaves=octaves, steps=steps
    )
    told = f"the photo, with what {layer} sees in it exaggerated"
    return Part(
        {"dream.png": np.asarray(made.images[0]), "awake.png": image},
        [("dream.png", f"a dream of {layer}", told)],
        f"What {layer} sees in the photo, exaggerated (Mordvintsev et al., 2015): {octaves} octaves "
        f"of {steps} steps. `vizsynth dream` goes further.",
        {"layer": layer, "octaves": octaves, "steps_an_octave": steps},
        compared=[
            ("awake.png", "the photo", f"the photo {subject.photo.name}"),
            ("dream.png", "the dream", told),
        ],
    )


def inversions(subject: Subject, begin: Callable[[str], None]) -> Part:
    """Show what each layer still knows."""
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.synthesis.features.inversion import normalized_error

    images = jnp.asarray(subject.image[None])
    pictures: dict[str, Any] = {"seen.png": subject.image}
    errors: dict[str, float] = {}
    for layer in subject.inverted:
        begin(f"inversion {layer}")
        made = vizsynth.invert(
            subject.net, images, layer, key=subject.key, steps=subject.effort.inversion_steps
        )
        pictures[inversion_file(layer)] = np.asarray(made.images[0])
        errors[layer] = float(normalized_error(subject.net, made.images, of=images, layer=layer)[0])
    told = [
        (inversion_file(n), f"{n}: error {e:.3f}", f"what {n} knows of the photo") for n, e in errors.items()
    ]
    return Part(
        pictures,
        told,
        "Pictures whose features, at each layer, are near those of the photo (Mahendran & Vedaldi, 2014), "
        f"after {subject.effort.inversion_steps} steps: what a layer has forgotten, its picture lacks. The "
        "errors are relative to the features.",
        {"errors": errors, "steps": subject.effort.inversion_steps},
        compared=[("seen.png", "the photo", f"the photo {subject.photo.name}"), *told],
    )


class Kind(NamedTuple):
    """A part, as the page and the progress know it."""

    theme: str
    title: str
    make: Callable[[Subject, Callable[[str], None]], Part]
    steps: Callable[[Subject], list[str]]
    files: Callable[[Subject], list[str]]
    compared: str = ""
    """What the pictures are called that are laid over each other."""


KINDS: dict[str, Kind] = {
    "classes": Kind(
        "What it sees", "The likeliest classes", classes,
        lambda s: ["classes"], lambda s: ["photo.png", "classes.png"],
    ),
    "maps": Kind(
        "Where it looks", "Every map, on one scale", maps, lambda s: [f"map {m.name}" for m in s.methods],
        lambda s: [*(map_file(m.name) for m in s.methods), "maps.png", MAPS], "where it looks",
    ),
    "occlusion": Kind(
        "Where it looks", "What must not be hidden", occlusion,
        lambda s: ["occlusion"], lambda s: ["occlusion.png", "hidden.png"],
    ),
    "faithfulness": Kind(
        "Where it looks", "Are the maps faithful?", faithfulness,
        lambda s: [f"score {m.name}" for m in s.methods], lambda s: ["faithfulness.png"],
    ),
    "channels": Kind(
        "What it looks for", "The channels that answer most", channels, lambda s: ["channels"],
        lambda s: [*(f"channel-{i + 1}.png" for i in range(s.effort.channels)), "channels.png"],
    ),
    "dream": Kind(
        "What it makes of it", "A dream", dreams,
        lambda s: ["dream"], lambda s: ["dream.png", "awake.png"], "the dream",
    ),
    "inversion": Kind(
        "What it makes of it", "What its layers still know", inversions,
        lambda s: [f"inversion {n}" for n in s.inverted],
        lambda s: ["seen.png", *map(inversion_file, s.inverted)], "what its layers still know",
    ),
}  # fmt: skip


def _resized(picture: np.ndarray, shorter: int) -> np.ndarray:
    """Return a picture with its shorter side brought to so many pixels."""
    import jax.numpy as jnp

    from vizsynth.images import resize

    scale = shorter / min(picture.shape[:2])
    size = (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
    return np.clip(np.asarray(resize(jnp.asarray(picture), size)), 0, 1)


def _small(picture: np.ndarray) -> np.ndarray:
    scale = min(1.0, SIDE / max(picture.shape[:2]))
    return _resized(picture, max(1, round(min(picture.shape[:2]) * scale)))


def _on_one_scale(method: Method, raw: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return a map in colours: red is its own largest absolute value, white 0, blue less than 0."""
    import jax.numpy as jnp

    from vizsynth.figures import signed
    from vizsynth.images import upsample

    large = np.asarray(upsample(jnp.asarray(one_a_pixel(method, raw)), (size[0], size[1])))
    return signed(large / (float(np.percentile(np.abs(large), BRIGHTEST)) or 1.0), limit=1.0)


def bar_chart(names: Sequence[str], columns: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Return bars from 0 to 1 beside their names, the first at the top; a panel for each column."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.1 + 0.32 * len(names)), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    longest = max(1e-3, *(value for values in columns.values() for value in values))
    for panel, (title, values) in zip(panels, columns.items(), strict=True):
        bars = panel.barh(range(len(names)), values, color="#0b57a4")
        panel.bar_label(bars, fmt="%.3f", padding=3, fontsize=9)
        panel.set(title=title, xlim=(0, 1.2 * longest), ylim=(len(names) - 0.4, -0.6))
        panel.set_yticks(range(len(names)), [printable(n) for n in names], parse_math=False)
        panel.spines[["top", "right"]].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
