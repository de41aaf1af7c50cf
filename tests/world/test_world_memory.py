"""A world that is not seen whole: a VRNN bounds what is seen next, and its belief is planned in."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_sled

from likely import world
from likely.cli import main
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Relation
from likely.noise import Noise
from likely.world.memory import _columns, _sequences

SIZES = {"hidden": 6, "latent": 2, "updates": 4}
LOG = world.collect(toy_sled.TASK, n=120, seed=0)
SLED = world.fit(LOG, "vrnn", task=toy_sled.TASK, **SIZES)
HELD = world.collect(toy_sled.TASK, n=60, seed=1)


@pytest.fixture
def memory() -> world.Memory:
    assert SLED.task.memory is not None
    return SLED.task.memory


def test_nats_of_a_step_are_the_bound_of_the_network_itself(memory: world.Memory) -> None:
    """Summed over all steps of all episodes, in the unit of the variable."""
    nats = memory.nats(HELD, np.arange(len(HELD)), 1, 64, seed=0)
    data = _sequences(toy_sled.TASK, HELD, memory.network.spec.columns).batch(slice(None))
    with torch.no_grad():
        x, told = torch.from_numpy(data.x), memory.network.batch_context(data)
        bound = memory.network.fivo(x, Noise("bound"), told, 64).sum()
    volume = math.log(2.0 * 4.0 / 2**14)  # of a level: two boxes are 2^14 of them
    assert nats.mean() == pytest.approx(volume - float(bound) / len(HELD), abs=0.02)
    kept = world.held_out_nats(SLED, HELD, steps=(1, 3), starts=1000)
    assert kept[1].value == pytest.approx(nats.mean(), abs=0.02)
    assert {estimate.relation for estimate in kept.values()} == {Relation.UPPER}


def test_held_out_rows_are_held_out_of_the_memory_too(memory: world.Memory) -> None:
    """What the memory of a fitted task has seen is no test of it, nor is it a null model."""
    twice = [world.validate(LOG, "vrnn", task=task, steps=(1,), **SIZES)
             for task in (toy_sled.TASK, SLED.task)]  # fmt: skip
    assert twice[0] == twice[1]
    assert twice[1]["null"][1].relation is Relation.EXACT


def test_a_bound_of_several_steps_tightens_with_rollouts(memory: world.Memory) -> None:
    at = np.flatnonzero(HELD.episode[:-2] == HELD.episode[2:])
    loose, tight = (memory.nats(HELD, at, 3, k, seed=0).mean() for k in (2, 128))
    assert tight < loose


def test_each_step_is_told_the_action_before_it(memory: world.Memory) -> None:
    nats = []
    for row in (None, 0, 1, 2):  # another action in that row
        action = HELD.action.copy()
        if row is not None:
            action[row] = (action[row] + 1) % 3
        log = dataclasses.replace(HELD, action=action)
        nats.append(memory.nats(log, np.array([0]), 2, 4, seed=0)[0])
    assert nats[0] == nats[3]  # what is done after the two steps
    assert len(set(nats)) == 3


def test_a_belief_is_of_the_past_and_the_same_alone_and_in_a_batch(memory: world.Memory) -> None:
    before, after = memory.beliefs(LOG)
    same = LOG.episode[1:] == LOG.episode[:-1]
    np.testing.assert_array_equal(before[1:][same], after[:-1][same])
    moved = LOG.next_observation.copy()
    moved[4] += 1.0  # seen after the fifth step
    again = memory.beliefs(dataclasses.replace(LOG, next_observation=moved))
    np.testing.assert_allclose(again[0][:5], before[:5], atol=1e-6)
    assert abs(again[1][4] - after[4]).max() > 0.01
    watch = memory.begin(1)
    alone = [watch.see(np.array([0]), LOG.observation[:1])]
    for t in range(3):
        alone.append(
            watch.see(np.array([0]), LOG.next_observation[t : t + 1], LOG.action[t : t + 1])
        )
    np.testing.assert_allclose(np.concatenate(alone), before[:4], atol=1e-3)


def test_an_episode_is_a_sequence_and_a_cut_is_not_an_end(memory: world.Memory) -> None:
    data = _sequences(toy_sled.TASK, LOG, memory.network.spec.columns)
    assert (len(data), data.spec.steps) == (LOG.episodes, len(LOG))
    assert (data.lead == 1).all()  # what an episode begins with is given, not scored
    assert data.covariates is not None
    told = np.flatnonzero(data.covariates.sum(axis=1) == 0.0)  # no action before the first
    np.testing.assert_array_equal(told, data.offsets[:-1])
    np.testing.assert_array_equal(data.covariates[1:3].argmax(axis=1), LOG.action[:2])
    first = LOG.rows(LOG.episode == 0)
    np.testing.assert_allclose(data.numbers(0)[1:], first.next_observation, atol=2.5e-4)
    assert LOG.terminated.any()
    assert LOG.truncated.sum() > 1
    cut = LOG.rows(np.isin(LOG.episode, LOG.episode[LOG.truncated]))
    assert world.fit(cut, "vrnn", task=SLED.task).ends.never
    assert not world.fit(LOG, "vrnn", task=SLED.task).ends.never


def test_it_acts_by_what_it_remembers_and_logs_what_is_seen() -> None:
    plan = world.plan(SLED, (5, 5), tolerance=0.1)
    together = world.act(SLED.task, plan, episodes=2, seed=5)
    alone = world.act(SLED.task, plan, episodes=1, seed=6)
    assert together.returns[1] == alone.returns[0]
    np.testing.assert_allclose(together.first[1:], alone.first, atol=1e-3)
    assert together.first.shape == (2, 2)
    log = world.collect(SLED.task, plan, n=4)
    assert log.observation.shape == (4, 1)
    with pytest.raises(InvalidData, match=r"act in plan\.model\.task"):
        world.act(toy_sled.TASK, plan, episodes=1)


@pytest.mark.parametrize("model", [SLED, world.fit(LOG, "linear", task=toy_sled.TASK)])
def test_simulated_episodes_are_those_of_the_learned_world(model: Any) -> None:
    drawn = [world.simulate(model, HELD.observation[:5], steps=6, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint
    one = drawn[0]
    assert one.observation.shape[1] == 1
    same = one.episode[1:] == one.episode[:-1]
    np.testing.assert_array_equal(one.observation[1:][same], one.next_observation[:-1][same])
    ends = np.append(~same, True)
    assert ((one.terminated | one.truncated) == ends).all()
    assert (np.bincount(one.episode)[one.episode[one.truncated]] == 6).all()
    np.testing.assert_array_equal(one.reward, -1.0)


def test_what_it_cannot_read_is_refused() -> None:
    with pytest.raises(InvalidSetting, match='seen as pictures, model "vrnn" reads numbers'):
        world.fit_memory(LOG, world.TASKS["cartpole-pixels"])
    with pytest.raises(InvalidData, match=r'too few for model "vrnn".*take model "polynomial"'):
        world.fit(LOG.rows(LOG.episode < 3), "vrnn", task=toy_sled.TASK)
    with pytest.raises(InvalidSetting, match='no setting "layers"'):
        world.fit(LOG, "vrnn", task=toy_sled.TASK, layers=2)


def test_the_command_fits_and_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    out = str(tmp_path / "sled")
    sizes = [word for name, n in SIZES.items() for word in (f"--{name}", str(n))]
    words = ["fit", "toy_sled:TASK", "--model", "vrnn", "--transitions", "120", "--out", out]
    assert main(["world", *words, *sizes]) == 0
    text = capsys.readouterr().out
    assert "place, change of place" in text
    assert re.search("1-step nats +<= ", text)
    assert main(["world", "plan", out, "--grid", "5x5", "--episodes", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["errors"]["model"]["held_out_nats"]["null"].keys() >= {"1", "5"}
    model, log, _ = world.load_world(out)
    assert model.task.memory is not None
    np.testing.assert_allclose(
        model.task.memory.beliefs(log)[0], SLED.task.memory.beliefs(LOG)[0], atol=1e-6
    )


class Turning:
    """Stands in for a network: an action moves the angle a tenth of a turn, back or on."""

    uniforms = 1

    def __init__(self, task: world.Task) -> None:
        self.spec = types.SimpleNamespace(columns=_columns(task))

    def begin(self, n: int) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(n, 1, dtype=torch.int64),)

    def draw_step(
        self, state: tuple[torch.Tensor, ...], told: torch.Tensor, uniform: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        level = (state[0] + 72 * (2 * told.argmax(1, keepdim=True) - 1)) % 720
        return level, (level,)


def test_angles_are_predicted_the_shorter_way_round() -> None:
    task = world.Task(
        "wheel", None, ("angle",), (-math.pi,), (math.pi,), (0, 1), angles=(0,), reward=None
    )
    turning: Any = Turning(task)
    watch = world.Memory(task, turning).begin(1)
    watch.seen[:] = -math.pi  # a tenth of a turn from there are both ends of the box
    assert watch.states(np.array([0]))[0] == pytest.approx([-math.pi, 0.0], abs=1e-9)
