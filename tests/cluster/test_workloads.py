"""StatefulSets, DaemonSets, Jobs, CronJobs and budgets, on real containers.

The manifests have the forms that Kubernetes' documentation uses, in own words, with a local image.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.machine import Machine

SLEEPS = "trap 'exit 0' TERM; while true; do sleep 0.1; done"


def items(machine: Machine, space: str, kind: str, label: str = "") -> list[dict[str, Any]]:
    words = ["get", kind, "-n", space, "-o", "json", *(["-l", label] if label else [])]
    found: list[dict[str, Any]] = json.loads(machine.says(*words))["items"]
    return found


def one(machine: Machine, space: str, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.says("get", kind, name, "-n", space, "-o", "json"))
    return found


def eventually(check: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "never came"
        time.sleep(0.3)


def stateful_set(image_text: str = "one") -> str:
    return f"""
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: nginx
  replicas: 3
  selector:
    matchLabels: {{app: nginx}}
  template:
    metadata:
      labels: {{app: nginx}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: kcore.local/busybox:1
        command: [sh, -c, "echo {image_text}; hostname; {SLEEPS}"]
        ports:
        - {{containerPort: 80, name: web}}
"""


def test_a_stateful_set_in_order(machine: Machine, space: str) -> None:
    machine.apply(stateful_set(), "-n", space)
    eventually(lambda: one(machine, space, "sts", "web")["status"].get("readyReplicas") == 3)
    pods = items(machine, space, "pods")
    assert [pod["metadata"]["name"] for pod in pods] == ["web-0", "web-1", "web-2"]
    started = [pod["status"]["startTime"] for pod in pods]
    assert started == sorted(started)
    assert machine.says("exec", "-n", space, "web-1", "--", "hostname") == "web-1\n"
    uid = pods[1]["metadata"]["uid"]
    machine.kcore("delete", "pod", "web-1", "-n", space)
    eventually(lambda: one(machine, space, "sts", "web")["status"].get("readyReplicas") == 3)
    assert one(machine, space, "pod", "web-1")["metadata"]["uid"] != uid
    machine.apply(stateful_set("two"), "-n", space)
    machine.kcore("rollout", "status", "sts/web", "-n", space, "--timeout=60s")
    assert machine.says("logs", "-n", space, "web-0").startswith("two\n")
    machine.kcore("rollout", "undo", "sts/web", "-n", space)
    machine.kcore("rollout", "status", "sts/web", "-n", space, "--timeout=60s")
    assert machine.says("logs", "-n", space, "web-2").startswith("one\n")
    machine.kcore("scale", "sts/web", "-n", space, "--replicas=1")
    eventually(lambda: len(items(machine, space, "pods")) == 1)
    assert items(machine, space, "pods")[0]["metadata"]["name"] == "web-0"


def test_a_daemon_set_on_the_node(machine: Machine, space: str) -> None:
    machine.apply(
        f"""
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: agent
  labels: {{k8s-app: agent}}
spec:
  selector:
    matchLabels: {{name: agent}}
  template:
    metadata:
      labels: {{name: agent}}
    spec:
      tolerations:
      - key: node-role.kubernetes.io/control-plane
        operator: Exists
        effect: NoSchedule
      containers:
      - name: agent
        image: kcore.local/busybox:1
        command: [sh, -c, "{SLEEPS}"]
        resources:
          limits: {{memory: 200Mi}}
          requests: {{cpu: 10m, memory: 50Mi}}
        volumeMounts:
        - {{name: varlog, mountPath: /var/log}}
      terminationGracePeriodSeconds: 1
      volumes:
      - name: varlog
        hostPath: {{path: /var/log}}
""",
        "-n", space,
    )  # fmt: skip
    machine.kcore("rollout", "status", "ds/agent", "-n", space, "--timeout=60s")
    (pod,) = items(machine, space, "pods")
    assert pod["spec"]["nodeName"] == machine.name
    assert machine.says("get", "ds", "-n", space).split()[:8] == [
        "NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE", "SELECTOR"
    ]  # fmt: skip
    machine.kcore("rollout", "restart", "ds/agent", "-n", space)
    machine.kcore("rollout", "status", "ds/agent", "-n", space, "--timeout=60s")
    (again,) = items(machine, space, "pods")
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]


def job(name: str, script: str, spec: str = "", restart: str = "Never") -> str:
    return f"""
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
spec:
  {spec}
  template:
    spec:
      restartPolicy: {restart}
      containers:
      - name: main
        image: kcore.local/busybox:1
        command: [sh, -c, "{script}"]
"""


def test_a_job_to_its_end(machine: Machine, space: str) -> None:
    machine.apply(job("pi", "echo 3.14159"), "-n", space)
    machine.kcore("wait", "job/pi", "-n", space, "--for=condition=Complete", "--timeout=60s")
    assert machine.says("logs", "-n", space, "job/pi") == "3.14159\n"
    status = one(machine, space, "job", "pi")["status"]
    assert status["succeeded"] == 1 and "active" not in status
    (pod,) = items(machine, space, "pods")
    assert "finalizers" not in pod["metadata"] and pod["status"]["phase"] == "Succeeded"


def test_an_indexed_job_knows_its_numbers(machine: Machine, space: str) -> None:
    spec = "completions: 3\n  parallelism: 3\n  completionMode: Indexed"
    text = job("numbers", "echo number $JOB_COMPLETION_INDEX on $(hostname)", spec)
    machine.apply(text, "-n", space)
    machine.kcore("wait", "job/numbers", "-n", space, "--for=condition=Complete", "--timeout=60s")
    said = sorted(
        machine.says("logs", "-n", space, pod["metadata"]["name"]).strip()
        for pod in items(machine, space, "pods")
    )
    assert said == [f"number {n} on numbers-{n}" for n in range(3)]
    assert one(machine, space, "job", "numbers")["status"]["completedIndexes"] == "0-2"


def test_a_job_whose_failure_means_something(machine: Machine, space: str) -> None:
    policy = """backoffLimit: 6
  podFailurePolicy:
    rules:
    - action: FailJob
      onExitCodes: {containerName: main, operator: In, values: [42]}"""
    machine.apply(job("strict", "exit 42", policy), "-n", space)
    machine.kcore("wait", "job/strict", "-n", space, "--for=condition=Failed", "--timeout=60s")
    (said,) = [
        c for c in one(machine, space, "job", "strict")["status"]["conditions"]
        if c["type"] == "Failed"
    ]  # fmt: skip
    assert said["reason"] == "PodFailurePolicy" and "exit code 42" in said["message"]
    machine.apply(job("limited", "exit 1", "backoffLimit: 0"), "-n", space)
    machine.kcore("wait", "job/limited", "-n", space, "--for=condition=Failed", "--timeout=60s")
    assert one(machine, space, "job", "limited")["status"]["failed"] == 1


def test_a_job_that_goes_by_itself(machine: Machine, space: str) -> None:
    machine.apply(job("brief", "true", "ttlSecondsAfterFinished: 1"), "-n", space)
    eventually(lambda: not items(machine, space, "jobs"))
    eventually(lambda: not items(machine, space, "pods"))


def test_a_cron_job_makes_jobs(machine: Machine, space: str) -> None:
    machine.apply(
        """
apiVersion: batch/v1
kind: CronJob
metadata:
  name: hello
spec:
  schedule: "@every 2s"
  successfulJobsHistoryLimit: 2
  jobTemplate:
    spec:
      template:
        spec:
          containers:
          - name: hello
            image: kcore.local/busybox:1
            command: [/bin/sh, -c, date; echo Hello from the cluster]
          restartPolicy: OnFailure
""",
        "-n", space,
    )  # fmt: skip
    eventually(lambda: "lastSuccessfulTime" in one(machine, space, "cj", "hello").get("status", {}))
    said = machine.says("logs", "-n", space, "-l", "batch.kubernetes.io/job-name")
    assert "Hello from the cluster" in said
    machine.kcore("patch", "cj", "hello", "-n", space, "-p", '{"spec":{"suspend":true}}')
    machine.kcore("create", "job", "by-hand", "--from=cronjob/hello", "-n", space)
    machine.kcore("wait", "job/by-hand", "-n", space, "--for=condition=Complete", "--timeout=60s")


def test_a_budget_holds_evictions_back(machine: Machine, space: str) -> None:
    machine.apply(
        f"""
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: kept}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: kept}}}}
  template:
    metadata: {{labels: {{app: kept}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kcore.local/busybox:1
        command: [sh, -c, "{SLEEPS}"]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: kept}}
spec:
  minAvailable: 2
  selector: {{matchLabels: {{app: kept}}}}
""",
        "-n", space,
    )  # fmt: skip
    eventually(lambda: one(machine, space, "rs", "kept")["status"].get("readyReplicas") == 2)
    eventually(lambda: one(machine, space, "pdb", "kept")["status"].get("currentHealthy") == 2)
    assert one(machine, space, "pdb", "kept")["status"]["disruptionsAllowed"] == 0
