"""Maps of other networks at full size: called back to back, from threads, and in a new process."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import calls
import jax
import numpy as np
import pytest

TEN = (
    *("gradient", "saliency", "guided_backprop", "deconvnet", "input_x_gradient"),
    *("grad_cam", "grad_cam_pp", "layer_cam", "integrated_gradients", "smooth_grad"),
)


def made(name: str, methods: tuple[str, ...]) -> dict[str, Any]:
    """Return the maps of a network of random weights, of calls that do not wait for each other."""
    subject = calls.random_network(name)
    return {method: calls.maps()[method](subject) for method in methods}


def made_apart(connection: Any) -> None:
    """Send the maps of a ResNet-18 to another process."""
    connection.send({name: calls.leaves(found) for name, found in made("resnet18", TEN).items()})


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_back_to_back_from_threads_and_in_a_new_process(name: str) -> None:
    subject = calls.random_network(name)
    methods = {
        method: call for method, call in calls.maps().items() if method != "cam" or subject.pooled is not None
    }
    wanted = {method: calls.leaves(jax.block_until_ready(call(subject))) for method, call in methods.items()}
    assert all(np.isfinite(array).all() for arrays in wanted.values() for array in arrays)
    for _ in range(3):
        assert not calls.different({method: call(subject) for method, call in methods.items()}, wanted)

    names = list(methods)

    def run(thread: int) -> dict[str, Any]:
        first = thread * len(names) // 4
        return {method: methods[method](subject) for method in names[first:] + names[:first]}

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(run, range(4)):
            assert not calls.different(results, wanted)

    if name == "resnet18":
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=made_apart, args=(sender,))
        process.start()
        sender.close()
        found = receiver.recv()
        process.join()
        assert process.exitcode == 0
        assert not calls.different(found, wanted)
