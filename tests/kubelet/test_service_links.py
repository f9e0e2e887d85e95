"""What containers are told of services."""

from pathlib import Path

import pytest
from kcore_api.kcore.core.v1 import pool_pb2, service_pb2

from kcore.kubelet import env, service_links
from kcore.reconcile import transaction
from tests.kubelet import house
from tests.kubelet.house import House, is_ready
from tests.kubelet.scene import pod


def service(
    name: str, address: str, *ports: str, namespace: str = "default"
) -> service_pb2.Service:
    """A service with ports such as "80", "53/UDP/dns"."""
    made = service_pb2.Service()
    made.metadata.name, made.metadata.namespace = name, namespace
    made.spec.cluster_ip, made.spec.type = address, "ClusterIP"
    for text in ports:
        number, protocol, port_name = [*text.split("/"), "TCP", ""][:3] if "/" in text else (
            text, "TCP", "")  # fmt: skip
        made.spec.ports.add(port=int(number), protocol=protocol, name=port_name)
    return made


def test_the_variables_of_a_service() -> None:
    assert service_links.variables([service("redis-primary", "10.0.0.11", "6379")]) == {
        "REDIS_PRIMARY_SERVICE_HOST": "10.0.0.11",
        "REDIS_PRIMARY_SERVICE_PORT": "6379",
        "REDIS_PRIMARY_PORT": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_PORT_6379_TCP_PORT": "6379",
        "REDIS_PRIMARY_PORT_6379_TCP_ADDR": "10.0.0.11",
    }


def test_several_ports() -> None:
    found = service_links.variables([service("d", "fd00::1", "53/UDP/dns-udp", "53/TCP/dns-tcp")])
    assert found["D_SERVICE_PORT"] == found["D_SERVICE_PORT_DNS_UDP"] == "53"
    assert found["D_PORT"] == found["D_PORT_53_UDP"] == "udp://[fd00::1]:53"
    assert found["D_PORT_53_TCP_ADDR"] == "fd00::1"


@pytest.mark.parametrize("address", ["None", ""])
def test_a_service_without_an_address_is_not_told_of(address: str) -> None:
    assert service_links.variables([service("a", address, "80")]) == {}


def test_its_own_variables_win_and_may_use_them() -> None:
    one = pod().spec.containers[0]
    one.env.add(name="URL", value="http://$(WEB_SERVICE_HOST)")
    one.env.add(name="WEB_SERVICE_PORT", value="mine")
    links = service_links.variables([service("web", "10.0.0.1", "80")])
    found = env.variables(pod(), one, env.Named(), env.Facts(), links)
    assert found["URL"] == "http://10.0.0.1"
    assert found["WEB_SERVICE_PORT"] == "mine"


@pytest.mark.parametrize(
    ("wants", "hosts"),
    [
        (None, {"KUBERNETES_SERVICE_HOST", "WEB_SERVICE_HOST"}),
        (True, {"KUBERNETES_SERVICE_HOST", "WEB_SERVICE_HOST"}),
        (False, {"KUBERNETES_SERVICE_HOST"}),
    ],
)
def test_a_pod_is_told_of_its_namespace_and_of_the_api(
    tmp_path: Path, wants: bool | None, hosts: set[str]
) -> None:
    async def story(here: House) -> None:
        await services(here)
        made = pod()
        if wants is not None:
            made.spec.enable_service_links = wants
        await here.create(made)
        await here.until(is_ready)
        (one,) = here.runtime.containers.values()
        told = {pair.key: pair.value for pair in one.config.envs}
        assert {name for name in told if name.endswith("_SERVICE_HOST")} == hosts
        assert told["KUBERNETES_SERVICE_HOST"] == b"10.96.0.1"

    house.run(tmp_path, story)


def test_a_container_starts_again_while_the_api_is_away(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await services(here)
        await here.create(pod())
        await here.until(is_ready)
        # One that has never started it knows what there is, too.
        await here.restart()
        await here.clock.sleep(5)
        here.world.api.down = True
        here.runtime.crash(here.runtime.running()[0], 1)
        await here.clock.sleep(5)
        assert here.running() == ["a"]
        newest = list(here.runtime.containers.values())[-1]
        told = {pair.key: pair.value for pair in newest.config.envs}
        assert told["KUBERNETES_SERVICE_HOST"] == b"10.96.0.1" and "WEB_SERVICE_HOST" in told

    house.run(tmp_path, story)


async def services(here: House) -> None:
    """The API's own, one beside the pod, and one elsewhere."""
    pool = pool_pb2.Pool(spec=pool_pb2.PoolSpec(cidr="10.96.0.0/16"))
    pool.metadata.name = "service-ips"
    await here.world.do(
        transaction.create(pool),
        transaction.create(service("kubernetes", "10.96.0.1", "443")),
        transaction.create(service("web", "", "80")),
        transaction.create(service("other", "", "80", namespace="kube-system")),
    )
