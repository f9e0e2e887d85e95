"""Endpoints follow pods: laws that hold for whatever happens, and how little is written for it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kcore_api.kcore.core.v1 import pod_pb2, service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.controllers import endpoints
from tests.controllers.world import World

Endpoint = endpoint_slice_pb2.Endpoint
EndpointSlice = endpoint_slice_pb2.EndpointSlice
Pod = pod_pb2.Pod

LABELS = ({"app": "web"}, {"app": "web", "tier": "front"}, {"app": "other"}, {})


def service(**spec: Any) -> service_pb2.Service:
    made = service_pb2.Service(spec=service_pb2.ServiceSpec(type="ClusterIP", **spec))
    made.metadata.namespace, made.metadata.name, made.metadata.uid = "default", "web", "uid-web"
    if not made.spec.selector:
        made.spec.selector["app"] = "web"
    port = made.spec.ports.add(name="http", port=80, protocol="TCP")
    port.target_port.type, port.target_port.str_val = 1, "http"
    return made


def pod(number: int, labels: dict[str, str], ready: bool = True, port: int = 8080) -> Pod:
    made = Pod(
        status=pod_pb2.PodStatus(phase="Running", pod_ip=f"10.244.{number // 250}.{number % 250}")
    )
    made.metadata.namespace, made.metadata.name = "default", f"web-{number}"
    made.metadata.labels.update(labels)
    made.spec.node_name = "n1"
    made.spec.containers.add(name="main").ports.add(name="http", container_port=port)
    made.status.conditions.add(type="Ready", status=str(ready))
    return made


def held(world: World) -> list[tuple[str, int]]:
    """(address, port) of every endpoint of every slice."""
    return sorted(
        (endpoint.addresses[0], each.ports[0].port)
        for each in world.all(EndpointSlice)
        for endpoint in each.endpoints
    )


PODS = st.tuples(
    st.integers(0, 20), st.sampled_from(LABELS), st.booleans(), st.sampled_from((8080, 9090))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(PODS, max_size=12), min_size=1, max_size=4))
def test_endpoints_are_the_matching_pods_whatever_happened(
    rounds: list[list[tuple[int, dict[str, str], bool, int]]],
) -> None:
    world = World((endpoints.CONTROLLER,))
    world.add(service())
    for some in rounds:
        wanted = {number: (labels, ready, port) for number, labels, ready, port in some}
        for each in world.all(Pod):
            world.confirm(each)
        for number, (labels, ready, port) in sorted(wanted.items()):
            world.add(pod(number, labels, ready, port))
        world.settle()
        expected = sorted(
            (f"10.244.0.{number}", port)
            for number, (labels, _, port) in wanted.items()
            if labels.get("app") == "web"
        )
        assert held(world) == expected
        ready = {
            endpoint.addresses[0]: endpoint.conditions.ready
            for each in world.all(EndpointSlice)
            for endpoint in each.endpoints
        }
        for number, (labels, is_ready, _) in wanted.items():
            if labels.get("app") == "web":
                assert ready[f"10.244.0.{number}"] is is_ready
        # Asked again, it wants nothing.
        assert not world.ask(0, ("default", "web")).transactions


ADDRESSES = st.sets(st.integers(1, 600), max_size=450)


def _of(numbers: set[int]) -> list[Any]:
    return [Endpoint(addresses=[f"10.1.{n // 250}.{n % 250}"]) for n in sorted(numbers)]


@settings(max_examples=60, deadline=None)
@given(ADDRESSES, ADDRESSES)
def test_packing_moves_nothing_that_stays(before: set[int], after: set[int]) -> None:
    first = endpoints.pack([], _of(before))
    slices = [EndpointSlice(endpoints=some) for some in first.fresh]
    for index, each in enumerate(slices):
        each.metadata.name = f"s{index}"
    then = endpoints.pack(slices, _of(after))
    content = {each.metadata.name: list(each.endpoints) for each in slices}
    content |= {each.metadata.name: some for each, some in then.changed}
    for each in then.surplus:
        del content[each.metadata.name]
    content |= {f"new{index}": some for index, some in enumerate(then.fresh)}
    everything = sorted(one.addresses[0] for some in content.values() for one in some)
    assert everything == sorted(one.addresses[0] for one in _of(after))
    assert all(len(some) <= endpoints.MOST_ENDPOINTS for some in content.values())
    for each in slices:
        stayed = {one.addresses[0] for one in each.endpoints} & set(everything)
        now = {one.addresses[0] for one in content.get(each.metadata.name, [])}
        assert stayed <= now


def test_one_pod_of_a_thousand_rewrites_one_slice() -> None:
    world = World((endpoints.CONTROLLER,))
    world.add(service())
    for number in range(1000):
        world.add(pod(number, LABELS[0]))
    world.settle()
    assert sorted(len(each.endpoints) for each in world.all(EndpointSlice)) == [100] * 10
    unready = world.get(Pod, "default", "web-500")
    unready.status.conditions[0].status = "False"
    done = len(world.log)
    world.change(unready)
    world.settle()
    assert len(world.log) == done + 1


def test_what_does_not_matter_to_endpoints_wakes_nobody() -> None:
    world = World((endpoints.CONTROLLER,))
    world.add(service(), pod(1, LABELS[0]))
    world.settle()
    restarted = world.get(Pod, "default", "web-1")
    restarted.status.container_statuses.add(name="main", restart_count=3)
    world.change(restarted)
    assert not any(world._queues)
