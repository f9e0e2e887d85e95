"""StatefulSets: order, names, templates, claims; and what holds whatever happens."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from kcore_api.kcore.apps.v1 import controller_revision_pb2, stateful_set_pb2
from kcore_api.kcore.core.v1 import persistent_volume_claim_pb2, pod_pb2

from kcore.controllers import garbage, pod, statefulset
from tests.controllers import plant
from tests.controllers.world import World, parse

StatefulSet = stateful_set_pb2.StatefulSet
ControllerRevision = controller_revision_pb2.ControllerRevision
Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
Pod = pod_pb2.Pod
HASH = "controller-revision-hash"


def world() -> World:
    return World((statefulset.CONTROLLER, garbage.CONTROLLER))


def stateful_set(replicas: int = 3, image: str = "db:1", **spec: Any) -> StatefulSet:
    """As the server would store it; `spec` in JSON names."""
    made = parse(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "main", "image": image}]},
                },
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            }
            | spec,
        }
    )
    assert isinstance(made, StatefulSet)
    return made


CLAIMS = [
    {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
]


def names(here: World) -> list[str]:
    return [each.metadata.name for each in here.all(Pod)]


def live(here: World) -> StatefulSet:
    found: StatefulSet = here.get(StatefulSet, "default", "db")
    return found


def resize(here: World, replicas: int) -> None:
    one = live(here)
    one.spec.replicas = replicas
    here.change(one)


def set_image(here: World, image: str) -> None:
    one = live(here)
    one.spec.template.spec.containers[0].image = image
    here.change(one)


def images(here: World) -> dict[str, str]:
    return {each.metadata.name: each.spec.containers[0].image for each in here.all(Pod)}


def ready(here: World, name: str) -> None:
    plant.make_ready(here, here.get(Pod, "default", name))


def unready(here: World, name: str) -> None:
    one = here.get(Pod, "default", name)
    one.status.conditions[0].status = "False"
    here.change(one)


def run(here: World) -> None:
    """Until all is as it is wanted, with kubelets that do their work."""
    plant.finish(here)


def test_each_pod_waits_until_all_before_it_are_ready() -> None:
    here = world()
    here.add(stateful_set())
    here.settle()
    assert names(here) == ["db-0"]
    ready(here, "db-0")
    here.settle()
    assert names(here) == ["db-0", "db-1"]
    unready(here, "db-0")
    ready(here, "db-1")
    here.settle()
    assert names(here) == ["db-0", "db-1"]
    ready(here, "db-0")
    here.settle()
    assert names(here) == ["db-0", "db-1", "db-2"]


def test_a_pod_is_the_template_with_its_number() -> None:
    here = world()
    here.add(stateful_set(volumeClaimTemplates=CLAIMS))
    here.settle()
    (one,) = here.all(Pod)
    assert (one.spec.hostname, one.spec.subdomain) == ("db-0", "db")
    (revision,) = here.all(ControllerRevision)
    assert dict(one.metadata.labels) == {
        "app": "db",
        "statefulset.kubernetes.io/pod-name": "db-0",
        "apps.kubernetes.io/pod-index": "0",
        HASH: revision.metadata.name,
    }
    (volume,) = one.spec.volumes
    assert volume.name == "data"
    assert volume.volume_source.persistent_volume_claim.claim_name == "data-db-0"
    (claim,) = here.all(Claim)
    assert claim.metadata.name == "data-db-0"
    assert dict(claim.metadata.labels) == {"app": "db"}
    assert claim.spec.resources.requests["storage"].string == "1Gi"
    assert not claim.metadata.owner_references


def test_numbers_begin_where_they_are_told() -> None:
    here = world()
    here.add(stateful_set(replicas=2, ordinals={"start": 5}))
    run(here)
    assert names(here) == ["db-5", "db-6"]


def test_parallel_makes_and_takes_all_at_once() -> None:
    here = world()
    here.add(stateful_set(podManagementPolicy="Parallel"))
    here.settle()
    assert names(here) == ["db-0", "db-1", "db-2"]
    resize(here, 0)
    here.settle()
    assert not plant.alive(here)


def test_it_shrinks_from_the_top_one_by_one() -> None:
    here = world()
    here.add(stateful_set())
    run(here)
    resize(here, 1)
    here.settle()
    assert [each.metadata.name for each in plant.alive(here)] == ["db-0", "db-1"]
    here.confirm(here.get(Pod, "default", "db-2"))
    here.settle()
    assert [each.metadata.name for each in plant.alive(here)] == ["db-0"]
    run(here)
    assert names(here) == ["db-0"]


def test_it_does_not_shrink_while_one_that_stays_is_ill() -> None:
    here = world()
    here.add(stateful_set())
    run(here)
    unready(here, "db-0")
    resize(here, 1)
    here.settle()
    assert len(plant.alive(here)) == 3
    ready(here, "db-0")
    run(here)
    assert names(here) == ["db-0"]


def test_a_template_rolls_from_the_top_one_by_one() -> None:
    here = world()
    here.add(stateful_set())
    run(here)
    set_image(here, "db:2")
    seen = []
    for _ in range(40):
        here.now += 1
        here.step()
        assert len([each for each in plant.alive(here) if pod.ready_since(each)]) >= 2
        now = [each.metadata.name for each in here.all(Pod) if images(here)[each.metadata.name] ==
               "db:2"]  # fmt: skip
        if now not in seen:
            seen.append(now)
        plant.run_pods(here, 1)
    assert seen == [[], ["db-2"], ["db-1", "db-2"], ["db-0", "db-1", "db-2"]]
    status = live(here).status
    assert status.current_revision == status.update_revision
    assert (status.updated_replicas, status.current_replicas) == (3, 3)


def test_a_partition_keeps_lower_numbers_on_the_old_template() -> None:
    here = world()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    here.add(stateful_set(updateStrategy=rolling))
    run(here)
    set_image(here, "db:2")
    run(here)
    assert images(here) == {"db-0": "db:1", "db-1": "db:1", "db-2": "db:2"}
    here.delete(here.get(Pod, "default", "db-0"))
    run(here)
    assert images(here)["db-0"] == "db:1"


def test_on_delete_waits_for_somebody_to_delete() -> None:
    here = world()
    here.add(stateful_set(updateStrategy={"type": "OnDelete"}))
    run(here)
    set_image(here, "db:2")
    run(here)
    assert set(images(here).values()) == {"db:1"}
    here.delete(here.get(Pod, "default", "db-1"))
    run(here)
    assert images(here) == {"db-0": "db:1", "db-1": "db:2", "db-2": "db:1"}


def test_going_back_to_an_old_template_takes_its_revision_again() -> None:
    here = world()
    here.add(stateful_set(replicas=1))
    run(here)
    first = live(here).status.update_revision
    set_image(here, "db:2")
    run(here)
    set_image(here, "db:1")
    run(here)
    assert live(here).status.update_revision == first
    revisions = {each.metadata.name: each.revision for each in here.all(ControllerRevision)}
    assert len(revisions) == 2 and revisions[first] == 3


def test_old_revisions_go_beyond_the_limit() -> None:
    here = world()
    here.add(stateful_set(replicas=1, revisionHistoryLimit=1))
    run(here)
    for number in range(2, 6):
        set_image(here, f"db:{number}")
        run(here)
    assert sorted(each.revision for each in here.all(ControllerRevision)) == [4, 5]


def test_a_broken_template_is_replaced_by_a_good_one() -> None:
    here = world()
    here.add(stateful_set())
    run(here)
    set_image(here, "broken")
    for _ in range(10):
        here.now += 1
        here.step()
        plant.run_pods(here, wanted=lambda each: each.spec.containers[0].image != "broken")
    assert images(here)["db-2"] == "broken"
    set_image(here, "db:3")
    run(here)
    assert set(images(here).values()) == {"db:3"}


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_is_over_comes_back_under_its_name(phase: str) -> None:
    here = world()
    here.add(stateful_set(replicas=2))
    run(here)
    one = here.get(Pod, "default", "db-0")
    uid = one.metadata.uid
    one.status.phase = phase
    here.change(one)
    run(here)
    again = here.get(Pod, "default", "db-0")
    assert again.metadata.uid != uid and pod.ready_since(again) is not None


def test_a_pod_on_a_lost_node_has_no_double() -> None:
    here = world()
    here.add(stateful_set(replicas=2))
    run(here)
    here.delete(here.get(Pod, "default", "db-1"))
    uids = {each.metadata.uid for each in here.all(Pod)}
    for _ in range(10):
        here.now += 60
        here.settle()
    assert {each.metadata.uid for each in here.all(Pod)} == uids


def test_claims_stay_or_go_as_is_said() -> None:
    here = world()
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    here.add(
        stateful_set(
            replicas=2, volumeClaimTemplates=CLAIMS, persistentVolumeClaimRetentionPolicy=policy
        )
    )
    run(here)
    assert [each.metadata.name for each in here.all(Claim)] == ["data-db-0", "data-db-1"]
    resize(here, 1)
    run(here)
    assert [each.metadata.name for each in here.all(Claim)] == ["data-db-0"]
    here.delete(live(here))
    run(here)
    assert not here.all(Claim) and not here.all(Pod) and not here.all(ControllerRevision)


def test_it_adopts_only_pods_of_its_names() -> None:
    here = world()
    for name in ("db-0", "stranger", "db-00", "other-1"):
        here.add(
            parse(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": name, "namespace": "default", "labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "main", "image": "db:0"}]},
                }
            )
        )
    here.add(stateful_set(replicas=1))
    here.settle()
    owned = [each.metadata.name for each in here.all(Pod) if each.metadata.owner_references]
    assert owned == ["db-0"]


class Watch:
    """What holds of every step that the controller makes."""

    def __init__(self, here: World) -> None:
        self.here = here

    def step(self) -> None:
        here = self.here
        before = {each.metadata.name: each for each in here.all(Pod)}
        (one,) = here.all(StatefulSet)
        least = one.spec.min_ready_seconds
        well = {
            name: pod.facts(each).is_available(least, here.now) and pod.is_active(each)
            for name, each in before.items()
        }
        here.step()
        after = {each.metadata.name: each for each in here.all(Pod)}
        for name, each in after.items():
            if name not in before and one.spec.pod_management_policy == "OrderedReady":
                number = int(name.rpartition("-")[2])
                assert all(well.get(f"db-{lower}") for lower in range(number)), name
            if name in before:
                assert each.metadata.uid == before[name].metadata.uid
        taken = [
            name
            for name, each in before.items()
            if well[name] and (name not in after or not pod.is_active(after[name]))
            and int(name.rpartition("-")[2]) < one.spec.replicas
        ]  # fmt: skip
        # Of those that are to stay, one at a time, and only while all others are well.
        assert len(taken) <= 1
        if taken:
            assert all(well.get(f"db-{number}") for number in range(one.spec.replicas))


@given(
    st.sampled_from(["OrderedReady", "Parallel"]),
    st.lists(
        st.tuples(
            st.sampled_from(["resize", "image", "kubelet", "ill", "over", "delete", "step"]),
            st.integers(0, 4),
        ),
        max_size=30,
    ),
)
@settings(max_examples=60)
def test_order_is_kept_and_all_ends_well(policy: str, story: list[tuple[str, int]]) -> None:
    here = world()
    here.add(stateful_set(podManagementPolicy=policy))
    watch = Watch(here)
    for what, number in story:
        here.now += 1
        there = here.all(Pod)
        one = there[number % len(there)] if there else None
        if what == "resize":
            resize(here, number)
        elif what == "image":
            set_image(here, f"db:{number}")
        elif what == "kubelet":
            plant.run_pods(here, number)
        elif what == "ill" and one is not None and one.status.conditions:
            unready(here, one.metadata.name)
        elif what == "over" and one is not None:
            one.status.phase = "Failed"
            here.change(one)
        elif what == "delete" and one is not None:
            here.delete(one)
        watch.step()
    for _ in range(120):
        here.now += 1
        watch.step()
        plant.run_pods(here)
    here.settle()
    wanted = live(here)
    image = wanted.spec.template.spec.containers[0].image
    assert images(here) == {f"db-{number}": image for number in range(wanted.spec.replicas)}
    assert not here.ask(0, ("default", "db")).transactions
