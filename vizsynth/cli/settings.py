"""The settings of a command as one value: a frozen dataclass, each field of which is an option.

    @dataclass(frozen=True, kw_only=True)
    class Settings(Written):
        photo: Photo = argument()
        network: str = options.network()
        steps: int = option(200, "How many steps", type=click.IntRange(1))
        layers: tuple[str, ...] = option((), "Which; may be repeated", "--layer", "-l", metavar="NAME")
        out: Path | None = options.out("out/NAME-drawn")


    @command_of(Settings)
    def command(settings: Settings) -> None:
        "Draw PHOTO."

Everything else follows from a field: the option's name (`style_scale` is `--style-scale`), its type from the
annotation, its help with the default in brackets, its check, and its record in numbers.json, under the
field's name. The help shows a class's own fields before those of its bases; a redeclared field keeps its
place.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import click

from vizsynth.cli.common import tell

Record = Literal["origin", "numbers"]
S = TypeVar("S")


@dataclass(frozen=True)
class _Declared:
    """An option or an argument, before its field's name and type are known."""

    help: str | None
    flags: tuple[str, ...]
    type: click.ParamType | None
    metavar: str | None
    parse: Callable[[Any], Any] | None
    many: bool
    hidden: bool
    record: Record | None
    fixed: bool = False


def option(
    default: Any = MISSING,
    help: str = "",
    *flags: str,
    type: click.ParamType | None = None,
    metavar: str | None = None,
    parse: Callable[[Any], Any] | None = None,
    hidden: bool = False,
    record: Record | None = "origin",
) -> Any:
    """Return the field of an option.

    Args:
        default: the value of an option that is not typed; an option without a default is required. An option
            whose default is () may be repeated.
        help: without a full stop. The default is appended in brackets if it has none.
        flags: by default the field's name: `--style-scale`.
        type: click's type if the annotation is not enough: a range, a choice.
        metavar: the name of the value in the help.
        parse: returns the setting for the typed text; its ValueError becomes the message.
        hidden: whether only `--help-all` shows it.
        record: its place in numbers.json: the origin of the files, which a resumed run must share, or the
            numbers; None for none.
    """
    shown = f"{default:g}" if isinstance(default, float) else default
    is_told = "[" in help or isinstance(default, bool) or not isinstance(default, int | float | str)
    text = f"{help}." if is_told else f"{help} [{shown}]."
    return _field(default, _Declared(text, flags, type, metavar, parse, default == (), hidden, record))


def argument(
    default: Any = MISSING,
    *,
    metavar: str | None = None,
    many: bool = False,
    record: Record | None = "origin",
) -> Any:
    """Return the field of an argument: `many` takes one or more; one with a default is optional."""
    return _field(default, _Declared(None, (), None, metavar, None, many, False, record))


def fixed(value: Any) -> Any:
    """Return the field of a setting without an option in this command."""
    return _field(value, _Declared(None, (), None, None, None, False, False, "origin", fixed=True))


def _field(default: Any, declared: _Declared) -> Any:
    return field(default=default, metadata={"declared": declared})


def declared(settings: Any) -> list[tuple[Field[Any], _Declared]]:
    """Return the fields of a command's settings in the order of its help."""
    names: dict[str, None] = {}
    for base in inspect.getmro(settings):
        for name in inspect.get_annotations(base):
            names.pop(name, None)  # the place is that of the last base
            names[name] = None
    known = {f.name: f for f in fields(settings)}
    return [(known[name], known[name].metadata["declared"]) for name in names if name in known]


def recorded(settings: Any, where: Record) -> dict[str, Any]:
    """Return the settings recorded in that place, as JSON values."""
    found = [f.name for f, d in declared(type(settings)) if d.record == where]
    return {name: _plain(getattr(settings, name)) for name in found}


def _plain(value: Any) -> Any:
    if hasattr(value, "described"):
        return value.described
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.name if isinstance(value, Path) else value


def name_of(settings: Any) -> str:
    """Return the name of a command: its file's."""
    return settings.__module__.rpartition(".")[2].replace("_", "-")


def command_of(
    settings: type[S], *, epilog: str | None = None
) -> Callable[[Callable[[S], None]], click.Command]:
    """Return the decorator that makes a command of a function of its settings; its docstring is the help."""
    parameters = [_parameter(f, d) for f, d in declared(settings) if not d.fixed]
    if any(d.hidden for _, d in declared(settings)):
        parameters.append(_HELP_ALL)

    def made(run: Callable[[S], None]) -> click.Command:
        return click.Command(
            name_of(settings),
            params=parameters,
            callback=lambda **values: run(settings(**values)),
            help=inspect.cleandoc(run.__doc__ or ""),
            epilog=epilog,
        )

    return made


def _parameter(f: Field[Any], declared: _Declared) -> click.Parameter:
    kind = (*get_args(f.type), f.type)[0]  # the first of `str | None`, and of `tuple[str, ...]`
    given: dict[str, Any] = {
        "type": declared.type or (None if declared.parse else _type(kind)),
        "metavar": declared.metavar,
        "callback": None if declared.parse is None else _callback(declared.parse),
    }
    if declared.help is None:
        return click.Argument(
            [f.name], required=f.default is MISSING, nargs=-1 if declared.many else 1, **given
        )
    flags = declared.flags or (f"--{f.name.replace('_', '-')}",)
    if f.default not in (MISSING, None, ()):
        given["default"] = f.default
    if kind is bool:
        given["is_flag"] = True
    return click.Option(
        [*flags, f.name], required=f.default is MISSING, multiple=declared.many, hidden=declared.hidden,
        help=declared.help, **given,
    )  # fmt: skip


def _type(kind: Any) -> Any:
    """Return click's type for an annotation."""
    if hasattr(kind, "__fspath__"):
        return click.Path(path_type=kind)
    return kind if kind in (int, float) else None


def _callback(parse: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def parsed(context: click.Context, parameter: click.Parameter, typed: Any) -> Any:
        try:
            return None if typed is None else parse(typed)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None

    return parsed


def _show_all(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    del parameter
    if not asked or context.resilient_parsing:
        return
    rarer = [p for p in context.command.params if isinstance(p, click.Option) and p.hidden]
    for one in rarer:
        one.hidden = False
    try:
        tell(*context.get_help().splitlines())
    finally:
        for one in rarer:
            one.hidden = True
    context.exit()


# Where there are more options than fit a screen, those that few need are `hidden`.
_HELP_ALL = click.Option(
    ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all,
    help="Show this and the rarer options.",
)  # fmt: skip
