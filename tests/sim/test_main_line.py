"""The main line in virtual time: a Deployment comes, rolls, scales and goes."""

from kcore_api.kcore.core.v1 import pod_pb2

from kcore.sim import world
from kcore.sim.cluster import Cluster
from tests.sim import storm


def _settled(cluster: Cluster) -> bool:
    return not list(cluster.story.unsettled())


def _pods(cluster: Cluster) -> list[pod_pb2.Pod]:
    return [pod for pod in cluster.world.pods() if world.is_active(pod)]


def test_a_deployment_of_three_is_running_and_ready() -> None:
    async def plot(cluster: Cluster) -> None:
        await cluster.story.deployments.deploy("web", 3)
        await cluster.until(lambda: _settled(cluster))
        pods = _pods(cluster)
        assert [pod.status.phase for pod in pods] == ["Running"] * 3
        assert sorted(pod.spec.node_name for pod in pods) == ["n1", "n2", "n3"]
        assert len({pod.status.pod_ip for pod in pods}) == 3

    storm.calm(plot)


def test_a_rolling_update_replaces_all_and_scaling_follows() -> None:
    async def plot(cluster: Cluster) -> None:
        key = await cluster.story.deployments.deploy("web", 4)
        await cluster.until(lambda: _settled(cluster))
        before = {pod.metadata.uid for pod in _pods(cluster)}
        await cluster.story.deployments.roll(key, "web:2")
        await cluster.until(lambda: _settled(cluster), 120)
        after = _pods(cluster)
        assert not before & {pod.metadata.uid for pod in after}
        assert {pod.spec.containers[0].image for pod in after} == {"web:2"}
        await cluster.story.deployments.scale(key, 7)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.deployments.scale(key, 0)
        await cluster.until(lambda: _settled(cluster))
        assert _pods(cluster) == []

    storm.calm(plot)


def test_of_a_deleted_deployment_nothing_is_left() -> None:
    async def plot(cluster: Cluster) -> None:
        key = await cluster.story.deployments.deploy("web", 3)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.delete(cluster.story.deployments, key)
        kinds = (world.DEPLOYMENT, world.REPLICA_SET, world.POD)
        await cluster.until(lambda: not any(key.kind in kinds for key in cluster.world.objects))
        await cluster.clock.sleep(10)
        assert not any(runtime.sandboxes for runtime in cluster.runtimes.values())

    storm.calm(plot)


def test_an_image_that_is_not_there_stops_the_rollout_and_not_the_service() -> None:
    async def plot(cluster: Cluster) -> None:
        key = await cluster.story.deployments.deploy("web", 4)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.deployments.roll(key, "missing:1")
        await cluster.clock.sleep(120)
        good = [pod for pod in _pods(cluster) if world.is_ready(pod)]
        assert len(good) >= 3
        await cluster.story.deployments.roll(key, "web:3")

    storm.calm(plot)


def test_pods_that_fit_nowhere_wait_for_room() -> None:
    async def plot(cluster: Cluster) -> None:
        first = await cluster.story.deployments.deploy("first", 3)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.deployments.deploy("second", 2)
        await cluster.clock.sleep(30)
        waiting = [pod for pod in _pods(cluster) if not pod.spec.node_name]
        assert len(waiting) == 1
        (condition,) = [c for c in waiting[0].status.conditions if c.type == "PodScheduled"]
        assert (condition.status, condition.reason) == ("False", "Unschedulable")
        assert condition.message == "0/1 nodes are available: 1 Insufficient cpu."
        await cluster.story.deployments.scale(first, 1)
        await cluster.until(lambda: _settled(cluster))

    storm.calm(plot, nodes=1)
