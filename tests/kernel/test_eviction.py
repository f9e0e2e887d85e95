"""Deletion through a door of its own: evictions take from budgets, and can't be gone around."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.kcore.policy.v1 import pod_disruption_budget_pb2

from kcore.chance import Chance
from kcore.kernel.record import Key, Record
from kcore.kernel.store.memory import MemoryStore
from kcore.wire.errors import ApiError, Reason
from tests.kernel.world import POD, World, delete, pod, ref, refused, world

BUDGET = "kcore.policy.v1.PodDisruptionBudget"


def evict(name: str, **wish: object) -> pb.Operation:
    operation = delete(POD, name, **wish)
    operation.subresource = "eviction"
    return operation


async def running(here: World, name: str, ready: bool = True) -> None:
    made = pod(name, node_name="n1")
    made.metadata.labels["app"] = "web"
    await here.create(POD, made)
    status = pod_pb2.Pod(metadata=made.metadata)
    status.status.phase = "Running"
    status.status.conditions.add(type="Ready", status="True" if ready else "False")
    await here.update(POD, status, "status")


async def budget(here: World, allowed: int, name: str = "web", **status: int) -> None:
    made = pod_disruption_budget_pb2.PodDisruptionBudget()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.min_available.int_val = 1
    made.spec.selector.match_labels["app"] = "web"
    await here.create(BUDGET, made)
    made.status.observed_generation = 1
    made.status.disruptions_allowed = allowed
    for field, value in status.items():
        setattr(made.status, field, value)
    await here.update(BUDGET, made, "status")


async def test_an_eviction_takes_from_the_budget() -> None:
    async with world() as here:
        await running(here, "a")
        await budget(here, 1)
        await here.run(evict("a"))
        gone = here.get(POD, "a")
        assert gone.metadata.HasField("deletion_timestamp")
        assert gone.metadata.deletion_grace_period_seconds == 30
        (said,) = [c for c in gone.status.conditions if c.type == "DisruptionTarget"]
        assert (said.status, said.reason) == ("True", "EvictionByEvictionAPI")
        left = here.get(BUDGET, "web").status
        assert left.disruptions_allowed == 0 and list(left.disrupted_pods) == ["a"]


async def test_an_empty_budget_refuses_and_says_when_to_ask_again() -> None:
    async with world() as here:
        await running(here, "a")
        await budget(here, 0, desired_healthy=1, current_healthy=1)
        with refused(Reason.EXHAUSTED, "needs 1 healthy pods and has 1 currently") as found:
            await here.run(evict("a"))
        assert found.error is not None and found.error.retry_seconds == 10
        assert not here.get(POD, "a").metadata.HasField("deletion_timestamp")


async def test_of_many_evictions_at_once_only_as_many_succeed_as_are_allowed() -> None:
    async with world() as here:
        for number in range(8):
            await running(here, f"p{number}")
        await budget(here, 3)
        done = await asyncio.gather(
            *(here.run(evict(f"p{number}")) for number in range(8)), return_exceptions=True
        )
        assert sum(not isinstance(one, ApiError) for one in done) == 3
        assert len(here.get(BUDGET, "web").status.disrupted_pods) == 3


async def test_two_evictions_in_one_transaction_take_twice() -> None:
    async with world() as here:
        await running(here, "a")
        await running(here, "b")
        await budget(here, 1)
        with refused(Reason.EXHAUSTED, "would violate the pod's disruption budget"):
            await here.run(evict("a"), evict("b"))
        assert here.get(BUDGET, "web").status.disruptions_allowed == 1


async def test_what_it_takes_is_logged_after_what_was_asked_for() -> None:
    store = MemoryStore(Chance(1))
    written: list[Record] = []
    append = store.append

    async def seen(records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        written[:] = records
        await append(records, keep)

    store.append = seen  # type: ignore[method-assign]
    async with world(store) as here:
        await running(here, "a")
        await budget(here, 1)
        await here.run(evict("a"))
        assert [(one.ordinal, one.key.kind, one.subresource) for one in written] == [
            (0, POD, "eviction"),
            (1, BUDGET, "status"),
        ]


async def test_a_budget_that_an_eviction_took_from_is_not_written_after_it() -> None:
    # The log has what was asked for first: read back, it would end in another state.
    async with world() as here:
        await running(here, "a")
        await budget(here, 1)
        with refused(Reason.INVALID, "is changed by what an earlier operation does besides"):
            await here.run(evict("a"), delete(BUDGET, "web"))
        assert not here.get(POD, "a").metadata.HasField("deletion_timestamp")


async def test_all_budgets_must_allow_it() -> None:
    async with world() as here:
        await running(here, "a")
        await budget(here, 1)
        await budget(here, 0, "second")
        with refused(Reason.EXHAUSTED, "budget second"):
            await here.run(evict("a"))
        assert here.get(BUDGET, "web").status.disruptions_allowed == 1


async def test_a_budget_that_has_not_been_counted_yet_refuses() -> None:
    async with world() as here:
        await running(here, "a")
        await budget(here, 1)
        one = here.get(BUDGET, "web")
        one.spec.min_available.int_val = 2
        await here.update(BUDGET, one)
        with refused(Reason.EXHAUSTED, "is still being processed"):
            await here.run(evict("a"))


async def test_what_serves_nobody_takes_nothing() -> None:
    async with world() as here:
        await running(here, "ill", ready=False)
        await budget(here, 0, desired_healthy=1, current_healthy=1)
        await here.run(evict("ill"))
        await here.create(POD, pod("waits"))
        await here.run(evict("waits"))
        assert not here.there(POD, "waits")
        assert here.get(BUDGET, "web").status.disruptions_allowed == 0


async def test_twice_is_once() -> None:
    async with world() as here:
        await running(here, "a")
        await budget(here, 2)
        await here.run(evict("a"))
        await here.run(evict("a"))
        assert here.get(BUDGET, "web").status.disruptions_allowed == 1


async def test_a_dry_run_takes_nothing() -> None:
    async with world() as here:
        await running(here, "a")
        await budget(here, 1)
        await here.run(evict("a"), dry_run=True)
        assert here.get(BUDGET, "web").status.disruptions_allowed == 1
        assert not here.get(POD, "a").metadata.HasField("deletion_timestamp")


@pytest.mark.parametrize("door", ["status", "binding"])
async def test_other_doors_delete_nothing(door: str) -> None:
    async with world() as here:
        await running(here, "a")
        operation = pb.Operation(ref=ref(POD, "a"), subresource=door, delete=pb.Delete())
        with refused(Reason.INVALID, f"pods/{door} cannot be deleted"):
            await here.run(operation)
        assert not here.get(POD, "a").metadata.HasField("deletion_timestamp")
