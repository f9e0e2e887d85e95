"""The scheduler at work, on a real kernel in virtual time."""

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.reconcile import transaction
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason
from tests.scheduler import worlds
from tests.scheduler.place import Place, scheduled

_A_DAY = 86_400.0


def _condition(pod: pod_pb2.Pod) -> tuple[str, str, str]:
    (found,) = [c for c in pod.status.conditions if c.type == "PodScheduled"]
    return found.status, found.reason, found.message


async def _patch(place: Place, live, path: str, change) -> None:  # type: ignore[no-untyped-def]
    wanted = type(live)()
    change(wanted)
    await place.commit(transaction.patch(live, wanted, [path]))


def test_a_pod_is_bound_and_told_so() -> None:
    async def work(place: Place) -> None:
        await place.create(worlds.node("n1"), worlds.pod("web", "1", "1Gi"))
        await place.settle()
        pod = await place.pod("web")
        assert pod.spec.node_name == "n1"
        assert _condition(pod) == ("True", "", "")
        (event,) = await place.events()
        assert (event.type, event.reason) == ("Normal", "Scheduled")
        assert event.message == "Successfully assigned default/web to n1"
        assert event.source.component == "default-scheduler"
        assert event.involved_object.uid == pod.metadata.uid

    scheduled(work)


def test_what_fits_nowhere_is_told_once_and_waits_without_polling() -> None:
    async def work(place: Place) -> None:
        await place.create(worlds.node("n1", cpu="1"), worlds.pod("big", "2"))
        await place.settle()
        said = "0/1 nodes are available: 1 Insufficient cpu."
        assert _condition(await place.pod("big")) == ("False", "Unschedulable", said)
        (event,) = await place.events()
        assert (event.reason, event.message, event.count) == ("FailedScheduling", said, 1)
        head = place.kernel.head
        await place.settle(0.9 * 3600)
        assert place.kernel.head == head
        # A node that has room ends it.
        await place.create(worlds.node("n2", cpu="4"))
        await place.settle()
        assert await place.where("big") == ["n2"]
        assert _condition(await place.pod("big"))[0] == "True"

    scheduled(work)


def test_no_nodes_then_one() -> None:
    async def work(place: Place) -> None:
        await place.create(worlds.pod("web"))
        await place.settle()
        said = "no nodes available to schedule pods"
        assert _condition(await place.pod("web")) == ("False", "Unschedulable", said)
        await place.create(worlds.node("n1"))
        await place.settle()
        assert await place.where("web") == ["n1"]

    scheduled(work)


def test_a_pod_that_leaves_makes_room_for_the_most_important_that_waits() -> None:
    async def work(place: Place) -> None:
        await place.create(worlds.node("n1", cpu="1"), worlds.pod("first", "1"))
        await place.settle()
        urgent = worlds.pod("urgent", "1")
        urgent.spec.priority_class_name = "system-cluster-critical"
        await place.create(worlds.pod("second", "1"), urgent)
        await place.settle()
        assert await place.where("first", "second", "urgent") == ["n1", "", ""]
        await place.commit(transaction.delete(await place.pod("first"), grace_seconds=0))
        await place.settle()
        assert await place.where("second", "urgent") == ["", "n1"]

    scheduled(work)


def test_a_pod_that_has_ended_takes_nothing() -> None:
    async def work(place: Place) -> None:
        await place.create(worlds.node("n1", cpu="1"), worlds.pod("job", "1"))
        await place.settle()
        await place.create(worlds.pod("next", "1"))
        await place.settle()
        assert await place.where("next") == [""]
        job = await place.pod("job")
        ended = pod_pb2.PodStatus()
        ended.CopyFrom(job.status)
        ended.phase = "Succeeded"
        await place.commit(transaction.status(job, ended))
        await place.settle()
        assert await place.where("next") == ["n1"]

    scheduled(work)


def test_a_pod_on_its_way_out_still_takes_its_room() -> None:
    async def work(place: Place) -> None:
        await place.create(worlds.node("n1", cpu="1"), worlds.pod("old", "1"))
        await place.settle()
        await place.commit(transaction.delete(await place.pod("old")))
        await place.create(worlds.pod("new", "1"))
        await place.settle()
        assert await place.where("new") == [""]

    scheduled(work)


def test_uncordoning_and_untainting_wake_pods() -> None:
    async def work(place: Place) -> None:
        cordoned, tainted = worlds.node("n1"), worlds.node("n2")
        cordoned.spec.unschedulable = True
        tainted.spec.taints.add(key="k", value="v", effect="NoSchedule")
        await place.create(cordoned, tainted, worlds.pod("a"))
        await place.settle()
        assert _condition(await place.pod("a"))[2] == (
            "0/2 nodes are available: 1 node(s) had untolerated taint {k: v}, "
            "1 node(s) were unschedulable."
        )
        await _patch(place, await place.node("n2"), "spec.taints", lambda wanted: None)
        await place.settle()
        assert await place.where("a") == ["n2"]
        await _patch(
            place,
            await place.node("n1"),
            "spec.unschedulable",
            lambda wanted: setattr(wanted.spec, "unschedulable", False),
        )
        await place.create(worlds.pod("b"))
        await place.settle()
        assert await place.where("b") == ["n1"]

    scheduled(work)


