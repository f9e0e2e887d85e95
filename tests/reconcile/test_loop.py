"""The loop keeps its promises under faults, in virtual time."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, event_pb2, secret_pb2

from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.controllers import deployment, garbage, replicaset
from kcore.controllers import run as controllers
from kcore.reconcile import loop, transaction
from kcore.reconcile.controller import Controller, Result, Said, itself
from kcore.reconcile.owner import reference
from kcore.reconcile.view import View
from kcore.sim import loop as virtual
from kcore.wire.errors import ApiError, Reason
from tests.controllers import plant
from tests.controllers.plant import Deployment, Pod, ReplicaSet
from tests.controllers.world import World
from tests.reconcile.server import Server

Scene = Callable[[Server, LoopClock], Awaitable[None]]


def play(scene: Scene, those: Iterable[Controller] | None = None, seed: int = 1) -> Server:
    """Runs a scene while controllers are at work."""
    found: list[Server] = []

    async def main() -> None:
        clock = LoopClock()
        server = Server(World(), clock)
        found.append(server)
        given = list(controllers.every("CA") if those is None else those)
        work = asyncio.create_task(loop.run(server, given, clock, Chance(seed)))
        acting = asyncio.create_task(scene(server, clock))  # type: ignore[arg-type]
        done, _ = await asyncio.wait([work, acting], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, acting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert acting in done

    virtual.run(main())
    return found[0]


def kubelet(server: Server) -> None:
    """All pods that are there become ready, all that are to go are gone."""
    plant.run_pods(server.world)
    server.touch()


async def until(
    server: Server, clock: LoopClock, true: Callable[[], Any], runs: bool = True
) -> float:
    """Waits until it is true, with a kubelet at work; how long it took."""
    start = clock.monotonic()
    while not true():
        await clock.sleep(0.01)
        if runs:
            server.world.now = clock.now()
            kubelet(server)
        assert clock.monotonic() - start < 3000, server.world.log[-20:]
    return clock.monotonic() - start


def rolled_out(server: Server, image: str, size: int = 3) -> bool:
    there = plant.sets(server.world)
    return there.get(image) == (size,) * 3 and all(
        numbers == (0, 0, 0) for each, numbers in there.items() if each != image
    )


async def roll_out_twice(server: Server, clock: LoopClock) -> None:
    server.world.add(plant.deploy())
    server.touch()
    await until(server, clock, lambda: rolled_out(server, "web:1"))
    plant.set_image(server.world, "web:2")
    server.touch()
    await until(server, clock, lambda: rolled_out(server, "web:2"))
    # Events are written when there is time.
    await clock.sleep(1)


def test_a_rolling_update_end_to_end() -> None:
    server = play(roll_out_twice)
    assert len(server.world.all(ReplicaSet)) == 2
    said = [each.message for each in server.world.all(event_pb2.Event)]
    assert sum("Scaled up replica set" in line for line in said) >= 2
    assert sum("Created pod" in line for line in said) == 6


def test_same_seed_same_run() -> None:
    logs = [play(roll_out_twice, seed=7).world.log for _ in range(2)]
    assert logs[0] == logs[1]


def test_every_transaction_names_its_cause_and_its_actor() -> None:
    server = play(roll_out_twice)
    seen: set[str] = set()
    for request in server.requests:
        for each in request.transactions:
            if "-event-" in each.request_id:
                continue
            assert each.because > 0
            assert each.manager and each.request_id not in seen
            seen.add(each.request_id)


def test_lost_answers_are_asked_again_with_the_same_id() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.lose = 5
        server.refuse = 3
        await roll_out_twice(server, clock)
        server.lose = 1

    server = play(scene)
    assert len(server.world.all(Pod)) == 3
    created = [line for line in server.world.log if line.startswith("create Pod")]
    assert len(created) == 6


def test_broken_streams_are_resumed_and_a_past_that_is_gone_is_replaced() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy())
        server.touch()
        await until(server, clock, lambda: rolled_out(server, "web:1"))
        server.break_streams()
        plant.set_image(server.world, "web:2")
        await until(server, clock, lambda: rolled_out(server, "web:2"))
        server.break_streams()
        # While nobody looks, a pod vanishes, and nobody will ever be told.
        victim = plant.alive(server.world)[0]
        server.world.confirm(victim)
        server.world.confirm(victim) if victim in server.world.all(Pod) else None
        server.world.history.clear()
        server.floor = server.world.revision
        await until(server, clock, lambda: len(plant.alive(server.world)) == 3)
        await until(server, clock, lambda: rolled_out(server, "web:2"))

    play(scene)


def test_another_cluster_is_refused() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy())
        server.touch()
        await until(server, clock, lambda: rolled_out(server, "web:1"))
        server.cluster_id = "c2"
        server.break_streams()
        await clock.sleep(60)

    with pytest.raises(BaseExceptionGroup) as raised:
        play(scene)
    assert raised.group_contains(ApiError, match="cluster c2")


def test_a_server_that_has_forgotten_is_refused_but_a_restored_one_is_not() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy())
        server.touch()
        await until(server, clock, lambda: rolled_out(server, "web:1"))
        server.world.revision //= 2
        server.floor = server.world.revision + 1
        if restored:
            server.epoch += 1
        server.break_streams()
        await clock.sleep(1)
        plant.resize(server.world, 5)
        server.touch()
        await until(server, clock, lambda: rolled_out(server, "web:1", 5))

    restored = True
    play(scene)
    restored = False
    with pytest.raises(BaseExceptionGroup) as raised:
        play(scene)
    assert raised.group_contains(ApiError, match="it has forgotten")


def test_kinds_that_come_later_are_seen() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.hidden = ("Secret",)
        owner = config_map_pb2.ConfigMap()
        owner.metadata.name, owner.metadata.namespace = "owner", "default"
        server.world.add(owner)
        await clock.sleep(1)
        server.hidden = ()
        held = secret_pb2.Secret()
        held.metadata.name, held.metadata.namespace = "held", "default"
        (live,) = server.world.all(config_map_pb2.ConfigMap)
        held.metadata.owner_references.append(reference(live))
        server.world.add(held)
        server.world.delete(live)
        server.touch()
        await clock.sleep(31)
        # The log moves: it is time to ask for the kinds.
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(1)
        assert not server.world.all(secret_pb2.Secret)

    play(scene, [garbage.CONTROLLER])


def test_nobody_acts_twice_on_one_sight() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        # The watch is far behind, and shows one revision after another: without a fence pods
        # would be created for the first while the second is still to come.
        server.lag_seconds = 0.5
        server.one_by_one = True
        server.world.add(plant.deploy(replicas=5))
        server.touch()
        await until(server, clock, lambda: rolled_out(server, "web:1", 5))

    server = play(scene)
    asked = [
        each.operations[0].ref.name
        for request in server.requests
        for each in request.transactions
        if each.operations[0].ref.kind == Pod.DESCRIPTOR.full_name
    ]
    # Asked for, not only done: a second try would meet the derived name and be refused.
    assert len(asked) == len(set(asked)) == 5


def test_after_a_failed_creation_one_is_tried_then_two_then_four() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.full = Pod.DESCRIPTOR.full_name
        server.world.add(plant.deploy(replicas=20))
        server.touch()
        await clock.sleep(5)
        (one,) = server.world.all(ReplicaSet)
        assert [each.reason for each in one.status.conditions] == ["FailedCreate"]
        live = server.world.get(Deployment, "default", "web")
        assert "ReplicaFailure" in [each.type for each in live.status.conditions]
        server.full = ""
        await until(server, clock, lambda: rolled_out(server, "web:1", 20))
        (one,) = server.world.all(ReplicaSet)
        assert not one.status.conditions

    server = play(scene)
    asked = [
        sum(each.operations[0].HasField("create") for each in request.transactions)
        for request in server.requests
        if any(
            each.operations[0].ref.kind == Pod.DESCRIPTOR.full_name
            and each.operations[0].HasField("create")
            for each in request.transactions
        )
    ]
    # All at once, and for as long as it fails one at a time; then 1, 2, 4, 8 and the rest.
    assert asked[0] == 20
    assert asked[-5:] == [1, 2, 4, 8, 5] and set(asked[1:-5]) <= {1}
    failed = [each for each in server.world.all(event_pb2.Event) if each.reason == "FailedCreate"]
    assert [each.message for each in failed] == ["Error creating: exceeded quota"]
    assert failed[0].count > 5


def test_retries_wait_longer_and_longer_up_to_a_thousand_seconds() -> None:
    moments: list[float] = []
    clocks: list[LoopClock] = []

    def stubborn(view: View, key: tuple[str, ...], now: float) -> Result:
        moments.append(now)
        raise ValueError("no")

    async def scene(server: Server, clock: LoopClock) -> None:
        clocks.append(clock)
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(6000)

    odd = Controller("odd", {Deployment: itself}, (), stubborn)
    play(scene, [odd])
    waits = [round(b - a, 3) for a, b in itertools.pairwise(moments)]
    assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
    assert max(waits) == 1000.0


def test_a_change_is_seen_at_once_however_often_it_failed() -> None:
    moments: list[float] = []

    def stubborn(view: View, key: tuple[str, ...], now: float) -> Result:
        moments.append(now)
        raise ValueError("no")

    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(3000)
        before = len(moments)
        plant.resize(server.world, 7)
        server.touch()
        await clock.sleep(0.1)
        assert len(moments) == before + 1

    play(scene, [Controller("odd", {Deployment: itself}, (), stubborn)])


def test_failing_with_a_view_that_is_late_does_not_spin() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.lag_seconds = 5.0
        server.full = Pod.DESCRIPTOR.full_name
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(100)
        server.full = ""
        await until(server, clock, lambda: rolled_out(server, "web:1"))

    play(scene)


def test_one_odd_object_holds_up_no_other() -> None:
    def odd(view: View, key: tuple[str, ...], now: float) -> Result:
        if key[1] == "odd":
            raise KeyError("odd")
        return deployment.reconcile(view, key, now)

    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy("odd"), plant.deploy("web"))
        server.touch()
        took = await until(server, clock, lambda: rolled_out(server, "web:1"))
        assert took < 1

    wrapped = Controller(
        "deployment-controller",
        deployment.CONTROLLER.reads,
        deployment.CONTROLLER.writes,
        odd,
        deployment.CONTROLLER.indexes,
    )
    play(scene, [wrapped, replicaset.CONTROLLER])


def test_what_was_not_declared_is_not_written() -> None:
    def sly(view: View, key: tuple[str, ...], now: float) -> Result:
        made = Pod()
        made.metadata.name, made.metadata.namespace = "sly", "default"
        return Result((transaction.create(made),))

    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(10)

    with pytest.raises(BaseExceptionGroup) as raised:
        play(scene, [Controller("sly", {Deployment: itself}, (), sly)])
    assert raised.group_contains(AssertionError, match="does not declare")


def test_looking_again_at_a_time() -> None:
    moments: list[float] = []

    def patient(view: View, key: tuple[str, ...], now: float) -> Result:
        moments.append(now)
        return Result(again_at=moments[0] + 100 * len(moments))

    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(350)

    play(scene, [Controller("patient", {Deployment: itself}, (), patient)])
    assert [round(each - moments[0]) for each in moments] == [0, 100, 200, 300]


def test_repetitions_are_one_event_also_over_a_restart() -> None:
    def talkative(view: View, key: tuple[str, ...], now: float) -> Result:
        live = view.get(Deployment, *key)
        return Result(
            again_at=now + 10,
            events=() if live is None else (Said(live, "Odd", "again", "Warning"),),
        )

    async def scene(server: Server, clock: LoopClock) -> None:
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(35)
        (one,) = server.world.all(event_pb2.Event)
        assert (one.count, one.type, one.reason, one.message) == (4, "Warning", "Odd", "again")
        assert one.metadata.name.startswith("web.")
        assert one.involved_object.kind == "Deployment"
        assert one.last_timestamp.seconds - one.first_timestamp.seconds == 30
        # Another process says the same.
        again = asyncio.create_task(
            loop.run(
                server, [Controller("odd", {Deployment: itself}, (), talkative)], clock, Chance(2)
            )
        )
        await clock.sleep(9)
        again.cancel()
        (one,) = server.world.all(event_pb2.Event)
        assert one.count == 6

    play(scene, [Controller("odd", {Deployment: itself}, (), talkative)])


def test_a_conflict_is_decided_anew() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        server.lag_seconds = 1.0
        server.world.add(plant.deploy(replicas=3))
        server.touch()
        await clock.sleep(1.5)
        # The set is there and its controller is about to see it: the size changes meanwhile.
        plant.resize(server.world, 5)
        server.touch()
        await until(server, clock, lambda: rolled_out(server, "web:1", 5))

    server = play(scene)
    assert len(plant.alive(server.world)) == 5


def test_big_wishes_are_sliced() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        live = plant.deploy(replicas=400)
        live.spec.template.metadata.annotations["note"] = "x" * 20_000
        server.world.add(live)
        server.touch()
        await until(server, clock, lambda: rolled_out(server, "web:1", 400), runs=True)

    server = play(scene)
    assert max(request.ByteSize() for request in server.requests) < 4 << 20
    assert isinstance(server.requests[0], pb.CommitRequest)


def test_last_shows_the_errors_of_the_last_commit() -> None:
    seen: list[tuple[ApiError, ...]] = []

    def hopeful(view: View, key: tuple[str, ...], now: float) -> Result:
        seen.append(view.last(key))
        made = Pod()
        made.metadata.name, made.metadata.namespace = "pod", "default"
        return Result((transaction.create(made),))

    async def scene(server: Server, clock: LoopClock) -> None:
        server.full = Pod.DESCRIPTOR.full_name
        server.world.add(plant.deploy())
        server.touch()
        await clock.sleep(0.004)

    play(scene, [Controller("h", {Deployment: itself}, (Pod.DESCRIPTOR.full_name,), hopeful)])
    assert seen[0] == ()
    assert [error.reason for error in seen[-1]] in ([], [Reason.FORBIDDEN])
