"""Fitting: what is trained, what is not, and that a training goes on as if it had never stopped."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_flatten_with_path
from tiny import randomized, tiny

import vizsynth
from vizsynth import training
from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU, Sequential
from vizsynth.training import Examples, fitting, freezing
from vizsynth.training.history import best_epoch
from vizsynth.transforms import Mirror, Noise, Sequence

STACK = (Conv(4, batch_norm=True), ReLU(), Conv(5, batch_norm=True), ReLU(), GlobalMean(), Dense(3))
KEY = jax.random.key(7)
OPTIONS: dict[str, Any] = {"key": KEY, "epochs": 3, "batch_size": 8, "learning_rate": 0.02}


def small(seed: int = 0) -> Sequential:
    return randomized(vizsynth.models.sequential(STACK, (8, 8, 3), key=jax.random.key(seed)), seed)


def coloured(n: int = 30, seed: int = 0) -> Examples:
    """Three classes: red, green or blue is the brightest."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int32) % 3
    images = rng.integers(0, 120, (n, 8, 8, 3))
    images[np.arange(n), :, :, labels] += 100
    return Examples(images.astype(np.uint8), labels, ("red", "green", "blue"))


def leaves(net: Any) -> dict[str, np.ndarray]:
    return {keystr(path): np.asarray(leaf) for path, leaf in tree_flatten_with_path(net)[0]}


def same(net: Any, other: Any) -> bool:
    ours, theirs = leaves(net), leaves(other)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_network_learns_and_what_was_given_stays() -> None:
    net, data = small(), coloured(60)
    before = leaves(net)
    parts = training.split(data, 0.2, key=jax.random.key(0))
    fitted = vizsynth.fit(net, parts.training, validation=parts.held_out, **OPTIONS | {"epochs": 12})
    assert fitted.finished and len(fitted.history) == 12
    assert vizsynth.predict(fitted.net, parts.held_out).accuracy == fitted.best.validation_accuracy == 1.0
    for name, leaf in leaves(net).items():
        np.testing.assert_array_equal(leaf, before[name])
    assert not any(np.array_equal(leaf, before[name]) for name, leaf in leaves(fitted.net).items())


# Frozen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [("conv1", "conv2"), ("logits",)])
def test_frozen_layers_are_the_same_to_the_bit(frozen: tuple[str, ...]) -> None:
    net = small()
    fitted = vizsynth.fit(net, coloured(16), **OPTIONS, weight_decay=0.1, frozen=frozen)
    after = leaves(fitted.net)
    for name, leaf in leaves(net).items():
        kept = any(f".{layer}." in name for layer in frozen)
        assert np.array_equal(leaf, after[name]) == kept, name


@pytest.mark.parametrize("name", ["vgg_bn", "resnet_bottleneck", "squeezenet"])
def test_frozen_layers_of_every_family(name: str) -> None:
    net = tiny(name).net
    layers = list(dict.fromkeys(freezing.layers_of(net)))
    middle = {"vgg_bn": "conv1", "resnet_bottleneck": "layer1", "squeezenet": "fire2"}[name]
    frozen = [layer for layer in layers if freezing.is_frozen(layer, [middle])]
    assert frozen and len(frozen) < len(layers)
    told = dict(zip(leaves(net), freezing.trainable(net, [middle]), strict=True))
    for path, layer in zip(leaves(net), freezing.layers_of(net), strict=True):
        statistic = ".mean" in path or ".variance" in path
        assert told[path] == (layer not in frozen and not statistic)


def test_a_layer_is_not_frozen_by_the_beginning_of_its_number() -> None:
    assert not freezing.is_frozen("conv10", ["conv1"])
    assert freezing.is_frozen("conv1_2", ["conv1"]) and freezing.is_frozen("conv1.norm", ["conv1"])


def test_up_to_a_layer_is_what_it_depends_on() -> None:
    net = tiny("squeezenet").net
    assert training.up_to(net, "relu1") == ("conv1",)
    found = training.up_to(net, "fire3")
    assert set(found) == {
        "conv1", *(f"fire{i}.{part}" for i in (2, 3) for part in ("squeeze", "expand1x1", "expand3x3"))
    }  # fmt: skip
    with pytest.raises(ValueError, match="no layer is called 'fire1'; there are: conv1,"):
        training.up_to(net, "fire1")


# Batch normalization ----------------------------------------------------------------------


