"""`vizsynth convert`: which there are, and their layers."""

import click

@click.command("convert")
def command() -> None:
    """List the convert, or the layers of one."""
