"""`vizsynth networks`: which there are, and their layers."""

import click

@click.command("networks")
def command() -> None:
    """List the networks, or the layers of one."""