def test_later_labels_and_taints_move_nobody() -> None:
    async def work(place: Place) -> None:
        node = worlds.node("n1")
        node.metadata.labels["disk"] = "ssd"
        pod = worlds.pod("web")
        pod.spec.node_selector["disk"] = "ssd"
        await place.create(node, pod)
        await place.settle()
        await _patch(place, await place.node("n1"), "metadata.labels", lambda wanted: None)
        await place.settle()
        assert await place.where("web") == ["n1"]

    scheduled(work)


def test_gates_hold_a_pod_until_they_are_taken_away() -> None:
    async def work(place: Place) -> None:
        pod = worlds.pod("web")
        pod.spec.scheduling_gates.add(name="example.com/quota")
        await place.create(worlds.node("n1"), pod)
        await place.settle()
        status, reason, _ = _condition(await place.pod("web"))
        assert (status, reason) == ("False", "SchedulingGated")
        live = await place.pod("web")
        await _patch(place, live, "spec.schedulingGates", lambda wanted: None)
        await place.settle()
        assert await place.where("web") == ["n1"]

    scheduled(work)


def test_pods_of_other_schedulers_and_bound_pods_are_left_alone() -> None:
    async def work(place: Place) -> None:
        other, bound = worlds.pod("other"), worlds.pod("bound")
        other.spec.scheduler_name = "mine"
        bound.spec.node_name = "nowhere"
        await place.create(worlds.node("n1"), other, bound)
        await place.settle()
        assert await place.where("other", "bound") == ["", "nowhere"]
        assert not list((await place.pod("other")).status.conditions)

    scheduled(work)


class _Wrapped:
    """An Api of which some commits go wrong."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.kinds, self.get, self.list, self.watch = api.kinds, api.get, api.list, api.watch
        self.commits: list[int] = []


class _LosesAnswers(_Wrapped):
    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        self.commits.append(len(request.transactions))
        answer = await self._api.commit(request)
        if len(self.commits) % 3:
            raise ApiError(Reason.UNAVAILABLE, "the answer was lost")
        return answer


def test_an_answer_that_was_lost_binds_nobody_twice() -> None:
    async def work(place: Place) -> None:
        await place.create(worlds.node("n1"), worlds.node("n2"))
        await place.create(*(worlds.pod(f"p{number}", "100m") for number in range(6)))
        await place.settle(10)
        assert sorted(await place.where(*(f"p{number}" for number in range(6)))) == [
            *["n1"] * 3,
            *["n2"] * 3,
        ]

    scheduled(work, _LosesAnswers)


def test_a_pod_that_changes_meanwhile_is_bound_as_it_is_then() -> None:
    places: list[Place] = []

    class Meddles(_Wrapped):
        async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
            self.commits.append(len(request.transactions))
            if len(self.commits) == 1:
                live = await places[0].pod("web")
                await _patch(
                    places[0],
                    live,
                    "metadata.labels",
                    lambda wanted: wanted.metadata.labels.update(new="label"),
                )
            return await self._api.commit(request)

    async def work(place: Place) -> None:
        places.append(place)
        await place.create(worlds.node("n1"), worlds.pod("web"))
        await place.settle()
        pod = await place.pod("web")
        assert (pod.spec.node_name, pod.metadata.labels["new"]) == ("n1", "label")

    scheduled(work, Meddles)


def test_many_pods_are_bound_in_few_commits() -> None:
    wrapped: list[_Wrapped] = []

    class Counts(_Wrapped):
        def __init__(self, api: Api) -> None:
            super().__init__(api)
            wrapped.append(self)

        async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
            kinds = {op.subresource for t in request.transactions for op in t.operations}
            if "binding" in kinds:
                self.commits.append(len(request.transactions))
            return await self._api.commit(request)

    async def work(place: Place) -> None:
        for number in range(4):
            await place.create(worlds.node(f"n{number}"))
        pods = [worlds.pod(f"p{number}", "10m") for number in range(400)]
        request = pb.CommitRequest(transactions=[transaction.create(pod) for pod in pods])
        await place.api.commit(request)
        await place.settle(2)
        where = await place.where(*(f"p{number}" for number in range(400)))
        assert {where.count(f"n{number}") for number in range(4)} <= {*range(90, 111)}
        assert sum(wrapped[0].commits) == 400
        assert len(wrapped[0].commits) <= 8

    scheduled(work, Counts)
