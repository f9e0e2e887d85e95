"""What one node answers for: which endpoints count, for whom."""

from hypothesis import given
from hypothesis import strategies as st

from kcore.proxy import frontend
from kcore.proxy.frontend import NODE, Backend, Behind, Frontend
from tests.proxy.objects import endpoints, service

CLUSTER_IP = Frontend("10.96.0.7", "tcp", 80)


def backends(*addresses: str) -> frozenset[Backend]:
    return frozenset(Backend(one, 8080) for one in addresses)


def behind(found: frontend.Served, front: Frontend = CLUSTER_IP) -> frozenset[Backend]:
    return found.frontends[front].backends


def test_ready_endpoints_of_all_slices() -> None:
    slices = [endpoints("10.244.1.2 n1", "10.244.1.3 n1 unready"), endpoints("10.244.2.2 n2")]
    found = frontend.served(service(), slices, "n1")
    assert behind(found) == backends("10.244.1.2", "10.244.2.2")
    assert found.hairpin == {"10.244.1.2"}


def test_where_none_is_ready_those_that_still_serve() -> None:
    slices = [endpoints("10.244.1.2 n1 ending", "10.244.1.3 n1 ended", "10.244.1.4 n1 unready")]
    assert behind(frontend.served(service(), slices, "n1")) == backends("10.244.1.2")
    slices.append(endpoints("10.244.1.5 n1"))
    assert behind(frontend.served(service(), slices, "n1")) == backends("10.244.1.5")


def test_an_absent_condition_is_ready() -> None:
    one = endpoints("10.244.1.2 n1")
    one.endpoints[0].ClearField("conditions")
    assert behind(frontend.served(service(), [one], "n1")) == backends("10.244.1.2")


def test_one_that_moves_between_slices_counts_once() -> None:
    slices = [endpoints("10.244.1.2 n1 ending"), endpoints("10.244.1.2 n1")]
    assert behind(frontend.served(service(), slices, "n1")) == backends("10.244.1.2")


def test_local_policies_keep_to_the_node() -> None:
    slices = [endpoints("10.244.1.2 n1", "10.244.2.2 n2", "10.244.1.3 n1 ending")]
    made = service(
        type="NodePort",
        node_port=30080,
        internal_traffic_policy="Local",
        external_traffic_policy="Local",
    )
    front = Frontend(NODE, "tcp", 30080)
    found = frontend.served(made, slices, "n1")
    assert found.frontends == {
        CLUSTER_IP: Behind(backends("10.244.1.2")),
        front: Behind(backends("10.244.1.2")),
    }
    # Of its own, one that ends; of another node, none.
    slices = [endpoints("10.244.2.2 n2", "10.244.1.3 n1 ending")]
    assert behind(frontend.served(made, slices, "n1"), front) == backends("10.244.1.3")
    assert behind(frontend.served(made, slices, "n3"), front) == frozenset()


def test_node_ports_hide_the_client_and_so_do_external_addresses() -> None:
    made = service(type="LoadBalancer", node_port=30080, external_ips=["203.0.113.9"])
    made.status.load_balancer.ingress.add(ip="203.0.113.10")
    made.status.load_balancer.ingress.add(ip="203.0.113.11", ip_mode="Proxy")
    found = frontend.served(made, [endpoints("10.244.1.2 n1")], "n1").frontends
    assert {front.address: one.masquerade for front, one in found.items()} == {
        "10.96.0.7": False,
        NODE: True,
        "203.0.113.9": True,
        "203.0.113.10": True,
    }


def test_affinity() -> None:
    made = service(session_affinity="ClientIP")
    assert frontend.served(made, [], "n1").frontends[CLUSTER_IP].affinity_seconds == 10800
    made.spec.session_affinity_config.client_ip.timeout_seconds = 60
    assert frontend.served(made, [], "n1").frontends[CLUSTER_IP].affinity_seconds == 60


def test_who_has_no_address_is_not_served() -> None:
    for made in (
        None,
        service(address="None"),
        service(address=""),
        service(type="ExternalName", external_name="example.org"),
    ):
        assert frontend.served(made, [endpoints("10.244.1.2 n1")], "n1") == frontend.NOTHING


HOSTILE = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["10.1.1.1 }", "10.1.1.1; flush ruleset", "::1", "10.1.1.1\n", "010.1.1.1", "{{7*7}}"]
    ),
)


@given(HOSTILE, HOSTILE, HOSTILE, st.integers(-5, 70000), st.integers(-5, 70000))
def test_only_numbers_get_further(
    name: str, address: str, endpoint: str, port: int, node_port: int
) -> None:
    made = service(name, address, port, node_port=0, external_ips=[address])
    made.spec.ports[0].name = name
    made.spec.ports[0].node_port = node_port
    one = endpoints(port=port, name=name)
    one.endpoints.add(addresses=[endpoint], node_name="n1").conditions.ready = True
    found = frontend.served(made, [one], "n1")
    for front, behind_it in found.frontends.items():
        assert all(part.isdecimal() for part in front.address.split(".")) or not front.address
        assert 0 < front.port < 65536 or front.address
        assert front.protocol in ("tcp", "udp", "sctp")
        for each in behind_it.backends:
            assert all(part.isdecimal() for part in each.address.split("."))
            assert 0 < each.port < 65536
