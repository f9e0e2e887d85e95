"""Jobs: how often, how many at a time, what failures mean, how they end; counts that are exact."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from kcore_api.kcore.batch.v1 import job_pb2
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.controllers import failure, garbage, indexes, job, pod
from tests.controllers import plant
from tests.controllers.world import World, parse

Job = job_pb2.Job
Pod = pod_pb2.Pod
KEY = ("default", "work")
UID = "uid-work"


def world() -> World:
    return World((job.CONTROLLER, garbage.CONTROLLER))


def work(restart: str = "Never", **spec: Any) -> Job:
    """A job as the server would store it; `spec` in JSON names."""
    labels = {"batch.kubernetes.io/controller-uid": UID}
    made = parse(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "work", "namespace": "default", "uid": UID},
            "spec": {
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "podReplacementPolicy": "TerminatingOrFailed",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [{"name": "main", "image": "w:1"}],
                        "restartPolicy": restart,
                    },
                },
            }
            | spec,
        }
    )
    assert isinstance(made, Job)
    return made


def live(here: World) -> Job:
    found: Job = here.get(Job, *KEY)
    return found


def change(here: World, **spec: Any) -> None:
    one = live(here)
    for name, value in spec.items():
        setattr(one.spec, name, value)
    here.change(one)


def active(here: World) -> list[Pod]:
    return [each for each in here.all(Pod) if pod.is_active(each)]


def end(here: World, each: Pod, code: int = 0) -> None:
    """Its kubelet says that it has ended."""
    fresh = here.get(Pod, "default", each.metadata.name)
    fresh.spec.node_name = fresh.spec.node_name or "n1"
    fresh.status.phase = "Failed" if code else "Succeeded"
    ended = fresh.status.container_statuses.add(name="main").state.terminated
    ended.exit_code, ended.finished_at.seconds = code, int(here.now)
    here.change(fresh)


def conditions(here: World) -> dict[str, str]:
    return {c.type: c.reason for c in live(here).status.conditions if c.status == "True"}


def counts(here: World) -> tuple[int, int, int]:
    status = live(here).status
    return status.active, status.succeeded, status.failed


def settle(here: World) -> None:
    here.now += 1
    here.settle()
    for each in here.all(Pod):
        if each.metadata.HasField("deletion_timestamp") and each.metadata.finalizers == []:
            here.confirm(each)
    here.settle()


def test_one_pod_that_succeeds() -> None:
    here = world()
    here.add(work(completions=1))
    here.settle()
    (one,) = active(here)
    assert one.metadata.name.startswith("work-") and len(one.metadata.name) == 10
    assert list(one.metadata.finalizers) == [job.TRACKING]
    assert counts(here) == (1, 0, 0) and live(here).status.start_time.seconds
    end(here, one)
    settle(here)
    assert conditions(here) == {
        "Complete": "CompletionsReached", "SuccessCriteriaMet": "CompletionsReached"
    }  # fmt: skip
    assert counts(here) == (0, 1, 0) and live(here).status.completion_time.seconds
    (one,) = here.all(Pod)
    assert not one.metadata.finalizers
    assert "Normal Completed Job completed" in here.said


def test_so_many_at_a_time_and_so_many_in_all() -> None:
    here = world()
    here.add(work(completions=5, parallelism=2))
    for done in range(5):
        settle(here)
        assert len(active(here)) == min(2, 5 - done)
        end(here, active(here)[0])
    settle(here)
    assert counts(here) == (0, 5, 0) and "Complete" in conditions(here)


def test_a_queue_of_work_is_done_when_one_has_succeeded_and_all_have_ended() -> None:
    here = world()
    here.add(work(parallelism=3))
    settle(here)
    first, second, third = active(here)
    end(here, first)
    settle(here)
    assert len(active(here)) == 2 and "Complete" not in conditions(here)
    end(here, second)
    end(here, third, code=1)
    settle(here)
    assert "Complete" in conditions(here) and counts(here) == (0, 2, 1)


def test_after_failures_it_waits_longer_and_longer_and_gives_up() -> None:
    here = world()
    here.add(work(completions=1, backoffLimit=3))
    waits = []
    for _ in range(4):
        began = here.now
        while not active(here):
            here.now += 1
            here.settle()
            assert here.now < began + 700
        waits.append(round(here.now - began))
        end(here, active(here)[0], code=1)
        here.settle()
    settle(here)
    assert waits[1:] == [10, 20, 40]
    assert conditions(here)["Failed"] == "BackoffLimitExceeded" and counts(here) == (0, 0, 4)
    here.now += 3600
    here.settle()
    assert not active(here)


def test_restarts_count_where_containers_restart() -> None:
    here = world()
    here.add(work("OnFailure", completions=1, backoffLimit=2))
    settle(here)
    one = active(here)[0]
    one.status.phase = "Running"
    one.status.container_statuses.add(name="main", restart_count=2)
    here.change(one)
    settle(here)
    assert conditions(here)["Failed"] == "BackoffLimitExceeded"
    assert not active(here)


def test_a_deadline_beats_all() -> None:
    here = world()
    here.add(work(completions=1, activeDeadlineSeconds=60))
    settle(here)
    assert active(here)
    here.now += 61
    settle(here)
    assert conditions(here)["Failed"] == "DeadlineExceeded" and not active(here)


def test_indexes_are_each_done_once() -> None:
    here = world()
    here.add(work(completions=4, parallelism=3, completionMode="Indexed"))
    settle(here)
    assert sorted(job.index_of(each) or 0 for each in active(here)) == [0, 1, 2]
    one = next(each for each in active(here) if job.index_of(each) == 1)
    assert one.spec.hostname == "work-1" and one.metadata.name.startswith("work-1-")
    assert one.metadata.labels[job.INDEX] == one.metadata.annotations[job.INDEX] == "1"
    (said,) = one.spec.containers[0].env
    assert said.name == "JOB_COMPLETION_INDEX"
    for number in (0, 2, 3, 1):
        end(here, next(each for each in active(here) if job.index_of(each) == number))
        settle(here)
    status = live(here).status
    assert status.completed_indexes == "0-3" and status.succeeded == 4
    assert "Complete" in conditions(here)


def test_an_index_may_fail_so_often() -> None:
    here = world()
    here.add(
        work(
            completions=2,
            parallelism=2,
            completionMode="Indexed",
            backoffLimitPerIndex=1,
            backoffLimit=2**31 - 1,
        )
    )
    settle(here)
    end(here, next(each for each in active(here) if job.index_of(each) == 0))
    for _ in range(2):
        for _ in range(30):
            settle(here)
        end(here, next(each for each in active(here) if job.index_of(each) == 1), code=1)
    settle(here)
    status = live(here).status
    assert (status.completed_indexes, status.failed_indexes) == ("0", "1")
    assert conditions(here)["Failed"] == "FailedIndexes"


def test_success_can_come_early() -> None:
    here = world()
    policy = {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 2}]}
    here.add(work(completions=5, parallelism=5, completionMode="Indexed", successPolicy=policy))
    settle(here)
    for number in (1, 2, 0):
        assert "SuccessCriteriaMet" not in conditions(here)
        end(here, next(each for each in active(here) if job.index_of(each) == number))
        settle(here)
    settle(here)
    assert conditions(here)["Complete"] == "SuccessPolicy"
    assert live(here).status.succeeded == 3 and not active(here)


@pytest.mark.parametrize(
    ("action", "code", "expected"),
    [
        ("FailJob", 42, {"Failed": "PodFailurePolicy", "FailureTarget": "PodFailurePolicy"}),
        ("FailJob", 1, {}),
        ("Ignore", 42, {}),
        ("Count", 42, {}),
    ],
)
def test_what_a_failure_means(action: str, code: int, expected: dict[str, str]) -> None:
    here = world()
    rule = {
        "action": action,
        "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]},
    }
    here.add(
        work(
            completions=1,
            backoffLimit=1,
            podFailurePolicy={"rules": [rule]},
            podReplacementPolicy="Failed",
        )
    )
    settle(here)
    end(here, active(here)[0], code)
    settle(here)
    assert conditions(here) == expected
    assert live(here).status.failed == (action != "Ignore" or code != 42)
    if expected:
        (said,) = {c.message for c in live(here).status.conditions}
        assert said.endswith("failed with exit code 42 matching FailJob rule at index 0")


def test_a_disruption_can_be_ignored() -> None:
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    policy = work(podFailurePolicy={"rules": rules}).spec.pod_failure_policy
    evicted = Pod()
    evicted.status.conditions.add(type="DisruptionTarget", status="True")
    assert failure.judge(policy, evicted).action == "Ignore"
    assert failure.judge(policy, Pod()).action == "Count"


def test_suspended_it_rests_and_goes_on() -> None:
    here = world()
    here.add(work(completions=2, parallelism=2))
    settle(here)
    change(here, suspend=True)
    settle(here)
    settle(here)
    assert conditions(here) == {"Suspended": "JobSuspended"}
    assert not active(here) and counts(here) == (0, 0, 0)
    assert not live(here).status.HasField("start_time")
    change(here, suspend=False)
    settle(here)
    assert len(active(here)) == 2 and conditions(here) == {}
    assert live(here).status.HasField("start_time")


def test_fewer_at_a_time_are_no_failures() -> None:
    here = world()
    here.add(work(completions=10, parallelism=4))
    settle(here)
    change(here, parallelism=1)
    settle(here)
    settle(here)
    assert len(active(here)) == 1 and live(here).status.failed == 0


def test_pods_that_somebody_deletes_are_failures_and_are_replaced() -> None:
    here = world()
    here.add(work(completions=1))
    settle(here)
    (one,) = active(here)
    plant.make_ready(here, one)
    here.delete(one)
    for _ in range(15):
        settle(here)
    assert len(active(here)) == 1 and live(here).status.failed == 1


def test_a_job_that_has_ended_goes_in_time() -> None:
    here = world()
    here.add(work(completions=1, ttlSecondsAfterFinished=100))
    settle(here)
    end(here, active(here)[0])
    settle(here)
    assert here.all(Job)
    here.now += 101
    settle(here)
    assert not here.all(Job) and not here.all(Pod)


def test_a_job_that_is_deleted_lets_its_pods_go() -> None:
    here = world()
    here.add(work(completions=3, parallelism=3))
    settle(here)
    here.delete(live(here))
    for _ in range(5):
        settle(here)
    assert not here.all(Job) and not here.all(Pod)


def test_somebody_elses_job_is_left_alone() -> None:
    here = world()
    here.add(work(completions=1, managedBy="example.com/other"))
    settle(here)
    assert not here.all(Pod)


@given(
    st.booleans(),
    st.integers(1, 6),
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.sampled_from(["succeed", "fail", "delete", "stale", "size", "rest"]),
            st.integers(0, 5),
        ),
        max_size=30,
    ),
)
@settings(max_examples=80)
def test_every_end_counts_once(
    indexed: bool, completions: int, parallelism: int, story: list[tuple[str, int]]
) -> None:
    here = world()
    mode = "Indexed" if indexed else "NonIndexed"
    here.add(
        work(
            completions=completions,
            parallelism=parallelism,
            completionMode=mode,
            backoffLimit=1000,
        )
    )
    succeeded: set[str] = set()
    done_indexes: set[int] = set()
    for what, number in story:
        here.now += 1
        there = active(here)
        one = there[number % len(there)] if there else None
        if what in ("succeed", "fail") and one is not None:
            end(here, one, code=int(what == "fail"))
            if what == "succeed":
                succeeded.add(one.metadata.uid)
                done_indexes.add(job.index_of(one) or 0)
        elif what == "delete" and one is not None:
            here.delete(one)
        elif what == "size":
            change(here, parallelism=number)
        elif what == "rest":
            change(here, suspend=number % 2 == 1)
        elif what == "stale":
            # An answer that was lost: the same is decided and asked for again.
            result = here.ask(0, KEY)
            here.carry_out(result, 0, KEY)
            here.carry_out(result, 0, KEY)
        here.settle()
        status = live(here).status
        expected = len(done_indexes) if indexed else len(succeeded)
        assert status.succeeded == expected
        running = [each for each in active(here) if each.metadata.uid]
        assert len(running) <= live(here).spec.parallelism or live(here).spec.suspend
        if indexed:
            taken = [job.index_of(each) for each in running]
            assert len(taken) == len(set(taken)) and not done_indexes & {*taken}
    change(here, parallelism=parallelism, suspend=False)
    for _ in range(3 * completions + 10):
        here.now += 700
        settle(here)
        for each in active(here):
            end(here, each)
            succeeded.add(each.metadata.uid)
        settle(here)
    assert "Complete" in conditions(here)
    assert live(here).status.succeeded == (completions if indexed else len(succeeded))
    assert not any(each.metadata.finalizers for each in here.all(Pod))
    assert not here.ask(0, KEY).transactions


@given(st.sets(st.integers(0, 200)))
def test_indexes_and_their_text_are_the_same(some: set[int]) -> None:
    assert indexes.parse(indexes.text(some)) == some


def test_indexes_are_short_where_they_can_be() -> None:
    assert indexes.text({0, 2, 3, 4, 7, 8}) == "0,2-4,7,8"
    assert indexes.parse("0,2-4,7,8", 4) == {0, 2, 3}
