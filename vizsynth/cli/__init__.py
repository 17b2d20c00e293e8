"""The `vizsynth` command: one command a file of `commands`, imported when it is asked for.

These files import click and the options at their top and JAX only where they compute, so that `--help`,
completion and mistyped options answer at once.
"""

import os
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import NoReturn

try:
    import click
except ModuleNotFoundError:
    raise SystemExit("vizsynth: error: the command line needs click: pip install 'vizsynth[cli]'") from None

from vizsynth.cli import commands
from vizsynth.cli.cache import use_cache
from vizsynth.cli.common import say
from vizsynth.core.atomic import told
from vizsynth.core.signals import exit_code, interruptible
from vizsynth.cpu.memory import keep_memory

# A command is a file of `vizsynth.cli.commands`, called as it is.
COMMANDS = tuple(sorted(found.name.replace("_", "-") for found in iter_modules(commands.__path__)))

EPILOG = """\b
Compiled programs are kept in ~/.cache/vizsynth (XDG_CACHE_HOME is heeded), so
that a second run starts at once: VIZSYNTH_CACHE=off keeps none, and
VIZSYNTH_CACHE=PATH keeps them there. VIZSYNTH_DEBUG=1 shows tracebacks.
"""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in COMMANDS:
            raise KeyError(name)
        return import_module(f"{commands.__name__}.{name.replace('-', '_')}").command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __setitem__(self, name: str, command: click.Command) -> NoReturn:
        raise TypeError("a command is a file of vizsynth.cli.commands")

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError("a command is a file of vizsynth.cli.commands")


@click.group(
    commands=_Commands(),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(package_name="vizsynth", message="%(prog)s %(version)s")
def group() -> None:
    """See into convolutional networks, and make pictures with them."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    0: done. 1: it failed. 2: what was asked for, or given, cannot be. 130: interrupted by Ctrl-C; 143: by
    SIGTERM; 129: by SIGHUP (128 and the signal's number).
    """
    warnings.showwarning = _warn
    keep_memory()
    try:
        with interruptible():
            use_cache()
            code = group.main(args, prog_name="vizsynth", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt) as error:
        _complain("interrupted")
        return exit_code(error.__cause__ or error)  # click has an exception of its own for it
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except Exception as error:
        if os.environ.get("VIZSYNTH_DEBUG", "0") not in ("", "0"):
            raise
        return _report(error)


def _report(error: Exception) -> int:
    match error:
        case click.UsageError(ctx=ctx):
            message = error.format_message()
            if ctx is not None and not message.endswith(("?", "?)")):
                message = f"{message.removesuffix('.')}; see {ctx.command_path} --help"
            _complain(message)
            return 2
        case click.ClickException():
            _complain(error.format_message())
            return error.exit_code
        # What the library says of images, labels, layers and weights that cannot be used.
        case ValueError() | FileNotFoundError():
            _complain(str(error))
            return 2
        case OSError():
            _complain(told(error))
        case ModuleNotFoundError():
            _complain(str(error))
        case MemoryError():
            _complain("there is not enough memory; give a smaller --size")
        case _ if "RESOURCE_EXHAUSTED" in str(error):
            _complain("the device has not enough memory; give a smaller --size")
        case _:
            _complain(
                f"unexpected {type(error).__name__}: {error} (VIZSYNTH_DEBUG=1 shows where; please report it)"
            )
    return 1


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    say(f"vizsynth: warning: {' '.join(str(message).split())}")


def _complain(message: str) -> None:
    say(f"vizsynth: error: {' '.join(message.split())}")
