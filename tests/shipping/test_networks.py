"""Maps of other networks at full size: called back to back, from threads, and in a new process."""

import multiprocessing
from typing import Any

import calls
import pytest
import together

TEN = (
    *("gradient", "saliency", "guided_backprop", "deconvnet", "input_x_gradient"),
    *("grad_cam", "grad_cam_pp", "layer_cam", "integrated_gradients", "smooth_grad"),
)


def make_apart(connection: Any) -> None:
    """Send the maps of a ResNet-18, of calls that do not wait for each other, to another process."""
    subject = calls.random_network("resnet18")
    made = {name: calls.maps()[name](subject) for name in TEN}
    connection.send({name: calls.leaves(found) for name, found in made.items()})


def methods_of(subject: calls.Subject) -> dict[str, calls.Call]:
    """Return the methods that a network can be asked."""
    return {name: call for name, call in calls.maps().items() if name != "cam" or subject.pooled is not None}


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_from_threads(name: str) -> None:
    subject = calls.random_network(name)
    together.hold_from_threads(subject, methods_of(subject))


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_back_to_back_and_in_a_new_process(name: str) -> None:
    subject = calls.random_network(name)
    wanted = together.hold(subject, methods_of(subject))
    if name == "resnet18":
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=make_apart, args=(sender,))
        process.start()
        sender.close()
        found = receiver.recv()
        process.join()
        assert process.exitcode == 0
        assert not calls.different(found, wanted)
