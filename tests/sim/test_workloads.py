"""In calm weather: what each kind of workload comes to, and what it says of it."""

import pytest

from kcore.sim import world
from kcore.sim.cluster import Cluster
from kcore.sim.story import job as jobs
from kcore.sim.world import CronJob, Job, Pod
from tests.sim import storm


def _settled(cluster: Cluster) -> bool:
    return not list(cluster.story.unsettled())


def test_a_stateful_set_grows_and_rolls_one_by_one() -> None:
    async def plot(cluster: Cluster) -> None:
        sets = cluster.story.stateful_sets
        where = await sets.make(3, parallel=False)
        await cluster.until(lambda: _settled(cluster))
        pods = cluster.world.pods()
        assert [pod.metadata.name for pod in pods] == [f"{where[1]}-{n}" for n in range(3)]
        ready = [cluster.world.ready_since[pod.metadata.uid] for pod in pods]
        made = [cluster.world.created[pod.metadata.uid] for pod in pods]
        assert ready[0] < made[1] and ready[1] < made[2]
        await sets.roll(where, "db:2")
        await cluster.until(lambda: _settled(cluster), 120)
        made = [cluster.world.created[pod.metadata.uid] for pod in cluster.world.pods()]
        assert made == sorted(made, reverse=True)
        await sets.scale(where, 1)
        await cluster.until(lambda: _settled(cluster))

    storm.calm(plot)


@pytest.mark.parametrize("surge", [False, True])
def test_a_daemon_set_is_on_every_node(surge: bool) -> None:
    async def plot(cluster: Cluster) -> None:
        where = await cluster.story.daemon_sets.make(surge)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.daemon_sets.roll(where, "agent:2")
        await cluster.until(lambda: _settled(cluster), 120)

    storm.calm(plot)


@pytest.mark.parametrize("indexed", [False, True])
def test_a_job_counts_what_its_pods_did(indexed: bool) -> None:
    async def plot(cluster: Cluster) -> None:
        where = await cluster.story.jobs.make(5, 2, indexed=indexed)
        await cluster.until(lambda: _settled(cluster))
        (live,) = cluster.world.all(Job)
        assert (live.metadata.name, world.finished(live)) == (where[1], "Complete")
        assert live.status.succeeded == 5 and not live.status.failed

    storm.calm(plot)


@pytest.mark.parametrize(
    ("code", "failed"), [(1, 3), (jobs.FATAL_CODE, 1), (jobs.HARMLESS_CODE, 0)]
)
def test_exit_codes_decide_how_a_job_fails(code: int, failed: int) -> None:
    async def plot(cluster: Cluster) -> None:
        harmless = code == jobs.HARMLESS_CODE
        await cluster.story.jobs.make(1, 1, exit_code=code, deadline_seconds=60 * harmless)
        await cluster.until(lambda: _settled(cluster), 180)
        (live,) = cluster.world.all(Job)
        # An end that the deadline brings about counts, where a pod runs just then.
        extra = int(harmless and live.status.failed > 0)
        assert (world.finished(live), live.status.failed) == ("Failed", failed + extra)

    storm.calm(plot)


def test_a_job_that_rests_has_no_pods() -> None:
    async def plot(cluster: Cluster) -> None:
        where = await cluster.story.jobs.make(4, 2, runs_seconds=20)
        await cluster.until(lambda: len(cluster.world.pods()) == 2)
        await cluster.story.jobs.suspend(where, True)
        await cluster.until(lambda: not any(world.is_active(each) for each in cluster.world.pods()))
        await cluster.clock.sleep(30)
        assert not any(world.is_active(each) for each in cluster.world.pods())
        await cluster.story.jobs.suspend(where, False)

    storm.calm(plot)


def test_a_cron_job_makes_a_job_a_minute_and_keeps_some() -> None:
    async def plot(cluster: Cluster) -> None:
        where = await cluster.story.cron_jobs.make("Allow", 1.0)
        made: set[str] = set()
        for _ in range(300):
            await cluster.clock.sleep(1)
            made |= {each.metadata.uid for each in cluster.world.all(Job)}
        assert len(made) == 5
        await cluster.story.cron_jobs.suspend(where, True)
        await cluster.until(lambda: _settled(cluster))
        (live,) = cluster.world.all(CronJob)
        assert len(cluster.world.owned(live.metadata.uid, Job)) == 2

    storm.calm(plot)


def test_a_drain_goes_as_far_as_the_budget_allows() -> None:
    async def plot(cluster: Cluster) -> None:
        namespace, app = await cluster.story.deployments.deploy(replicas=4)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.budgets.make(namespace, app, 3, False)
        await cluster.until(lambda: _settled(cluster))
        names = [pod.metadata.name for pod in cluster.world.all(Pod)]
        await cluster.story.budgets.evict(namespace, *names)
        going = [pod for pod in cluster.world.all(Pod) if not world.is_active(pod)]
        assert len(going) == 1

    storm.calm(plot)


def test_a_service_leads_to_what_is_ready() -> None:
    async def plot(cluster: Cluster) -> None:
        where = await cluster.story.deployments.deploy(replicas=3)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.services.make(*where)
        await cluster.until(lambda: _settled(cluster))
        await cluster.story.deployments.roll(where, "missing:1")
        await cluster.clock.sleep(60)
        await cluster.story.deployments.roll(where, "web:2")

    storm.calm(plot)


def test_a_node_that_is_given_up_comes_back_as_another() -> None:
    async def plot(cluster: Cluster) -> None:
        await cluster.story.stateful_sets.make(3)
        await cluster.story.daemon_sets.make(False)
        await cluster.until(lambda: _settled(cluster))
        before = {node.metadata.uid for node in cluster.world.all(world.Node)}
        cluster.components["kubelet-n2"].halt()
        cluster.runtimes["n2"].reboot()
        await cluster.clock.sleep(10)
        await cluster.story.lose("n2")
        await cluster.until(lambda: _settled(cluster), 120)
        assert {pod.spec.node_name for pod in cluster.world.pods()} == {"n1", "n3"}
        cluster.components["kubelet-n2"].go_on()
        await cluster.clock.sleep(1)
        await cluster.until(lambda: _settled(cluster), 120)
        assert len(before ^ {node.metadata.uid for node in cluster.world.all(world.Node)}) == 2

    storm.calm(plot)
