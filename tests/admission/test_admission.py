"""What creating an object implies, seen with the kernel's own classes."""

import pathlib
from typing import Any

import pytest
from google.protobuf import json_format

from kcore import admission
from kcore.kernel import schema

KINDS = pathlib.Path(__file__).parents[2] / "generated" / "kinds.binpb"
SCHEMA = schema.compile_schema(KINDS.read_bytes())


def make(kind: str, plain: dict[str, Any]) -> Any:
    """A message of the kernel's class; quantities are written as {"string": …}."""
    return json_format.ParseDict(plain, SCHEMA.kind(f"kcore.core.v1.{kind}").message())


def admit(obj: Any, old: Any = None, others: dict[str, Any] | None = None) -> list[str]:
    """Admits it; what was refused."""
    there = others or {}
    kind = obj.DESCRIPTOR.full_name
    found = admission.BY_KIND[kind](
        obj, old, lambda kind, space, name: there.get(f"{kind.rpartition('.')[2]}/{space}/{name}")
    )
    return [str(each) for each in found]


def pod(**spec: Any) -> Any:
    spec.setdefault("containers", [{"name": "main", "image": "x"}])
    return make("Pod", {"metadata": {"name": "p", "namespace": "a"}, "spec": spec})


def test_a_pod_gets_what_every_pod_has() -> None:
    made = pod()
    assert admit(made) == []
    assert made.spec.service_account_name == made.spec.service_account == "default"
    assert made.spec.priority == 0 and made.spec.HasField("priority")
    assert made.spec.preemption_policy == "PreemptLowerPriority"
    assert made.spec.enable_service_links
    assert (made.status.phase, made.status.qos_class) == ("Pending", "BestEffort")
    assert [(t.key, t.operator, t.effect, t.toleration_seconds) for t in made.spec.tolerations] == [
        ("node.kubernetes.io/not-ready", "Exists", "NoExecute", 300),
        ("node.kubernetes.io/unreachable", "Exists", "NoExecute", 300),
    ]


def test_twice_is_once() -> None:
    made = pod(containers=[{"name": "m", "resources": {"limits": {"cpu": {"string": "1"}}}}])
    admit(made)
    again = type(made)()
    again.CopyFrom(made)
    admit(again)
    assert again == made


def test_who_says_how_long_is_left_alone() -> None:
    made = pod(tolerations=[{"operator": "Exists"}])
    admit(made)
    assert len(made.spec.tolerations) == 1
    made = pod(
        tolerations=[
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 5,
            }
        ],
        enableServiceLinks=False,
    )
    admit(made)
    assert [each.toleration_seconds for each in made.spec.tolerations] == [5, 300]
    assert not made.spec.enable_service_links


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ([{}], "BestEffort"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
        ([{"requests": {"memory": "1"}}], "Burstable"),
        ([{"limits": {"example.com/gpu": "1"}}], "BestEffort"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
    ],
)
def test_requests_are_limits_and_quality_follows(
    resources: list[dict[str, dict[str, str]]], quality: str
) -> None:
    made = pod(
        containers=[
            {
                "name": f"c{index}",
                "resources": {
                    which: {k: {"string": v} for k, v in amounts.items()}
                    for which, amounts in each.items()
                },
            }
            for index, each in enumerate(resources)
        ]
    )
    admit(made)
    for container in made.spec.containers:
        for name in container.resources.limits:
            assert name in container.resources.requests
    assert made.status.qos_class == quality


def test_accounts() -> None:
    made = pod(serviceAccountName="robot")
    assert admit(made) == [
        "spec.serviceAccountName: error looking up service account a/robot: "
        'serviceaccount "robot" not found'
    ]
    robot = make("ServiceAccount", {"imagePullSecrets": [{"name": "pull"}]})
    made = pod(serviceAccount="robot")
    assert admit(made, others={"ServiceAccount/a/robot": robot}) == []
    assert made.spec.service_account_name == "robot"
    assert [each.name for each in made.spec.image_pull_secrets] == ["pull"]


def test_a_mirror_of_a_file_has_no_account() -> None:
    made = pod()
    made.metadata.annotations["kubernetes.io/config.mirror"] = "hash"
    assert admit(made) == []
    assert not made.spec.service_account_name


def test_priorities() -> None:
    made = pod(priorityClassName="system-node-critical")
    assert admit(made) == []
    assert made.spec.priority == 2_000_001_000
    assert "no PriorityClass with name high was found" in admit(pod(priorityClassName="high"))[0]
    assert "must not be provided" in admit(pod(priority=7))[0]


def test_on_the_nodes_network_a_container_port_is_the_nodes() -> None:
    made = pod(hostNetwork=True, containers=[{"name": "m", "ports": [{"containerPort": 80}]}])
    admit(made)
    assert made.spec.containers[0].ports[0].host_port == 80


def test_updates_keep_what_was_filled_in_and_tolerations_grow_only() -> None:
    old = pod(nodeName="n1")
    admit(old)
    new = pod()
    assert admit(new, old) == []
    assert new.spec.service_account_name == "default"
    assert new.spec.node_name == "n1"
    assert new.status.phase == ""
    old.spec.tolerations.add(key="special", operator="Exists")
    new = pod()
    assert admit(new, old) == [
        "spec.tolerations: existing toleration can not be modified or removed"
    ]
    new.spec.tolerations.add(key="special", operator="Exists")
    new.spec.tolerations.add(key="more", operator="Exists")
    assert admit(new, old) == []


def test_text_of_a_secret_becomes_content_and_wins() -> None:
    made = make(
        "Secret", {"data": {"a": "b2xk", "b": "b2xk"}, "stringData": {"a": "new", "ü": "ü"}}
    )
    admit(made)
    assert dict(made.data) == {"a": b"new", "b": b"old", "ü": "ü".encode()}
    assert not made.string_data


def test_a_namespace_carries_its_name() -> None:
    made = make("Namespace", {"metadata": {"name": "shop"}})
    admit(made)
    assert made.metadata.labels["kubernetes.io/metadata.name"] == "shop"
    assert made.status.phase == "Active"
    changed = make("Namespace", {"metadata": {"name": "shop"}})
    admit(changed, made)
    assert changed.metadata.labels["kubernetes.io/metadata.name"] == "shop"
