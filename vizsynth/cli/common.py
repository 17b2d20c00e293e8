"""What the commands share: how they load, and what they say while they work."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from vizsynth.core.texts import printable


class BadInput(click.ClickException):
    """What was asked for, or given, cannot be; the message says what to do."""

    exit_code = 2


DEFAULT_NETWORK = "squeezenet1_1"
LONGEST_NAME = 100  # bytes: file systems take 255, and two names, or endings, come together


def need_extra(module: str, extra: str = "cli") -> None:
    """Check, before anything is computed, that an optional dependency is there."""
    if find_spec(module) is None:
        raise click.ClickException(f"this needs {module}: pip install 'vizsynth[{extra}]'")


def load_network(name: str, chosen: str | None) -> Any:
    """Return the network with its weights."""
    from vizsynth.models import load
    from vizsynth.ops import accelerated

    return accelerated(load(name, chosen))


def need_classes(net: Any, name: str) -> None:
    """Check that the network is a classifier."""
    if getattr(net, "num_classes", None) is None:
        raise BadInput(
            f"{name} with these weights is a trunk: it has no classes to explain; give the weights of "
            f"a whole {name} (--weights PATH), or another network (--network {DEFAULT_NETWORK})"
        )


def class_name(net: Any, label: int) -> str:
    """Return the name of a class, or what stands for it where names are not known."""
    return net.labels[label] if net.labels is not None else f"class {label}"


def likely(net: Any, probabilities: Any, label: int) -> dict[str, Any]:
    """Return a class, its name and its probability, for numbers.json."""
    p = round(float(probabilities[label]), 6)
    return {"label": label, "name": class_name(net, label), "probability": p}


def pick_target(net: Any, typed: str) -> int | None:
    """Return the label of the class that was typed, or None for the likeliest: `top`."""
    return None if typed == "top" else pick_class(net, typed)


def pick_class(net: Any, typed: str) -> int:
    """Return the label of the class that was typed: a name, a part of one, or a number."""
    from vizsynth.models.labels import find_class

    label = find_class(net.labels, typed)
    if label >= net.num_classes:
        raise BadInput(
            f"label {label} is outside the network's {net.num_classes} classes 0..{net.num_classes - 1}"
        )
    return label


def pick_layer(net: Any, typed: str | None) -> str:
    """Return the layer that was typed (also by torchvision's or Keras' name), or the usual one."""
    from vizsynth.models import layer_name

    return roles(net).cam if typed is None else layer_name(net, typed)


def roles(net: Any) -> Any:
    """Return the network's layers by their use (`vizsynth.models.Roles`)."""
    from vizsynth.models import roles_of

    try:
        return roles_of(net)
    except ValueError as error:
        raise BadInput(f"{error}; give another --network") from None


def pooled_layer(net: Any) -> str | None:
    """Return the layer that enters the logits by its mean alone, where CAM is exact; or None."""
    from vizsynth.models import roles_of

    try:
        return roles_of(net).pooled
    except ValueError:  # no maps at all
        return None


def input_size(net: Any) -> tuple[int, int]:
    """Return the height and width of the images that the network was trained on."""
    record = getattr(net, "record", None)
    return (224, 224) if record is None else record.input_size


def seen(net: Any, weights: str | None, image: Any) -> dict[str, Any]:
    """Return the origin of the network's weights, and the size of what it sees, for numbers.json."""
    return {
        "weights": {"given": weights, "origin": net.record.origin},
        "seen_at": {"height": image.shape[0], "width": image.shape[1]},
    }


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    import platform
    from importlib.metadata import version

    packages = ("vizsynth", "jax", "jaxlib", "flax", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def tell(*lines: str) -> None:
    """Print lines of results. Whatever the names in one hold, it stays one line, and steers no terminal."""
    _print(lines, err=False)


def tell_json(record: Any) -> None:
    """Print results as JSON, in ASCII."""
    click.echo(json.dumps(record, indent=2))


def say(text: str, quiet: bool = False) -> None:
    """Tell on stderr, in one line, what is going on; results alone go to stdout."""
    if not quiet:
        _print([text], err=True)


def _print(lines: Sequence[str], *, err: bool) -> None:
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    for line in lines:
        click.echo(printable(line).encode(encoding, "backslashreplace").decode(encoding), err=err)


def usual_folder(usual: str, *names: str) -> Path:
    """Return the folder in `out` that is called so, names in place of the words in capitals.

    It is one plain folder, whatever the name of a file or a network may hold.

    >>> usual_folder("NAME-dream", "cat").as_posix(), usual_folder("NAME", "..").as_posix()
    ('out/cat-dream', 'out/unnamed')
    """
    given = iter(names)
    return Path("out") / re.sub("[A-Z]+", lambda _: plain_name(next(given)), usual)


def plain_name(text: str) -> str:
    r"""Return a name for a file of ours that is like another's, and plain: of letters, in UTF-8, and short.

    >>> plain_name("...a/b\n\udce9"), plain_name(" . ")
    ('a-b--', 'unnamed')
    """
    kept = "".join(c if c.isprintable() and c not in "/\\" else "-" for c in text).strip(". ")
    return kept.encode()[:LONGEST_NAME].decode(errors="ignore") or "unnamed"


@contextmanager
def progress(what: str, steps: Sequence[str], quiet: bool) -> Iterator[Callable[[str], None]]:
    """Give a function to call as each step begins: a bar where stderr is a terminal, else one line.

    Both say that programs are compiled, as nothing else explains the first seconds.
    """
    if quiet or not _is_terminal():
        say(f"{what}: {', '.join(steps)} (compiling takes some seconds the first time) ...", quiet)
        yield lambda step: None
        return
    need_extra("tqdm")
    from tqdm import tqdm

    layout = "{desc} {bar:20} {n_fmt}/{total_fmt} {elapsed}"
    with tqdm(total=len(steps), file=sys.stderr, leave=False, bar_format=layout) as bar:

        def begin(step: str) -> None:
            bar.n = steps.index(step)
            bar.set_description_str(printable(f"{what}: compiling and running {step}"))

        yield begin


def _is_terminal() -> bool:
    return sys.stderr.isatty()
