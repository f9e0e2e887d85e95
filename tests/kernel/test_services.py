"""Services and their slices through the kernel: what people who know Kubernetes expect."""

from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.client import codec
from kcore.controllers import cluster
from kcore.wire.errors import ApiError, Reason
from tests.kernel import world as worlds
from tests.kernel.world import World

SERVICE = "kcore.core.v1.Service"
SLICE = "kcore.discovery.v1.EndpointSlice"
CLUSTER = cluster.Cluster("10.244.0.0/16", apiserver="192.0.2.7")


@pytest.fixture
async def world() -> Any:
    async with worlds.world() as made:
        await made.kernel.commit(pb.CommitRequest(transactions=cluster.first(CLUSTER)), "boot")
        yield made


def service(name: str = "web", **spec: Any) -> Any:
    spec.setdefault("ports", [{"port": 80}])
    plain = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }
    return codec.from_plain(service_pb2.Service.DESCRIPTOR, plain)


def manual(*addresses: str, name: str = "web-1", type_: str = "IPv4", **labels: str) -> Any:
    plain = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": type_,
        "ports": [{"port": 80}],
        "endpoints": [{"addresses": [one]} for one in addresses],
    }
    return codec.from_plain(endpoint_slice_pb2.EndpointSlice.DESCRIPTOR, plain)


async def refused(what: Any) -> list[str]:
    with pytest.raises(ApiError) as error:
        await what
    assert error.value.reason is Reason.INVALID, error.value
    return [one.path for one in error.value.violations]


async def test_a_service_has_what_kubernetes_gives_it(world: World) -> None:
    made = codec.to_plain(await world.create(SERVICE, service(selector={"app": "web"})))
    assert made["spec"] == {
        "clusterIP": "10.96.0.2",
        "clusterIPs": ["10.96.0.2"],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"app": "web"},
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }


async def test_the_api_is_a_service(world: World) -> None:
    assert world.get(SERVICE, "kubernetes").spec.cluster_ip == "10.96.0.1"
    assert world.get(SLICE, "kubernetes").endpoints[0].addresses == ["192.0.2.7"]
    moved = cluster.Cluster("10.244.0.0/16", apiserver="192.0.2.8")
    await world.kernel.commit(pb.CommitRequest(transactions=cluster.first(moved)), "boot")
    assert world.get(SLICE, "kubernetes").endpoints[0].addresses == ["192.0.2.8"]


async def test_a_given_address_is_free_and_in_range(world: World) -> None:
    await world.create(SERVICE, service("dns", clusterIP="10.96.0.10"))
    assert await refused(world.create(SERVICE, service(clusterIP="10.96.0.10"))) == [
        "spec.clusterIP"
    ]
    assert await refused(world.create(SERVICE, service(clusterIP="10.1.2.3"))) == ["spec.clusterIP"]
    assert "spec.clusterIP" in await refused(world.create(SERVICE, service(clusterIP="x")))
    await world.delete(SERVICE, "dns")
    await world.create(SERVICE, service(clusterIP="10.96.0.10"))


async def test_node_ports_come_and_go_with_the_type(world: World) -> None:
    made = await world.create(SERVICE, service(type="NodePort"))
    port = made.spec.ports[0].node_port
    assert 30000 <= port <= 32767 and made.spec.external_traffic_policy == "Cluster"
    taken = service("other", type="NodePort", ports=[{"port": 1, "nodePort": port}])
    assert await refused(world.create(SERVICE, taken)) == ["spec.ports[0].nodePort"]
    made.spec.type = "ClusterIP"
    changed = await world.update(SERVICE, made)
    assert not changed.spec.ports[0].HasField("node_port")
    assert not changed.spec.HasField("external_traffic_policy")
    assert changed.spec.cluster_ip == made.spec.cluster_ip
    await world.create(SERVICE, taken)


async def test_a_type_without_address_gives_it_back(world: World) -> None:
    made = await world.create(SERVICE, service())
    held = made.spec.cluster_ip
    made.spec.type, made.spec.external_name = "ExternalName", "example.org"
    changed = await world.update(SERVICE, made)
    assert not changed.spec.cluster_ip and not changed.spec.cluster_ips
    assert not changed.spec.ip_families
    await world.create(SERVICE, service("heir", clusterIP=held))
    changed.spec.type = "ClusterIP"
    back = await world.update(SERVICE, changed)
    assert back.spec.cluster_ip not in ("", held)
    assert not back.spec.external_name


async def test_the_address_stays(world: World) -> None:
    made = await world.create(SERVICE, service())
    made.spec.cluster_ip = "10.96.0.77"
    del made.spec.cluster_ips[:]
    assert await refused(world.update(SERVICE, made)) == ["spec.clusterIP"]
    silent = service()
    again = await world.update(SERVICE, silent)
    assert again.spec.cluster_ip == "10.96.0.2"


async def test_headless(world: World) -> None:
    made = await world.create(SERVICE, service(clusterIP="None", ports=[]))
    assert made.spec.cluster_ip == "None" and list(made.spec.cluster_ips) == ["None"]


async def test_affinity_has_a_time(world: World) -> None:
    made = await world.create(SERVICE, service(sessionAffinity="ClientIP"))
    assert made.spec.session_affinity_config.client_ip.timeout_seconds == 10800
    made.spec.session_affinity = "None"
    changed = await world.update(SERVICE, made)
    assert not changed.spec.HasField("session_affinity_config")


async def test_several_faults_at_once(world: World) -> None:
    wrong = service(
        type="ExternalName", clusterIP="None", ports=[{"port": 1}, {"port": 0}], ipFamilies=["IPv6"]
    )
    found = await refused(world.create(SERVICE, wrong))
    assert {
        "spec.clusterIP",
        "spec.externalName",
        "spec.ports",
        "spec.ports[1].port",
        "spec.ipFamilies",
    } <= set(found)


async def test_external_ips_need_a_door_of_their_own(world: World) -> None:
    wanted = service(externalIPs=["8.8.8.8"])
    assert await refused(world.create(SERVICE, wanted)) == ["spec.externalIPs"]
    made = await world.create(SERVICE, service())
    made.spec.external_ips.append("203.0.113.9")
    assert await refused(world.update(SERVICE, made)) == ["spec.externalIPs"]
    through = await world.update(SERVICE, made, through="externalips")
    assert list(through.spec.external_ips) == ["203.0.113.9"]
    # Who writes the rest leaves them as they are.
    through.spec.selector["app"] = "web"
    assert list((await world.update(SERVICE, through)).spec.external_ips) == ["203.0.113.9"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.7", "x"],
)
async def test_slices_by_hand_do_not_lead_astray(world: World, address: str) -> None:
    found = await refused(world.create(SLICE, manual("10.0.0.1", address)))
    assert found == ["endpoints[1].addresses[0]"]


@pytest.mark.parametrize("address", ["::1", "::ffff:127.0.0.1", "fe80::1", "::", "10.0.0.1"])
async def test_nor_in_any_other_spelling(world: World, address: str) -> None:
    found = await refused(world.create(SLICE, manual(address, type_="IPv6")))
    assert found == ["endpoints[0].addresses[0]"]


async def test_pods_may_run_on_the_apiservers_node(world: World) -> None:
    await world.create(
        SLICE,
        manual(
            "192.0.2.7",
            **{"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
        ),
    )
