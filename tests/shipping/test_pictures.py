"""Attacks, pictures, and what works on the host, of the network that comes with the package."""

import calls
import together


def test_back_to_back_and_from_threads() -> None:
    together.hold(calls.bundled(), calls.attacks() | calls.pictures() | calls.on_the_host())
