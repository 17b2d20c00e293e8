"""The loop: its steps, its state, and runs that are interrupted."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vizsynth import ascent
from vizsynth.types import Synthesis

TARGET = np.linspace(-1, 1, 12).reshape(2, 2, 3)


def bowl(params, key):
    """−½‖W(x − t)‖², W diagonal: a maximum at t."""
    weights = jnp.asarray(np.arange(1, 13).reshape(2, 2, 3) / 6, params.dtype)
    return -((weights * (params - jnp.asarray(TARGET, params.dtype))) ** 2).sum() / 2


def noisy(params, key):
    return bowl(params + 0.1 * jax.random.normal(key, params.shape, params.dtype), key)


@partial(jax.jit, static_argnums=(0, 1, 2))
def go(objective, optimizer, steps, state):
    return ascent.run(objective, optimizer, state, steps)


SGD = optax.sgd(0.1)
ADAM = optax.adam(0.1)
LBFGS = optax.lbfgs(memory_size=4)


@pytest.mark.usefixtures("x64")
def test_a_step_is_the_gradient_times_the_rate():
    x = np.random.default_rng(0).normal(size=(2, 2, 3))
    weights = np.arange(1, 13).reshape(2, 2, 3) / 6
    state, trace = go(bowl, SGD, 3, ascent.init(jnp.asarray(x), SGD, key=jax.random.key(0)))
    expected = []
    for _ in range(3):
        expected.append(-0.5 * ((weights * (x - TARGET)) ** 2).sum())
        x = x + 0.1 * weights**2 * (TARGET - x)
    np.testing.assert_allclose(state.params, x, atol=1e-10)
    np.testing.assert_allclose(trace, expected, atol=1e-10)
    assert int(state.step) == 3


@pytest.mark.parametrize(
    ("objective", "optimizer"), [(bowl, SGD), (noisy, ADAM), (noisy, LBFGS)], ids=["sgd", "adam", "lbfgs"]
)
def test_chunks_end_where_one_run_does_bit_for_bit(objective, optimizer):
    start = ascent.init(jnp.zeros((2, 2, 3)), optimizer, key=jax.random.key(3))
    whole, trace = go(objective, optimizer, 8, start)
    first, a = go(objective, optimizer, 4, start)
    second, b = go(objective, optimizer, 4, first)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(trace, np.concatenate([a, b]))
    assert trace[-1] > trace[0]


def test_each_step_has_a_key_of_its_own():
    state = ascent.init(jnp.zeros((2, 2, 3)), SGD, key=jax.random.key(0))
    still = optax.sgd(0.0)
    _, trace = go(noisy, still, 4, state._replace(memory=still.init(state.params)))
    assert len(set(trace.tolist())) == 4


def test_line_search_hands_its_value_on():
    """Where the objective is the same at each step, L-BFGS gives the same with fewer evaluations."""
    start = ascent.init(jnp.zeros((2, 2, 3)), LBFGS, key=jax.random.key(0))
    fresh, _ = go(bowl, LBFGS, 20, start)
    handed, trace = jax.jit(lambda start: ascent.run(bowl, LBFGS, start, 20, stochastic=False))(start)
    np.testing.assert_allclose(handed.params, fresh.params, atol=1e-4)
    assert trace[-1] > -0.01
    assert (np.diff(trace) >= 0).all()


def several(optimizer, count):
    starts = jax.random.normal(jax.random.key(1), (count, *TARGET.shape))
    return jax.vmap(lambda x: ascent.init(x, optimizer, key=jax.random.key(0)))(starts)


@pytest.mark.parametrize("optimizer", [ADAM, optax.lbfgs(1.0)], ids=["adam", "lbfgs"])
def test_each_run_is_the_one_by_itself(optimizer):
    def one(state):
        return ascent.run(bowl, optimizer, state, 3, stochastic=False)

    alone, each = jax.jit(one), jax.jit(lambda states: ascent.run_each(one, states))
    for count in (1, 3):
        states = several(optimizer, count)
        together, traces = each(states)
        for i in range(count):
            end, trace = alone(jax.tree.map(lambda leaf, i=i: leaf[i], states))
            np.testing.assert_allclose(together.params[i], end.params, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(traces[i], trace, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_of_a_line_search_no_branch_is_evaluated_that_is_not_taken(count):
    """Under vmap a condition becomes a selection between both of its branches, and none is left."""
    search = optax.lbfgs(1.0)

    def program(each):
        return str(jax.make_jaxpr(each)(several(search, count)))

    def one(state):
        return ascent.run(bowl, search, state, 3, stochastic=False)

    assert " cond[" in program(lambda states: ascent.run_each(one, states))
    assert " cond[" not in program(jax.vmap(one))


def test_stands_still_where_it_diverges():
    def cliff(params, key):
        return jnp.where(params[0] > 0.35, jnp.nan, params[0])

    sgd = optax.sgd(0.1)
    state, trace = go(cliff, sgd, 10, ascent.init(jnp.zeros(1), sgd, key=jax.random.key(0)))
    assert int(state.step) == 4
    assert np.isfinite(trace[:4]).all() and np.isnan(trace[4:]).all()
    np.testing.assert_allclose(state.params, [0.4], atol=1e-6)


@partial(jax.jit, static_argnames=("steps", "objective", "optimizer"))
def take(state, steps, objective=bowl, optimizer=LBFGS):
    if state is None:
        state = jax.vmap(lambda key: ascent.init(jnp.zeros((2, 2, 3)), optimizer, key=key))(
            jax.random.split(jax.random.key(1), 2)
        )
    state, trace = jax.vmap(lambda s: ascent.run(objective, optimizer, s, steps))(state)
    return Synthesis(state.params, trace, state)


def test_a_saved_run_goes_on(tmp_path):
    run = partial(take, objective=noisy)
    parts = list(ascent.chunks(run, steps=9, every=3))
    whole, trace = parts[-1], np.concatenate([part.trace for part in parts], axis=1)
    chunks = ascent.chunks(run, steps=9, every=3, folder=tmp_path / "run", origin={"seed": 1})
    next(chunks), chunks.close()
    again = list(ascent.chunks(run, steps=9, every=3, folder=tmp_path / "run", origin={"seed": 1}))
    assert len(again) == 2
    np.testing.assert_array_equal(again[-1].images, whole.images)
    assert [p.name for p in (tmp_path / "run").glob("step-*")] == ["step-9"]
    np.testing.assert_array_equal(ascent.beside(tmp_path / "run")["trace"], trace)
    done = list(ascent.chunks(run, steps=9, every=3, folder=tmp_path / "run", origin={"seed": 1}))
    assert len(done) == 1 and done[0].trace.shape == (2, 0)
    np.testing.assert_array_equal(done[0].images, whole.images)


def test_another_run_is_refused(tmp_path):
    list(ascent.chunks(take, steps=2, every=2, folder=tmp_path, origin={"seed": 1, "net": "vgg16"}))
    with pytest.raises(ValueError, match=r"another run \(seed: 1 there, 2 now\); give its settings"):
        next(ascent.chunks(take, steps=4, every=2, folder=tmp_path, origin={"seed": 2, "net": "vgg16"}))
    (tmp_path / "run.json").write_text("not json")
    with pytest.raises(ValueError, match="does not say what run"):
        next(ascent.chunks(take, steps=4, every=2, folder=tmp_path, origin={}))


def test_a_state_of_other_arrays_is_refused(tmp_path):
    ascent.save(tmp_path, ascent.init(jnp.zeros(3), SGD, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="another run"):
        ascent.restore(tmp_path, ascent.init(jnp.zeros(4), SGD, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="another run"):
        ascent.restore(tmp_path, ascent.init(jnp.zeros(3), ADAM, key=jax.random.key(0)))
    with pytest.raises(FileNotFoundError, match="no saved run"):
        ascent.restore(tmp_path / "elsewhere", ascent.init(jnp.zeros(3), SGD, key=jax.random.key(0)))


@pytest.mark.parametrize(("steps", "every"), [(0, 1), (1, 0)])
def test_steps_must_be_positive(steps, every):
    with pytest.raises(ValueError, match="at least 1"):
        next(ascent.chunks(take, steps=steps, every=every))


def test_divergence_stops_a_run_and_keeps_the_last_good_picture(tmp_path):
    def cliff(params, key):
        return jnp.where(params.max() > 0.35, jnp.nan, params.sum())

    run = partial(take, objective=cliff, optimizer=SGD)
    chunks = ascent.chunks(run, steps=20, every=3, folder=tmp_path, origin={})
    assert np.isfinite(next(chunks).images).all()
    with pytest.raises(ascent.Diverged, match=r"step 4 .* smaller learning rate") as caught:
        next(chunks)
    assert caught.value.step == 4
    np.testing.assert_allclose(caught.value.last.images, 0.4, atol=1e-6)
    assert ascent.has_checkpoint(tmp_path)


PROGRAM = """
    import sys, time
    import jax
    jax.config.update("jax_disable_most_optimizations", True)
    from functools import partial
    import numpy as np
    import test_ascent
    from vizsynth import ascent
    folder, pause = sys.argv[1], float(sys.argv[2])
    run = partial(test_ascent.take, objective=test_ascent.noisy)
    for result in ascent.chunks(run, steps=6, every=2, folder=folder, origin={"seed": 0}):
        print(int(result.state.step[0]), flush=True)
        time.sleep(pause)
    np.save(folder + "/end.npy", np.asarray(result.images))
