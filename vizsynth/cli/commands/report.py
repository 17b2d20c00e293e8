"""`vizsynth report`: all that can be seen of a photo and a network, on one page."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from operator import le
from pathlib import Path
from typing import Any

import numpy as np

from vizsynth.cli import common, making, options
from vizsynth.cli.commands.explain import told
from vizsynth.cli.options import Seeded
from vizsynth.cli.output import NUMBERS, OutputFolder
from vizsynth.cli.photos import Photo
from vizsynth.cli.report.made import KINDS, Part, Subject
from vizsynth.cli.settings import argument, command_of, option, recorded
from vizsynth.core.claims import read_npz
from vizsynth.core.signals import exit_code

PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class Settings(Seeded):
    """Of `vizsynth report`."""

    photo: Photo = argument()
    network: str = options.network(record="numbers")
    weights: str | None = options.weights(record="numbers")
    target: str = options.target(record="numbers")
    layer: str | None = options.layer(record="numbers")
    inside: str | None = option(
        None, "The layer whose channels are shown [a middle one]", metavar="NAME", record="numbers"
    )
    size: int | None = options.size(record="numbers")
    quick: bool = option(False, "Fewer maps, smaller pictures, fewer steps", record="numbers")
    resume: bool = options.resume()
    seed: int = options.seed(record="numbers")
    out: Path | None = options.out("NAME-report")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Make a page of all that can be seen of PHOTO and a network.

    What the network sees, every map and how faithful it is, the channels that
    answer most, a dream, and what layers still know. Writes index.html, its
    pictures and numbers.json (scores, settings) into DIR, part by part.
    """
    import jax

    from vizsynth.cli.report import made as reporting
    from vizsynth.models.network import layer_shapes

    common.need_extra("matplotlib")
    common.need_extra("jinja2")
    photo, quiet = settings.photo, settings.quiet
    effort = reporting.SMALL if settings.quick else reporting.FULL
    net = common.load_network(settings.network, settings.weights)
    common.need_classes(net, settings.network)
    image = photo.pixels(settings.size or effort.side or min(common.input_size(net)))
    shapes = layer_shapes(net, (image.shape[0], image.shape[1]))
    inside = settings.inside or common.roles(net).channels
    subject = reporting.Subject(
        net=net,
        name=Path(settings.network).name,
        photo=photo,
        image=image,
        target=common.pick_target(net, settings.target),
        layer=_with_maps(common.pick_layer(net, settings.layer), shapes),
        inside=_with_maps(common.pick_layer(net, inside), shapes),
        seed=settings.seed,
        effort=effort,
    )
    origin = settings.origin({})
    chosen = {**recorded(settings, "numbers"), "layer": subject.layer, "inside": subject.inside}
    folder = OutputFolder(settings.path(photo.stem), origin, overwrite=settings.overwrite)
    wanted = {name: kind.files(subject) for name, kind in KINDS.items()}
    parts = _earlier(folder, origin | chosen, wanted, resume=settings.resume)
    folder.check([*(file for files in wanted.values() for file in files), PAGE], inputs=[photo])
    if "maps" in parts:
        subject.maps |= _kept_maps(folder.path / reporting.MAPS, subject)
        if not subject.maps:
            del parts["maps"]  # it is made again

    record = {
        **chosen,
        "weights_origin": net.record.origin,
        "seen_at": {"height": image.shape[0], "width": image.shape[1]},
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    missing = {name: kind for name, kind in KINDS.items() if name not in parts}
    steps = [step for kind in missing.values() for step in kind.steps(subject)]
    seen = sys.stderr.isatty()
    if missing and not seen:  # all maps by their names would be a long line
        common.say(
            f"{photo.name}: {', '.join(missing)} (compiling takes some seconds the first time) ...", quiet
        )
    now = ""
    try:
        with common.progress(photo.name, steps, quiet or not seen) as begin:
            for now, kind in missing.items():
                began = time.perf_counter()
                part = kind.make(subject, begin)
                found = {now: _described(part, time.perf_counter() - began)}
                _write(folder, record, parts | found, part.pictures)
                parts |= found
        numbers = _write(folder, record, parts, {})  # also where nothing was missing
    except KeyboardInterrupt as error:
        there = f"; {folder.path / PAGE} shows what there is, --resume goes on" if parts else ""
        raise making.Stopped(f"interrupted at {now}{there}", exit_code(error)) from None
    if settings.as_json:
        common.tell_json({**numbers, "out": str(folder.path)})
        return
    listed, explained = (parts["classes"]["numbers"][name] for name in ("classes", "target"))
    common.tell(*told(listed[:5], explained))
    common.tell(f"wrote {len(numbers['files'])} files into {folder.path}; the page: {folder.path / PAGE}")


def _with_maps(layer: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the layer, if it has maps."""
    if len(shapes[layer]) != 3:
        there = ", ".join(name for name, shape in shapes.items() if len(shape) == 3)
        raise common.BadInput(f"{layer} has no maps; there are {there}")
    return layer


def _earlier(
    folder: OutputFolder, wanted: Mapping[str, Any], files: Mapping[str, Sequence[str]], *, resume: bool
) -> dict[str, Any]:
    """Return the parts of a report in the folder that need not be made again.

    Args:
        folder: of the report.
        wanted: the settings of this one.
        files: those of each part.
        resume: whether it goes on.

    Raises:
        BadInput: there is nothing to go on with, or another report; there is one that was stopped, and nobody
            said what to do with it.
    """
    record = folder.record()
    found = record.get("parts") if record.get("command") == wanted["command"] else None
    if not resume:
        stopped = found is not None and not record.get("finished")
        if stopped and not folder.overwrite and record.get("photo") == wanted["photo"]:
            raise common.BadInput(
                f"{folder.path} holds a report that was stopped: --resume goes on with it, --overwrite "
                "begins anew"
            )
        return {}
    if not isinstance(found, dict) or not found:
        raise common.BadInput(f"{folder.path} holds no report to go on with; leave out --resume to begin one")
    if other := [name for name, value in wanted.items() if record.get(name) != value]:
        which = "; ".join(f"{name}: {record.get(name)!r} there, {wanted[name]!r} now" for name in other[:4])
        raise common.BadInput(
            f"{folder.path} holds another report ({which}); give its settings, or another --out"
        )
    known = {file for names in files.values() for file in names}
    sound = {n: p for n, p in found.items() if n in files and _is_part(p)}
    if "classes" in sound and not _has_classes(sound["classes"]):
        del sound["classes"]
    return {n: p for n, p in sound.items() if _is_there(folder.path, p, known)}


def _is_there(folder: Path, part: Mapping[str, Any], known: Set[str]) -> bool:
    """Tell whether a part is all there, and shows no file but a report's."""
    made, page = set(part["files"]), part["page"]
    shown = {picture[0] for picture in (*page["shown"], *page["compared"])}
    paths = [folder / file for file in made]
    return made | shown <= known and all(p.is_file() and not p.is_symlink() for p in paths)


def _is_part(part: Any) -> bool:
    """Tell whether this is what `_described` gives: a file may say anything."""
    try:
        page = part["page"]
        pictures, table = [*page["shown"], *page["compared"]], page["table"]
        files = [*part["files"], *(picture[0] for picture in pictures)]
        texts = pictures if table is None else [*pictures, table[0], *table[1]]
        return (
            all(isinstance(file, str) and Path(file).name == file for file in files)
            and all(isinstance(text, str) for row in texts for text in row)
            and all(len(picture) == 3 for picture in pictures)
            and (table is None or len(table) == 2)
            and isinstance(page["caption"], str)
            and isinstance(part["numbers"], dict)
            and isinstance(part["seconds"], int | float)
        )
    except (LookupError, TypeError, AttributeError):
        return False


def _has_classes(part: Mapping[str, Any]) -> bool:
    """Tell whether a part names classes, and the one that is explained."""
    numbers = part["numbers"]
    try:
        return all(
            isinstance(one["name"], str)
            and isinstance(one["label"], int)
            and isinstance(one["probability"], int | float)
            for one in (*numbers["classes"], numbers["target"])
        )
    except (LookupError, TypeError):
        return False


def _kept_maps(path: Path, subject: Subject) -> dict[str, np.ndarray]:
    """Return the maps of a report that was stopped; none where they are not those of its methods."""
    most = subject.image.shape
    try:
        maps = read_npz(path, most=8 * math.prod(most) * len(subject.methods))
    except (OSError, ValueError):
        return {}
    known = {method.name for method in subject.methods} == set(maps)
    fitting = (
        m.dtype.kind == "f" and m.ndim in (2, 3) and all(map(le, m.shape, most)) for m in maps.values()
    )
    return maps if known and all(fitting) else {}


def _described(part: Part, seconds: float) -> dict[str, Any]:
    """Return what numbers.json says of a part: all that the page needs of it."""
    return {
        "seconds": round(seconds, 1),
        "files": list(part.pictures),
        "numbers": part.numbers,
        "page": {
            "shown": part.shown,
            "caption": part.caption,
            "table": part.table,
            "compared": part.compared,
        },
    }


def _write(
    folder: OutputFolder, record: Mapping[str, Any], parts: Mapping[str, Any], pictures: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the pictures of a part, the numbers of all, and the page; return the numbers."""
    parts = {name: parts[name] for name in KINDS if name in parts}
    numbers = {**record, "finished": len(parts) == len(KINDS), "parts": parts}
    there = [file for part in parts.values() for file in part["files"] if file not in pictures]
    folder.write(pictures, numbers, beside=[*there, PAGE])
    _write_page(folder, numbers)
    return json.loads((folder.path / NUMBERS).read_text(encoding="utf-8"))


def _write_page(folder: OutputFolder, numbers: Mapping[str, Any]) -> None:
    from vizsynth.cli.report.page import Comparison, Figure, Picture, Table, write_page

    themes: dict[str, list[Figure]] = {}
    comparisons: list[Comparison] = []
    for name, part in numbers["parts"].items():
        kind, page = KINDS[name], part["page"]
        figure = Figure(
            name,
            kind.title,
            page["caption"],
            [Picture(*shown) for shown in page["shown"]],
            record=NUMBERS,
            seconds=part["seconds"],
            table=None if page["table"] is None else Table(*page["table"]),
        )
        themes.setdefault(kind.theme, []).append(figure)
        if page["compared"]:
            comparisons.append(Comparison(kind.compared, [Picture(*layer) for layer in page["compared"]]))
    photo = folder.origin["photo"]["name"]
    made = f"vizsynth {numbers['versions']['vizsynth']}, seed {numbers['seed']}"
    missing = [kind.title.lower() for name, kind in KINDS.items() if name not in numbers["parts"]]
    intro = f"{made}. Not made yet: {', '.join(missing)}." if missing else f"{made}."
    write_page(
        folder.path / PAGE, f"{photo} by {Path(numbers['network']).name}", themes, comparisons, intro=intro
    )
