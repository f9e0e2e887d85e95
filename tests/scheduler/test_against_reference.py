"""On thousands of random clusters the arrays decide as the plain rules do."""

import random
from collections import Counter

import pytest

from kcore.chance import Chance
from kcore.scheduler import demand, model, node, plan
from kcore.scheduler.model import Key
from tests.scheduler import reference, worlds

_WORLDS_PER_BLOCK = 100


def _check_world(seed: int) -> Counter[str]:
    draw = random.Random(seed)
    bins = [
        reference.Bin(worlds.any_node(draw, f"n{index}"))
        for index in range(draw.choice([0, 1, 2, 3, 5, 8, 12]))
    ]
    templates = [worlds.any_template(draw) for _ in range(draw.choice([1, 2, 4]))]
    world = model.Model()
    for bin_ in bins:
        world.set_node(node.of(bin_.node))
    kept = []  # demands are one object only while somebody holds them
    for index in range(draw.choice([0, 3, 10])):
        if bins:
            bin_ = draw.choice(bins)
            sitting = draw.choice(templates)
            bin_.pods.append(sitting)
            kept.append(demand.of(sitting))
            world.place(Key("default", f"old-{index}"), bin_.node.metadata.name, kept[-1])
    _change(draw, world, bins)
    pods = [draw.choice(templates) for _ in range(draw.choice([1, 4, 12]))]
    if draw.random() < 0.5:
        pods.sort(key=lambda pod: templates.index(pod))
    before = world.used.copy()
    decisions = plan.plan(world, [(pod, demand.of(pod)) for pod in pods], Chance(seed))
    assert (world.used[:, : before.shape[1]] == before).all(), "a plan changes nothing"
    seen: Counter[str] = Counter()
    told: dict[bytes, str] = {}
    for pod, decision in zip(pods, decisions, strict=True):
        assert decision.pod is pod
        best = reference.best(pod, bins)
        if decision.refusal is None:
            assert decision.node in best
            next(b for b in bins if b.node.metadata.name == decision.node).pods.append(pod)
            seen["bound"] += 1
            continue
        assert not best
        whole = pod.SerializeToString(deterministic=True)
        if whole not in told:
            reasons = Counter(r for b in bins for r in reference.reasons(pod, b))
            told[whole] = decision.refusal.message
            head, _, tail = decision.refusal.message.partition(": ")
            if bins:
                assert head == f"0/{len(bins)} nodes are available"
                expected = sorted(f"{count} {reason}" for reason, count in reasons.items())
                assert sorted(tail.removesuffix(".").split(", ")) == expected
            seen.update(reason.split("{")[0] for reason in reasons)
        assert decision.refusal.message == told[whole]
    return seen


def _change(draw: random.Random, world: model.Model, bins: list[reference.Bin]) -> None:
    """Nodes change, go and come; the model follows instead of being made anew."""
    for index, bin_ in enumerate(bins):
        chance = draw.random()
        if chance < 0.15:
            fresh = worlds.any_node(draw, bin_.node.metadata.name)
            world.set_node(node.of(fresh))
            bin_.node = fresh
        elif chance < 0.25:
            world.drop_node(bin_.node.metadata.name)
            fresh = worlds.any_node(draw, bin_.node.metadata.name)
            world.set_node(node.of(fresh))
            bins[index] = reference.Bin(fresh, bin_.pods)


@pytest.mark.parametrize("block", range(20))
def test_decides_as_the_plain_rules_do(block: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(block * _WORLDS_PER_BLOCK, (block + 1) * _WORLDS_PER_BLOCK):
        try:
            seen += _check_world(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    # A test that met none of the cases would prove nothing.
    assert seen["bound"] > 40
    assert len(seen) >= 6, seen
