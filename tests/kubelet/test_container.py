"""What the runtime is told of sandboxes and containers."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from kcore_api.kcore.core.v1 import container_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import container, hosts
from kcore.kubelet.resolver import Resolver
from tests.kubelet.scene import UID, pod

CAPACITY = 8 << 30
IMAGE = pb.Image(id="sha256:1", uid=pb.Int64Value(value=1000))


def config(of: pod_pb2.Pod, image: pb.Image = IMAGE, **variables: str) -> pb.ContainerConfig:
    """The config of its first container."""
    return container.config(
        of,
        of.spec.containers[0],
        attempt=3,
        delay=20,
        image=image,
        variables=variables,
        mounts=[],
        capacity_bytes=CAPACITY,
    )


def test_a_plain_container() -> None:
    of = pod()
    one = of.spec.containers[0]
    one.command.extend(["sh", "-c", "echo $(X) $(hostname)"])
    one.args.append("$$(X)")
    of.metadata.annotations["org.systemd.property.ExecStart"] = "evil"
    of.metadata.labels["io.katacontainers.x"] = "evil"
    made = config(of, X="1\n2")
    made.linux.security_context.masked_paths[:] = made.linux.security_context.masked_paths[:1]
    made.linux.security_context.readonly_paths[:] = made.linux.security_context.readonly_paths[:1]
    # S17: nothing of the user's is among labels and annotations but names.
    expected = pb.ContainerConfig()
    text_format.Parse(
        f"""
        metadata {{ name: "a" attempt: 3 }}
        image {{ image: "sha256:1" user_specified_image: "a:1" }}
        command: "sh" command: "-c" command: "echo 1\\n2 $(hostname)"
        args: "$(X)"
        envs {{ key: "X" value: "1\\n2" }}
        labels {{ key: "io.kubernetes.container.name" value: "a" }}
        labels {{ key: "io.kubernetes.pod.name" value: "web" }}
        labels {{ key: "io.kubernetes.pod.namespace" value: "default" }}
        labels {{ key: "io.kubernetes.pod.uid" value: "{UID}" }}
        annotations {{ key: "io.kubernetes.container.hash" value: "9ab07c4b2d6c0b5a" }}
        annotations {{ key: "kcore.dev/restart-delay" value: "20" }}
        log_path: "a/3.log"
        linux {{
          resources {{ cpu_shares: 2 oom_score_adj: 1000 }}
          security_context {{
            capabilities {{ }}
            namespace_options {{ pid: CONTAINER }}
            run_as_user {{ value: 1000 }}
            masked_paths: "/proc/acpi"
            readonly_paths: "/proc/bus"
            seccomp {{ }}
          }}
        }}
        """,
        expected,
    )
    hashed = made.annotations["io.kubernetes.container.hash"]
    expected.annotations["io.kubernetes.container.hash"] = hashed
    assert len(hashed) == 16
    assert made == expected


@pytest.mark.parametrize(
    ("cpu", "limit", "shares", "quota"),
    [
        ("", "", 2, 0),
        ("1m", "", 2, 0),
        ("100m", "", 102, 0),
        ("500m", "1", 512, 100_000),
        ("2", "1500m", 2048, 150_000),
        ("", "1", 1024, 100_000),
        ("1m", "5m", 2, 1_000),
        ("1m", "25m", 2, 2_500),
        ("0.1", "0.5", 102, 50_000),
        ("1000", "", 262_144, 0),
        ("0", "0", 2, 0),
    ],
)
def test_cpu(cpu: str, limit: str, shares: int, quota: int) -> None:
    of = pod()
    resources = of.spec.containers[0].resources
    if cpu:
        resources.requests["cpu"].string = cpu
    if limit:
        resources.limits["cpu"].string = limit
    made = config(of).linux.resources
    assert (made.cpu_shares, made.cpu_quota) == (shares, quota)
    assert made.cpu_period == (100_000 if quota else 0)


@pytest.mark.parametrize(
    ("requests", "limits", "quality", "score"),
    [
        ({}, {}, "BestEffort", 1000),
        ({"memory": "1Gi"}, {}, "Burstable", 875),
        ({"memory": "1"}, {}, "Burstable", 999),
        ({"memory": "8Gi"}, {}, "Burstable", 2),
        ({"cpu": "1"}, {}, "Burstable", 999),
        ({}, {"memory": "1Gi", "cpu": "1"}, "Guaranteed", -997),
        ({"memory": "1024Mi", "cpu": "1000m"}, {"memory": "1Gi", "cpu": "1"}, "Guaranteed", -997),
        ({"memory": "1Gi", "cpu": "1"}, {"memory": "2Gi", "cpu": "1"}, "Burstable", 875),
        ({}, {"memory": "1Gi"}, "Burstable", 1000 - 0 - 1),
    ],
)
def test_who_goes_first_when_memory_runs_out(
    requests: dict[str, str], limits: dict[str, str], quality: str, score: int
) -> None:
    of = pod()
    resources = of.spec.containers[0].resources
    for table, amounts in ((resources.requests, requests), (resources.limits, limits)):
        for name, amount in amounts.items():
            table[name].string = amount
    assert container.qos(of) == quality
    made = config(of).linux.resources
    assert made.oom_score_adj == score
    assert made.memory_limit_in_bytes == (
        {"1Gi": 1 << 30, "2Gi": 2 << 30}[limits["memory"]] if "memory" in limits else 0
    )


def security(**change: Any) -> pb.LinuxContainerSecurityContext:
    """Of a container whose pod and own contexts are changed so: `pod_run_as_user=5`."""
    of = pod()
    image = change.pop("image", IMAGE)
    for key, value in change.items():
        own = of.spec.containers[0].security_context
        target: Any = own
        if key.startswith("pod_"):
            target, key = of.spec.security_context, key.removeprefix("pod_")
        if isinstance(value, list):
            getattr(target, key).extend(value)
        else:
            setattr(target, key, value)
    return config(of, image).linux.security_context


def test_users() -> None:
    assert security().run_as_user.value == 1000
    assert security(pod_run_as_user=5).run_as_user.value == 5
    assert security(pod_run_as_user=5, run_as_user=0).run_as_user.value == 0
    assert security(image=pb.Image(id="x", username="www")).run_as_username == "www"
    nobody = security(image=pb.Image(id="x"))
    assert not nobody.HasField("run_as_user") and not nobody.run_as_username
    # A group goes with a user, or the runtime refuses it.
    grouped = security(image=pb.Image(id="x"), pod_run_as_group=7)
    assert (grouped.run_as_user.value, grouped.run_as_group.value) == (0, 7)
    assert [*security(pod_supplemental_groups=[3], pod_fs_group=4).supplemental_groups] == [3, 4]


def test_what_containers_may() -> None:
    plain = security()
    assert plain.seccomp.profile_type == pb.SecurityProfile.RuntimeDefault
    assert "/proc/kcore" in plain.masked_paths and "/proc/sys" in plain.readonly_paths
    assert not plain.no_new_privs
    assert security(allow_privilege_escalation=False).no_new_privs
    assert security(read_only_root_filesystem=True).readonly_rootfs
    privileged = security(privileged=True)
    assert privileged.privileged
    assert not privileged.masked_paths and not privileged.HasField("seccomp")


def profile(kind: str, local: str = "") -> container_pb2.SeccompProfile:
    """A profile."""
    return container_pb2.SeccompProfile(type=kind, localhost_profile=local)


def test_the_containers_profile_goes_before_the_pods() -> None:
    of = pod()
    of.spec.security_context.seccomp_profile.CopyFrom(profile("Unconfined"))
    assert config(of).linux.security_context.seccomp.profile_type == pb.SecurityProfile.Unconfined
    own = of.spec.containers[0].security_context
    own.seccomp_profile.CopyFrom(profile("Localhost", "a.json"))
    made = config(of).linux.security_context.seccomp
    assert (made.profile_type, made.localhost_ref) == (pb.SecurityProfile.Localhost, "a.json")


def test_a_sandbox() -> None:
    of = pod(init="*s i")
    for one in (of.spec.init_containers[0], of.spec.containers[0]):
        one.ports.add(container_port=80, host_port=8080, protocol="UDP", host_ip="192.0.2.1")
        one.ports.add(container_port=81)
    made = container.sandbox(of, 2, Path("/logs"), Resolver(pb.DNSConfig(servers=["192.0.2.53"])))
    assert (made.metadata.name, made.metadata.uid, made.metadata.attempt) == ("web", UID, 2)
    assert made.hostname == "web"
    assert made.log_directory == f"/logs/default_web_{UID}"
    assert made.linux.cgroup_parent == f"/kcore/besteffort/pod{UID}"
    assert [(one.protocol, one.container_port, one.host_port) for one in made.port_mappings] == [
        (pb.UDP, 80, 8080),
        (pb.UDP, 80, 8080),
    ]
    assert [*made.dns_config.servers] == ["192.0.2.53"]


@pytest.mark.parametrize(
    ("spec", "network", "pid", "ipc"),
    [
        ({}, pb.POD, pb.CONTAINER, pb.POD),
        ({"host_network": True}, pb.NODE, pb.CONTAINER, pb.POD),
        ({"share_process_namespace": True}, pb.POD, pb.POD, pb.POD),
        ({"host_pid": True, "host_ipc": True}, pb.POD, pb.NODE, pb.NODE),
    ],
)
def test_namespaces(spec: dict[str, bool], network: int, pid: int, ipc: int) -> None:
    of = pod(**spec)
    made = container.sandbox(of, 0, Path("/logs"), Resolver())
    for options in (
        made.linux.security_context.namespace_options,
        config(of).linux.security_context.namespace_options,
    ):
        assert (options.network, options.pid, options.ipc) == (network, pid, ipc)
    # On the node's network it has the node's name and ports.
    assert bool(made.hostname) != bool(spec.get("host_network"))


def test_host_names() -> None:
    assert hosts.hostname(pod()) == "web"
    assert hosts.hostname(pod(hostname="other")) == "other"
    of = pod()
    of.metadata.name = "a" * 62 + "-" + "b" * 20
    assert hosts.hostname(of) == "a" * 62


def test_the_hosts_file() -> None:
    of = pod()
    of.spec.host_aliases.add(ip="192.0.2.9", hostnames=["db", "db.example"])
    assert hosts.text(of, ["10.0.0.7"]) == (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
        "10.0.0.7\tweb\n"
        "\n"
        "# Entries added by HostAliases.\n"
        "192.0.2.9\tdb\tdb.example\n"
    )


def test_a_pod_of_a_subdomain_has_its_full_name() -> None:
    lines = hosts.text(pod(subdomain="db"), ["10.0.0.7"]).splitlines()
    assert lines[-1] == "10.0.0.7\tweb.db.default.svc.cluster.local\tweb"


@pytest.mark.parametrize("name", ["a b", "a\n192.0.2.1 evil", "a#b", "", "a\t"])
def test_a_host_alias_is_one_line(name: str) -> None:
    of = pod()
    of.spec.host_aliases.add(ip="192.0.2.9", hostnames=[name])
    with pytest.raises(ValueError, match="hostAliases"):
        hosts.text(of, [])


NODE_DNS = pb.DNSConfig(servers=["192.0.2.53"], searches=["example"], options=["ndots:1", "rotate"])


def test_resolvers() -> None:
    assert Resolver(NODE_DNS).config(pod(dns_policy="Default")) == NODE_DNS
    of = pod(dns_policy="ClusterFirst")
    of.spec.dns_config.nameservers.extend(["192.0.2.53", "192.0.2.54"])
    of.spec.dns_config.searches.append("own.example")
    of.spec.dns_config.options.add(name="ndots", value="5")
    of.spec.dns_config.options.add(name="edns0")
    made = Resolver(NODE_DNS).config(of)
    assert [*made.servers] == ["192.0.2.53", "192.0.2.54"]
    assert [*made.searches] == ["example", "own.example"]
    assert [*made.options] == ["rotate", "ndots:5", "edns0"]
    of.spec.dns_policy = "None"
    assert [*Resolver(NODE_DNS).config(of).searches] == ["own.example"]


def test_the_clusters_names_come_first() -> None:
    cluster = Resolver(NODE_DNS, ("10.96.0.10",))
    made = cluster.config(pod())
    assert [*made.servers] == ["10.96.0.10"]
    assert [*made.searches] == [
        "default.svc.cluster.local", "svc.cluster.local", "cluster.local", "example"
    ]  # fmt: skip
    assert [*made.options] == ["ndots:5"]
    assert cluster.config(pod(dns_policy="Default")) == NODE_DNS
    assert cluster.config(pod(host_network=True)) == NODE_DNS
    hosted = pod(host_network=True, dns_policy="ClusterFirstWithHostNet")
    assert cluster.config(hosted) == made
    assert cluster.config(pod(dns_policy="None")) == pb.DNSConfig()


@pytest.mark.parametrize("word", ["a b", "a\nnameserver 192.0.2.1", ""])
def test_a_resolvers_words_are_words(word: str) -> None:
    of = pod()
    of.spec.dns_config.searches.append(word)
    with pytest.raises(ValueError, match="dnsConfig"):
        Resolver(NODE_DNS).config(of)