"""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_bit_equal_to_one_that_was_not(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), str(here.parent.parent)]),
    }

    def begin(folder, pause):
        program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), str(pause)]
        return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)

    victim = begin(tmp_path / "killed", 60)
    assert victim.stdout.readline().strip() == "2"
    victim.send_signal(signal.SIGKILL)
    assert victim.wait(60) == -signal.SIGKILL
    victim.stdout.close()
    resumed = begin(tmp_path / "killed", 0)
    lines = resumed.communicate(timeout=240)[0].split()
    assert resumed.returncode == 0
    assert lines == ["4", "6"]
    whole = list(ascent.chunks(partial(take, objective=noisy), steps=6, every=2))[-1]
    np.testing.assert_array_equal(np.load(tmp_path / "killed" / "end.npy"), whole.images)
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["settings"] == {"seed": 0}


# What is not the run's ---------------------------------------------------------------


def test_a_folder_that_is_called_as_a_step_is_not_the_runs(tmp_path):
    for step in (3, 9, 12):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}" / "thesis.txt").write_text("mine")
    assert not ascent.has_checkpoint(tmp_path)
    run = partial(take, optimizer=SGD)
    list(ascent.chunks(run, steps=6, every=3, folder=tmp_path))
    list(ascent.chunks(run, steps=9, every=3, folder=tmp_path))
    for step in (3, 9, 12):
        assert (tmp_path / f"step-{step}" / "thesis.txt").read_text() == "mine"
        assert len(list((tmp_path / f"step-{step}").iterdir())) == 1
    assert int(ascent.restore(tmp_path, run(None, 1).state).step.min()) == 9


def test_what_is_saved_beside_a_state_comes_back_with_it(tmp_path):
    state = ascent.init(jnp.zeros(3), SGD, key=jax.random.key(0))
    beside = {"trace": np.zeros((2, 0), np.float32), "names": np.asarray(["a", "\udcff"]), "n": np.asarray(3)}
    ascent.save(tmp_path, state, None, beside)
    found = ascent.beside(tmp_path)
    assert {name: (a.dtype, a.tolist()) for name, a in found.items()} == {
        name: (a.dtype, a.tolist()) for name, a in beside.items()
    }
    ascent.save(tmp_path, state, None, {"low": np.ones(2, jnp.bfloat16)})  # the same step once more
    assert {name: a.tolist() for name, a in ascent.beside(tmp_path).items()} == {"low": [1.0, 1.0]}
    assert len(list(tmp_path.glob("step-*"))) == 1


def test_an_array_beside_a_state_is_not_larger_than_its_file(tmp_path):
    ascent.save(tmp_path, ascent.init(jnp.zeros(3), SGD, key=jax.random.key(0)), None, {"n": np.zeros(2)})
    (path,) = tmp_path.glob("step-0/n.npy")
    path.write_bytes(path.read_bytes().replace(b"(2,)", b"(1000000000000,)", 1))
    with pytest.raises(ValueError, match=r"n\.npy is damaged"):
        ascent.beside(tmp_path)


def test_a_state_that_cannot_be_saved_leaves_the_one_before(tmp_path, monkeypatch):
    state = ascent.init(jnp.zeros(3), SGD, key=jax.random.key(0))
    ascent.save(tmp_path, state)

    def full(*_):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="cannot save the run in"):
        patch.setattr("orbax.checkpoint.StandardCheckpointer.save", full)
        ascent.save(tmp_path, state._replace(step=state.step + 5))
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-0"]
    assert int(ascent.restore(tmp_path, state).step) == 0
