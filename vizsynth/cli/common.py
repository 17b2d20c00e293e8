"""What the commands share: their options, how they load, and what they say while they work."""

import json
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

# The texts are short enough for a line each, so that a command's help fits a screen.
network = click.option(
    "--network", "-n", default=DEFAULT_NETWORK, metavar="NAME",
    help=f"As `vizsynth networks` lists them [{DEFAULT_NETWORK}].",
)  # fmt: skip
weights = click.option("--weights", "-w", metavar="NAME", help="Its weights: a file, or a listed name.")
target = click.option(
    "--target", "-t", default="top", metavar="CLASS", help="A class, by name or number [the top one]."
)
layer = click.option("--layer", "-l", metavar="NAME", help="A layer [the network's usual one].")
seed = click.option("--seed", type=int, default=0, help="Of what is drawn at random [0].")
size = click.option(
    "--size", type=click.IntRange(33, 4096), metavar="PIXELS",
    help="The shorter side of what the network sees.",
)  # fmt: skip
overwrite = click.option("--overwrite", is_flag=True, help="Replace files of other runs in DIR.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Print results and errors only.")


def out(usual: str) -> Callable[[Any], Any]:
    """Return the option for the folder of all that a command writes; `usual` is where without it."""
    return click.option(
        "--out", "-o", type=click.Path(path_type=Path), metavar="DIR", help=f"Where the files go [{usual}]."
    )


def _show_all(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    del parameter
    if not asked or context.resilient_parsing:
        return
    rarer = [p for p in context.command.params if isinstance(p, click.Option) and p.hidden]
    for option in rarer:
        option.hidden = False
    try:
        click.echo(context.get_help())
    finally:
        for option in rarer:
            option.hidden = True
    context.exit()


# Where there are more options than fit a screen, those that few need are `hidden`.
help_all = click.option(
    "--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_show_all,
    help="Show this and the rarer options.",
)  # fmt: skip


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


def usual_folder(name: str, ending: str = "") -> Path:
    """Return out/NAME: one plain folder in `out`, whatever the name of a file or a network may hold.

    >>> usual_folder("cat", "-dream").as_posix(), usual_folder("..").as_posix()
    ('out/cat-dream', 'out/unnamed')
    """
    return Path("out") / f"{plain_name(name)}{ending}"


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