def test_running_averages_move_as_pytorchs_do() -> None:
    net, data = small(), coloured(8)
    norm = net.conv1.norm
    y = np.asarray(jax.lax.conv_general_dilated(
        jnp.asarray(data.images, jnp.float32) / 255, net.conv1.kernel[...], (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ) + net.conv1.bias[...].reshape(1, 1, 1, -1), np.float64)  # fmt: skip
    fitted = vizsynth.fit(net, data, **OPTIONS | {"epochs": 1, "batch_size": 8})
    n = y.size // 4
    mean = 0.9 * np.asarray(norm.mean[...]) + 0.1 * y.mean((0, 1, 2))
    variance = 0.9 * np.asarray(norm.variance[...]) + 0.1 * y.var((0, 1, 2)) * n / (n - 1)
    np.testing.assert_allclose(fitted.net.conv1.norm.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(fitted.net.conv1.norm.variance[...], variance, rtol=1e-5)


# Order, changes --------------------------------------------------------------------------


def test_what_augment_draws_depends_on_the_key_the_epoch_and_the_image_alone() -> None:
    seen: dict[int, list[np.ndarray]] = {}

    class Spy:
        def __call__(self, key: Any, image: Any) -> Any:
            drawn = jax.random.uniform(key, ())
            jax.debug.callback(
                lambda i, u: seen.setdefault(int(i), []).append(np.asarray(u)), image[0, 0, 0] * 255, drawn
            )
            return image

    images = np.broadcast_to(np.arange(12, dtype=np.uint8).reshape(-1, 1, 1, 1), (12, 8, 8, 3)).copy()
    data = Examples(images, np.arange(12, dtype=np.int32) % 3, ("a", "b", "c"))
    drawn = []
    for batch_size in (4, 6):
        seen.clear()
        vizsynth.fit(small(), data, **OPTIONS | {"batch_size": batch_size, "epochs": 2}, augment=Spy())
        drawn.append({i: sorted(map(float, values)) for i, values in seen.items()})
    assert drawn[0] == drawn[1] and set(drawn[0]) == set(range(12))
    assert len({value for values in drawn[0].values() for value in values}) == 24


def test_an_epoch_sees_every_image_once() -> None:
    found = training.data.order(KEY, 1, 50)
    assert sorted(found.tolist()) == list(range(50))
    assert not np.array_equal(found, training.data.order(KEY, 2, 50))


# Going on --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 5])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(at: int, tmp_path: Path) -> None:
    """Within an epoch (5), and at its end (3)."""
    parts = training.split(coloured(32), 0.2, key=jax.random.key(0))
    options = OPTIONS | {"validation": parts.held_out, "augment": Sequence((Mirror(), Noise(0.1)))}
    whole = vizsynth.fit(small(), parts.training, **options)
    stopped = vizsynth.fit(small(), parts.training, **options, folder=tmp_path, watch=lambda p: p.step == at)
    assert not stopped.finished and int(stopped.state.step) == at
    resumed = vizsynth.fit(small(1), parts.training, **options, folder=tmp_path)
    assert resumed.history == whole.history and resumed.finished
    assert same(resumed.state, whole.state) and same(resumed.net, whole.net)
    assert training.read_history(tmp_path / "history.json") == whole.history
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["epochs"] == 3
    again = vizsynth.fit(small(), parts.training, **options, folder=tmp_path)
    assert again.history == whole.history


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    vizsynth.fit(small(), coloured(8), **OPTIONS, folder=tmp_path)
    with pytest.raises(ValueError, match=r"holds another run \(learning_rate: 0.02 there, 0.01 now\)"):
        vizsynth.fit(small(), coloured(8), **OPTIONS | {"learning_rate": 0.01}, folder=tmp_path)


# Early stop, the best epoch ----------------------------------------------------------------


def test_it_stops_when_nothing_gets_better_and_returns_the_best() -> None:
    data = coloured(24)
    wrong = data._replace(labels=(data.labels + 1) % 3)  # the more it learns, the worse
    fitted = vizsynth.fit(
        small(), data, validation=wrong, **OPTIONS | {"epochs": 30, "learning_rate": 0.05}, patience=3
    )  # fmt: skip
    best = fitted.best
    assert fitted.finished and len(fitted.history) == best.epoch + 3 < 30
    found = vizsynth.predict(fitted.net, wrong)
    assert found.accuracy == pytest.approx(best.validation_accuracy)
    assert found.loss == pytest.approx(best.validation_loss, rel=1e-5)


def test_the_best_epoch_is_the_most_accurate_then_the_surest_then_the_first() -> None:
    def record(epoch: int, loss: float, accuracy: float) -> training.Record:
        return training.Record(epoch, 0.1, 1.0, 0.5, loss, accuracy)

    history = [record(1, 0.9, 0.5), record(2, 0.8, 0.7), record(3, 0.7, 0.7), record(4, 0.7, 0.7)]
    assert best_epoch(history) == history[2]
    assert best_epoch(history[:0]) is None


# Rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", training.SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 100])
def test_rates_lie_between_nothing_and_the_peak(name: str, steps: int) -> None:
    found = training.schedules.rates(training.SCHEDULES[name], 0.1, steps)
    assert found.shape == (steps,) and np.isfinite(found).all()
    assert (found >= 0).all() and float(found.max()) <= 0.1 + 1e-6
    if steps == 100:
        assert float(found.max()) == pytest.approx(0.1, rel=1e-3)


def test_numbers_do_not_compile_anew() -> None:
    vizsynth.fit(small(), coloured(16), **OPTIONS)
    before = fitting._step._cache_size()
    vizsynth.fit(small(), coloured(16), **OPTIONS | {"learning_rate": 0.7, "epochs": 1}, weight_decay=0.3)
    assert fitting._step._cache_size() == before


# Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": 3}, "must be labelled images"),
        ({"data": coloured()._replace(labels=np.zeros(0, int))}, "at least one"),
        ({"data": coloured()._replace(labels=np.zeros(30))}, "must be integers"),
        ({"data": coloured()._replace(labels=np.arange(30))}, r"labels \(3, 4, 5, 6, 7, ...\) outside"),
        ({"data": coloured()._replace(labels=np.zeros(30, int))}, "all images are of one class"),
        ({"data": coloured()._replace(images=np.zeros((30, 8, 8), np.uint8))}, r"\[30, h, w, 3\]"),
        ({"data": coloured()._replace(images=np.zeros((30, 8, 8, 3), int))}, "uint8, or float"),
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"patience": 1}, "patience needs validation"),
        ({"key": jax.random.PRNGKey(0)}, "new-style key"),
        ({"frozen": ["conv3"]}, "no layer with weights begins with 'conv3'.*there are: conv1, conv2, logits"),
        ({"frozen": ["conv1", "conv2", "logits"]}, "every layer is frozen"),
        ({"net": tiny("vgg").net, "data": coloured()._replace(images=np.zeros((30, 3, 3, 3), np.uint8))},
         "too small"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(change: dict[str, Any], message: str) -> None:
    given = {"net": small(), "data": coloured(), **OPTIONS, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        vizsynth.fit(given.pop("net"), given.pop("data"), **given)


def test_a_network_without_classes_is_told_about_heads() -> None:
    net = vizsynth.models.squeezenet1_1(num_classes=None, key=KEY)
    with pytest.raises(ValueError, match="with_classes"):
        vizsynth.fit(net, coloured(), key=KEY)


def test_a_training_that_diverges_says_so() -> None:
    data = coloured(16)._replace(images=np.full((16, 8, 8, 3), np.nan, np.float32))
    with pytest.raises(training.Diverged, match="in epoch 1: give a smaller learning rate"):
        vizsynth.fit(small(), data, **OPTIONS)


def test_a_share_of_each_class_is_held_out() -> None:
    data = coloured(31)
    parts = training.split(data, 0.3, key=KEY)
    assert len(parts.training.labels) + len(parts.held_out.labels) == 31
    assert np.bincount(parts.held_out.labels).tolist() == [3, 3, 3]
    for part in parts:
        for image, label in zip(part.images, part.labels, strict=True):
            assert image.mean((0, 1)).argmax() == label
    with pytest.raises(ValueError, match="between 0 and 1"):
        training.split(data, 1.0, key=KEY)
    with pytest.raises(ValueError, match="class red has one image"):
        training.split(coloured(3), 0.3, key=KEY)


def test_a_history_of_others_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"history\.json"):
        vizsynth.fit(
            small(), coloured(8), **OPTIONS, folder=tmp_path, watch=lambda _: pytest.fail("computed")
        )
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]
    assert (tmp_path / "history.json").read_text() == "mine"
