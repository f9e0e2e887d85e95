"""`kcore rollout` and `kcore create` for what is no Deployment."""

import json

import pytest

from tests.cli.cluster import Run

SET = """\
apiVersion: apps/v1
kind: {kind}
metadata: {{name: db}}
spec:
  {extra}
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec: {{containers: [{{name: db, image: "db:2"}}]}}
"""
CRON = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "@daily"
  jobTemplate:
    metadata: {labels: {app: tick}}
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: "w:1"}]
"""


async def revisions(run: Run, kind: str) -> None:
    _, uid, _ = await run(f"get {kind} db -o jsonpath={{.metadata.uid}}")
    for number in (1, 2):
        await run.apply(
            "apiVersion: apps/v1\nkind: ControllerRevision\n"
            f"metadata:\n  name: db-{number}\n  labels: {{app: db}}\n"
            f"  ownerReferences:\n  - {{apiVersion: apps/v1, kind: {kind}, name: db, uid: {uid},"
            f" controller: true}}\nrevision: {number}\n"
            "data: {spec: {template: {$patch: replace, metadata: {labels: {app: db}},"
            f' spec: {{containers: [{{name: db, image: "db:{number}"}}]}}}}}}}}\n'
        )


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
async def test_undo_goes_back_to_the_template_before(run: Run, kind: str) -> None:
    await run.apply(SET.format(kind=kind, extra=""))
    await revisions(run, kind)
    name = kind.lower()
    code, out, _ = await run(f"rollout history {name}/db")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["REVISION", "1", "2"]
    code, out, _ = await run(f"rollout undo {name}/db")
    assert (code, out) == (0, f"{name}.apps/db rolled back\n")
    _, image, _ = await run(
        f"get {name} db -o jsonpath={{.spec.template.spec.containers[0].image}}"
    )
    assert image == "db:1"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"replicas": 3, "updatedReplicas": 1}, "1 out of 3 new replicas have been updated"),
        (
            {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3},
            "successfully rolled out",
        ),
    ],
)
async def test_status_of_a_stateful_set(run: Run, status: dict[str, int], words: str) -> None:
    await run.apply(SET.format(kind="StatefulSet", extra="replicas: 3"))
    await run.status("StatefulSet", "db", {"observedGeneration": 1} | status)
    _, out, _ = await run("rollout status sts/db --watch=false")
    assert words in out


async def test_status_of_a_partition(run: Run) -> None:
    extra = "replicas: 3\n  updateStrategy: {rollingUpdate: {partition: 2}}"
    await run.apply(SET.format(kind="StatefulSet", extra=extra))
    status = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 3}
    await run.status("StatefulSet", "db", status)
    _, out, _ = await run("rollout status sts/db --watch=false")
    assert out == "partitioned roll out complete: 1 new pods have been updated...\n"


async def test_status_of_a_daemon_set(run: Run) -> None:
    await run.apply(SET.format(kind="DaemonSet", extra=""))
    status = {
        "observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2,
        "numberAvailable": 1, "currentNumberScheduled": 2, "numberMisscheduled": 0,
        "numberReady": 1,
    }  # fmt: skip
    await run.status("DaemonSet", "db", status)
    _, out, _ = await run("rollout status ds/db --watch=false")
    assert "1 of 2 updated pods are available" in out


async def test_status_waits_for_nobody_who_deletes(run: Run) -> None:
    extra = "updateStrategy: {type: OnDelete}"
    await run.apply(SET.format(kind="DaemonSet", extra=extra))
    code, _, err = await run("rollout status ds/db")
    assert code == 1 and "only there for strategy type RollingUpdate" in err


async def test_a_job_of_a_cron_job(run: Run) -> None:
    await run.apply(CRON)
    code, out, _ = await run("create job now --from=cronjob/tick")
    assert (code, out) == (0, "job.batch/now created\n")
    _, text, _ = await run("get job now -o json")
    made = json.loads(text)
    assert made["metadata"]["labels"] == {"app": "tick"}
    assert made["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    assert made["metadata"]["ownerReferences"][0]["name"] == "tick"
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "w:1"


async def test_a_job_of_an_image(run: Run) -> None:
    code, _, _ = await run("create job hello --image=w:1 -- echo hello")
    assert code == 0
    _, text, _ = await run("get job hello -o jsonpath={.spec.template.spec.containers[0].command}")
    assert json.loads(text) == ["echo", "hello"]


@pytest.mark.parametrize(
    "words", ["create job x", "create job x --image=a --from=cronjob/tick",
              "create job x --from=pod/tick", "create job x --from=cronjob/a -- cmd"]
)  # fmt: skip
async def test_what_is_no_job(run: Run, words: str) -> None:
    code, _, _ = await run(words)
    assert code == 2


async def test_a_cron_job_by_words(run: Run) -> None:
    code, out, _ = await run("create cronjob nightly --image=w:1 --schedule=@daily -- date")
    assert (code, out) == (0, "cronjob.batch/nightly created\n")
    code, _, err = await run("create cronjob never --image=w:1 --schedule=tomorrow")
    assert code == 1 and "spec.schedule" in err and "expected exactly 5 fields" in err
