"""Deployments: what a user who knows Kubernetes takes for granted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.controllers import deployment, pod, replicaset, rollout
from tests import budget
from tests.controllers import plant
from tests.controllers.plant import Deployment, Pod, ReplicaSet
from tests.controllers.world import World


def test_a_deployment_becomes_a_set_becomes_pods() -> None:
    here = plant.world()
    here.add(plant.deploy(replicas=3))
    plant.finish(here)
    (one,) = here.all(ReplicaSet)
    live = here.get(Deployment, "default", "web")
    letters = one.metadata.labels["pod-template-hash"]
    assert one.metadata.name == f"web-{letters}"
    assert len(letters) == 10
    assert one.spec.selector.match_labels["pod-template-hash"] == letters
    assert one.metadata.annotations["deployment.kubernetes.io/revision"] == "1"
    assert live.metadata.annotations["deployment.kubernetes.io/revision"] == "1"
    assert {each.metadata.name.rpartition("-")[0] for each in here.all(Pod)} == {one.metadata.name}
    status = live.status
    assert (status.replicas, status.updated_replicas) == (3, 3)
    assert (status.ready_replicas, status.available_replicas) == (3, 3)
    assert status.unavailable_replicas == 0
    assert status.observed_generation == live.metadata.generation
    assert plant.condition(here, "Available") == ("True", "MinimumReplicasAvailable")
    assert plant.condition(here, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert f"Normal ScalingReplicaSet Scaled up replica set {one.metadata.name} from 0 to 3" in (
        here.said
    )
    assert sum("SuccessfulCreate Created pod: " in line for line in here.said) == 3


def test_a_rolling_update_of_ten_goes_by_three_and_two() -> None:
    here = plant.world()
    here.add(plant.deploy(replicas=10))
    plant.finish(here)
    plant.set_image(here, "web:2")
    here.settle()
    assert plant.sets(here) == {"web:1": (8, 8, 8), "web:2": (5, 5, 0)}
    plant.finish(here)
    assert plant.sets(here) == {"web:1": (0, 0, 0), "web:2": (10, 10, 10)}


def test_growing_in_the_middle_of_a_rollout_is_shared() -> None:
    here = plant.world()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    here.add(plant.deploy(replicas=10, strategy=strategy))
    plant.finish(here)
    plant.set_image(here, "web:2")
    here.settle()
    assert plant.sets(here) == {"web:1": (8, 8, 8), "web:2": (5, 5, 0)}
    plant.resize(here, 30)
    here.step()
    assert {image: asked for image, (asked, _, _) in plant.sets(here).items()} == {
        "web:1": 20,
        "web:2": 13,
    }
    plant.finish(here)
    assert plant.sets(here)["web:2"] == (30, 30, 30)


def test_a_third_template_starts_at_once_and_all_others_go_down() -> None:
    here = plant.world()
    here.add(plant.deploy(replicas=10))
    plant.finish(here)
    plant.set_image(here, "web:2")
    here.settle()
    plant.set_image(here, "web:3")
    here.step()
    here.step()
    sizes = plant.sets(here)
    assert sizes["web:3"][0] + sizes["web:2"][0] + sizes["web:1"][0] <= 13
    # The second never served: it is the one that makes room.
    assert sizes["web:2"][0] == 0
    plant.finish(here)
    assert plant.sets(here) == {"web:1": (0, 0, 0), "web:2": (0, 0, 0), "web:3": (10, 10, 10)}


def test_going_back_re_uses_the_set_and_gives_it_the_next_revision() -> None:
    here = plant.world()
    here.add(plant.deploy())
    plant.finish(here)
    first = here.all(ReplicaSet)[0].metadata.name
    plant.set_image(here, "web:2")
    plant.finish(here)
    plant.set_image(here, "web:1")
    plant.finish(here)
    assert len(here.all(ReplicaSet)) == 2
    back = here.get(ReplicaSet, "default", first)
    assert back.spec.replicas == 3
    assert back.metadata.annotations["deployment.kubernetes.io/revision"] == "3"
    assert back.metadata.annotations["deployment.kubernetes.io/revision-history"] == "1"
    live = here.get(Deployment, "default", "web")
    assert live.metadata.annotations["deployment.kubernetes.io/revision"] == "3"
    assert plant.condition(here, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_only_the_template_makes_a_revision() -> None:
    here = plant.world()
    here.add(plant.deploy())
    plant.finish(here)
    live = here.get(Deployment, "default", "web")
    live.spec.min_ready_seconds = 5
    live.metadata.annotations["kubernetes.io/change-cause"] = "because"
    here.change(live)
    plant.finish(here)
    (one,) = here.all(ReplicaSet)
    assert one.spec.min_ready_seconds == 5
    assert one.metadata.annotations["kubernetes.io/change-cause"] == "because"
    assert one.metadata.annotations["deployment.kubernetes.io/revision"] == "1"


def test_history_beyond_its_limit_goes() -> None:
    here = plant.world()
    here.add(plant.deploy(revisionHistoryLimit=2))
    for version in range(1, 6):
        plant.set_image(here, f"web:{version}") if version > 1 else None
        plant.finish(here)
    assert sorted(plant.sets(here)) == ["web:3", "web:4", "web:5"]


def test_paused_rolls_nothing_but_scales() -> None:
    here = plant.world()
    here.add(plant.deploy())
    plant.finish(here)
    live = here.get(Deployment, "default", "web")
    live.spec.paused = True
    live.spec.template.spec.containers[0].image = "web:2"
    here.change(live)
    plant.finish(here)
    assert plant.sets(here) == {"web:1": (3, 3, 3)}
    assert plant.condition(here, "Progressing") == ("Unknown", "DeploymentPaused")
    plant.resize(here, 5)
    plant.finish(here)
    assert plant.sets(here) == {"web:1": (5, 5, 5)}
    live = here.get(Deployment, "default", "web")
    live.spec.paused = False
    here.change(live)
    plant.finish(here)
    assert plant.sets(here) == {"web:1": (0, 0, 0), "web:2": (5, 5, 5)}


def test_pausing_and_resuming_is_said() -> None:
    here = plant.world()
    here.add(plant.deploy())
    here.settle()
    for paused, said in ((True, ("Unknown", "DeploymentPaused")),):
        live = here.get(Deployment, "default", "web")
        live.spec.paused = paused
        here.change(live)
        here.settle()
        assert plant.condition(here, "Progressing") == said
    live = here.get(Deployment, "default", "web")
    live.spec.paused = False
    here.change(live)
    here.settle()
    assert plant.condition(here, "Progressing") == ("Unknown", "DeploymentResumed")


def test_recreate_waits_until_every_old_pod_is_gone() -> None:
    here = plant.world()
    here.add(plant.deploy(strategy={"type": "Recreate"}))
    plant.finish(here)
    plant.set_image(here, "web:2")
    here.settle()
    # All are on their way out, none is gone.
    assert [each.metadata.HasField("deletion_timestamp") for each in here.all(Pod)] == [True] * 3
    assert list(plant.sets(here)) == ["web:1"]
    plant.run_pods(here, 2)
    here.settle()
    assert list(plant.sets(here)) == ["web:1"]
    plant.finish(here)
    assert plant.sets(here) == {"web:1": (0, 0, 0), "web:2": (3, 3, 3)}


def test_after_the_deadline_nothing_stops_it_is_only_said() -> None:
    here = plant.world()
    here.add(plant.deploy())
    plant.finish(here)
    plant.set_image(here, "web:2")
    here.settle()
    assert plant.condition(here, "Progressing") == ("True", "ReplicaSetUpdated")
    here.now += 599
    here.settle()
    assert plant.condition(here, "Progressing") == ("True", "ReplicaSetUpdated")
    here.now += 3
    here.settle()
    assert plant.condition(here, "Progressing") == ("False", "ProgressDeadlineExceeded")
    plant.finish(here)
    assert plant.condition(here, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert plant.sets(here)["web:2"] == (3, 3, 3)


def test_unavailable_is_said() -> None:
    here = plant.world()
    here.add(plant.deploy())
    here.settle()
    assert plant.condition(here, "Available") == ("False", "MinimumReplicasUnavailable")
    assert here.get(Deployment, "default", "web").status.unavailable_replicas == 3


def test_min_ready_seconds_holds_availability_back() -> None:
    here = plant.world()
    here.add(plant.deploy(replicas=1, minReadySeconds=30))
    here.settle()
    plant.run_pods(here)
    here.settle()
    status = here.get(Deployment, "default", "web").status
    assert (status.ready_replicas, status.available_replicas) == (1, 0)
    here.now += 31
    here.settle()
    assert here.get(Deployment, "default", "web").status.available_replicas == 1


def test_a_set_of_the_same_name_makes_other_letters() -> None:
    here = plant.world()
    live = plant.deploy()
    taken = ReplicaSet()
    taken.metadata.name = f"web-{deployment.template_letters(live.spec.template, 0)}"
    taken.metadata.namespace = "default"
    taken.metadata.labels["app"] = "other"
    taken.spec.selector.match_labels["app"] = "other"
    taken.spec.replicas = 0
    here.add(taken)
    here.add(live)
    plant.finish(here)
    assert here.get(Deployment, "default", "web").status.collision_count == 1
    assert len(here.all(ReplicaSet)) == 2
    assert len(plant.alive(here)) == 3


def test_failures_of_sets_are_the_deployments() -> None:
    here = plant.world()
    here.add(plant.deploy())
    here.settle()
    (one,) = here.all(ReplicaSet)
    one.status.conditions.add(type="ReplicaFailure", status="True", reason="FailedCreate")
    one.status.replicas = 0
    here.change(one)
    result = here.ask(0, ("default", "web"))
    (wanted,) = result.transactions
    status = Deployment.FromString(wanted.operations[0].patch.merge.object).status
    assert [c.reason for c in status.conditions if c.type == "ReplicaFailure"] == ["FailedCreate"]


def test_a_set_whose_labels_match_is_adopted_and_released() -> None:
    here = plant.world()
    here.add(plant.deploy())
    plant.finish(here)
    live = here.get(Deployment, "default", "web")
    here.delete(live, pb.PROPAGATION_ORPHAN)
    plant.finish(here)
    (one,) = here.all(ReplicaSet)
    assert not one.metadata.owner_references
    assert len(plant.alive(here)) == 3
    here.add(plant.deploy())
    plant.finish(here)
    (one,) = here.all(ReplicaSet)
    assert one.metadata.owner_references[0].name == "web"
    assert len(plant.alive(here)) == 3


@pytest.mark.parametrize("propagation", [pb.PROPAGATION_BACKGROUND, pb.PROPAGATION_FOREGROUND])
def test_deleting_it_deletes_all(propagation: int) -> None:
    here = plant.world()
    here.add(plant.deploy())
    plant.finish(here)
    here.delete(here.get(Deployment, "default", "web"), propagation)
    plant.finish(here)
    assert not here.objects


# Laws.

amount = st.one_of(st.integers(0, 5), st.sampled_from(["0%", "25%", "50%", "100%"]))


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What users and nodes do, one after another."""
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("image"), st.integers(1, 4)),
                st.tuples(st.just("resize"), st.integers(0, 12)),
                st.tuples(st.just("pods"), st.integers(1, 6)),
                st.tuples(st.just("step"), st.integers(1, 3)),
                st.tuples(st.just("unready"), st.integers(0, 5)),
                st.tuples(st.just("evict"), st.integers(0, 5)),
                st.tuples(st.just("pause"), st.integers(0, 1)),
                st.tuples(st.just("wait"), st.integers(1, 700)),
            ),
            max_size=25,
        )
    )


