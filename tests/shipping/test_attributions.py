"""Maps, measures and what looks inside, of the network that comes with the package."""

import inspect

import calls
import together

import vizsynth

# What has nothing to compute: it changes the process or the disk.
OTHERS = {"keep_memory", "write_image"}


def test_every_public_function_is_called() -> None:
    public = {name: getattr(vizsynth, name) for name in dir(vizsynth) if not name.startswith("_")}
    functions = {
        name
        for name, value in public.items()
        if (inspect.isfunction(value) or hasattr(value, "compiled"))
        and value.__module__.startswith("vizsynth")
    }
    assert functions - OTHERS == set(calls.compiled() | calls.on_the_host())


METHODS = calls.maps() | calls.evaluations() | calls.inspections()


def test_back_to_back() -> None:
    together.hold(calls.bundled(), METHODS)


def test_from_threads() -> None:
    together.hold_from_threads(calls.bundled(), METHODS)
