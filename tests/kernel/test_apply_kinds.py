"""Apply on the real kinds, through the kernel: what people who know Kubernetes expect."""

import copy
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import deployment_pb2

from kcore.client import codec
from kcore.wire.errors import ApiError, Reason
from tests.kernel import world as worlds
from tests.kernel.world import DEPLOYMENT, World

# The Kubernetes website's example, with a probe.
WEB: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {
                        "name": "web",
                        "image": "nginx:1.14.2",
                        "ports": [{"containerPort": 80}],
                        "env": [{"name": "A", "value": "1"}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                        "resources": {"requests": {"cpu": "0.5"}},
                    }
                ]
            },
        },
    },
}


def manifest(**changes: Any) -> dict[str, Any]:
    """WEB, to be changed."""
    return copy.deepcopy(WEB) | changes


def container(plain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plain["spec"]["template"]["spec"]["containers"][0]
    return found


def shown(message: Any) -> dict[str, Any]:
    return codec.to_plain(message)


async def applied(world: World, plain: dict[str, Any], **more: Any) -> dict[str, Any]:
    message = codec.from_plain(deployment_pb2.Deployment.DESCRIPTOR, plain)
    manager = more.pop("manager", "kcore")
    return shown(await world.apply(DEPLOYMENT, message, manager=manager, **more))


async def test_applied_again_it_is_unchanged() -> None:
    async with worlds.world() as world:
        await applied(world, manifest())
        head = world.head
        world.clock.at += 100
        await applied(world, manifest())
        # Also what the server shows, with all that it has filled in.
        full = shown(world.get(DEPLOYMENT, "web"))
        await applied(world, full)
        again = shown(world.get(DEPLOYMENT, "web"))
        assert world.head <= head + 1
        for one in (full, again):
            for name in ("managedFields", "resourceVersion"):
                del one["metadata"][name]
        assert again == full


async def test_another_word_for_an_amount_is_unchanged() -> None:
    async with worlds.world() as world:
        await applied(world, manifest())
        head = world.head
        other = manifest()
        container(other)["resources"]["requests"]["cpu"] = "500m"
        await applied(world, other)
        assert world.head == head


async def test_what_leaves_the_file_leaves_the_object_with_its_defaults() -> None:
    async with worlds.world() as world:
        before = await applied(world, manifest())
        assert container(before)["readinessProbe"]["periodSeconds"] == 10
        other = manifest()
        for name in ("readinessProbe", "env", "resources"):
            del container(other)[name]
        del other["metadata"]["labels"]
        after = await applied(world, other)
        for name in ("readinessProbe", "env"):
            assert name not in container(after)
        assert not container(after).get("resources")
        assert "labels" not in after["metadata"]
        assert container(after)["ports"] == container(before)["ports"]
        assert after["metadata"]["generation"] == 2


async def test_what_others_scaled_stays_when_the_file_says_nothing() -> None:
    async with worlds.world() as world:
        silent = manifest()
        del silent["spec"]["replicas"]
        assert (await applied(world, silent))["spec"]["replicas"] == 1
        deployment = world.get(DEPLOYMENT, "web")
        deployment.spec.replicas = 7
        await world.update(DEPLOYMENT, deployment, manager="autoscaler")
        assert (await applied(world, silent))["spec"]["replicas"] == 7
        with pytest.raises(ApiError) as caught:
            await applied(world, manifest(), manager="other")
        assert caught.value.reason is Reason.CONFLICT
        assert [one.path for one in caught.value.violations] == ["spec.replicas"]
        assert '"autoscaler"' in caught.value.message
        assert (await applied(world, manifest(), force=True))["spec"]["replicas"] == 3


async def test_controllers_status_is_nobody_elses_business() -> None:
    async with worlds.world() as world:
        await applied(world, manifest())
        deployment = world.get(DEPLOYMENT, "web")
        deployment.status.ready_replicas = 3
        deployment.spec.replicas = 99
        await world.update(DEPLOYMENT, deployment, "status", manager="deployment-controller")
        after = await applied(world, manifest() | {"status": {"readyReplicas": 1}})
        assert (after["spec"]["replicas"], after["status"]["readyReplicas"]) == (3, 3)
        managers = [
            (one["manager"], one["operation"], one.get("subresource", ""))
            for one in after["metadata"]["managedFields"]
        ]
        assert managers == [("kcore", "Apply", ""), ("deployment-controller", "Update", "status")]


async def test_an_element_that_another_manager_added_stays() -> None:
    async with worlds.world() as world:
        await applied(world, manifest())
        deployment = world.get(DEPLOYMENT, "web")
        deployment.spec.template.spec.containers.add(name="sidecar", image="s:1")
        await world.update(DEPLOYMENT, deployment, manager="injector")
        other = manifest()
        container(other)["image"] = "nginx:1.16.1"
        after = await applied(world, other)
        containers = after["spec"]["template"]["spec"]["containers"]
        assert [(one["name"], one["image"]) for one in containers] == [
            ("web", "nginx:1.16.1"),
            ("sidecar", "s:1"),
        ]


async def test_who_merges_a_field_owns_it() -> None:
    async with worlds.world() as world:
        await applied(world, manifest())
        values = deployment_pb2.Deployment(spec={"replicas": 5})
        operation = pb.Operation(ref=worlds.ref(DEPLOYMENT, "web"))
        operation.patch.merge.object = values.SerializeToString()
        operation.patch.merge.mask.paths.append("spec.replicas")
        await world.run(operation, manager="scaler")
        entries = world.get(DEPLOYMENT, "web").metadata.managed_fields
        found = {entry.manager: entry.fields_v1.raw for entry in entries}
        assert found["scaler"] == b'{"f:spec":{"f:replicas":{}}}'
        assert b'"f:replicas"' not in found["kcore"]
