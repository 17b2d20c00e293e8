"""Attacks, pictures, and what works on the host, of the network that comes with the package."""

import calls
import together


def test_back_to_back() -> None:
    together.hold(calls.bundled(), calls.attacks() | calls.pictures() | calls.on_the_host())


def test_from_threads() -> None:
    together.hold_from_threads(calls.bundled(), calls.attacks() | calls.pictures())