def play(here: World, what: str, number: int) -> None:
    """One line of a story."""
    if what == "image":
        plant.set_image(here, f"web:{number}")
    elif what == "resize":
        plant.resize(here, number)
    elif what == "pods":
        plant.run_pods(here, number)
    elif what == "step":
        for _ in range(number):
            here.step()
    elif what == "wait":
        here.now += number
    elif what == "pause":
        live = here.get(Deployment, "default", "web")
        live.spec.paused = bool(number)
        here.change(live)
    else:
        there = plant.alive(here)
        if there:
            each = there[number % len(there)]
            if what == "evict":
                here.delete(each)
            else:
                for known in each.status.conditions:
                    known.status = "False"
                here.change(each)


@settings(max_examples=budget.examples(40), deadline=None)
@given(stories(), amount, amount, st.integers(0, 10))
def test_it_always_ends_as_it_should(
    story: list[tuple[str, int]], surge: int | str, unavailable: int | str, replicas: int
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    here = plant.world()
    here.add(
        plant.deploy(
            replicas=replicas, strategy={"type": "RollingUpdate", "rollingUpdate": rolling}
        )
    )
    for what, number in story:
        play(here, what, number)
    play(here, "pause", 0)
    plant.finish(here)
    live = here.get(Deployment, "default", "web")
    image = live.spec.template.spec.containers[0].image
    assert plant.sets(here)[image] == (live.spec.replicas,) * 3
    assert all(n == (0, 0, 0) for i, n in plant.sets(here).items() if i != image)
    assert len(plant.alive(here)) == live.spec.replicas
    assert live.status.observed_generation == live.metadata.generation
    assert plant.condition(here, "Progressing") == ("True", "NewReplicaSetAvailable")
    # Idempotent: nobody wants anything any more.
    for index in range(len(here.controllers)):
        for each in (*here.all(Deployment), *here.all(ReplicaSet)):
            key = (each.metadata.namespace, each.metadata.name)
            if index < 2:
                assert not here.ask(index, key).transactions


@settings(max_examples=budget.examples(40), deadline=None)
@given(
    st.integers(1, 12),
    amount,
    amount,
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=12),
)
def test_a_rollout_keeps_its_bounds_at_every_revision(
    replicas: int, surge: int | str, unavailable: int | str, turns: list[tuple[int, int]]
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    limits = rollout.bounds(replicas, surge, unavailable)
    here = plant.world()
    here.add(
        plant.deploy(
            replicas=replicas, strategy={"type": "RollingUpdate", "rollingUpdate": rolling}
        )
    )
    plant.finish(here)
    commit = here.commit

    def watched(transaction: pb.Transaction, *, publish: bool = True) -> None:
        commit(transaction, publish=publish)
        there = plant.alive(here)
        assert len(there) <= limits.most, here.log[-10:]
        ready = sum(pod.ready_since(each) is not None for each in there)
        assert ready >= limits.least_available, here.log[-10:]

    here.commit = watched  # type: ignore[method-assign]
    for index, (image, pods) in enumerate(turns):
        plant.set_image(here, f"web:{image}")
        for _ in range(1 + index % 3):
            here.step()
            plant.run_pods(here, pods)
    plant.finish(here)
    assert replicaset.replicas(here.all(ReplicaSet)[0]) >= 0
