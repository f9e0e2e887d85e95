"""Nodes on a real machine: cordoned, drained as far as a budget allows, and rooms that die."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_workloads import SLEEPS, eventually, items, one
from tests.machine import Machine


@pytest.fixture
def open_again(machine: Machine) -> Iterator[None]:
    """The node takes pods again, whatever happens."""
    yield
    machine.kcore("uncordon", machine.name, check=False)


def deployment(name: str, replicas: int = 1) -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: "kcore.local/busybox:1", command: [sh, -c, "{SLEEPS}"]}}
"""


def ready(machine: Machine, space: str, name: str) -> int:
    found: int = one(machine, space, "deploy", name)["status"].get("readyReplicas", 0)
    return found


def taints(machine: Machine) -> list[tuple[str, str]]:
    node = one(machine, "default", "node", machine.name)
    return [(each["key"], each["effect"]) for each in node["spec"].get("taints", [])]


def test_cordon_drain_with_a_budget_uncordon(
    machine: Machine, space: str, open_again: None
) -> None:
    machine.apply(
        deployment("db")
        + "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: db}\n"
        "spec: {minAvailable: 1, selector: {matchLabels: {app: db}}}\n",
        "-n", space,
    )  # fmt: skip
    eventually(lambda: ready(machine, space, "db") == 1)
    eventually(
        lambda: one(machine, space, "pdb", "db").get("status", {}).get("currentHealthy") == 1
    )
    assert machine.says("cordon", machine.name) == f"node/{machine.name} cordoned\n"
    eventually(lambda: ("node.kubernetes.io/unschedulable", "NoSchedule") in taints(machine))
    assert "Ready,SchedulingDisabled" in machine.says("get", "node", machine.name)
    machine.apply(deployment("late"), "-n", space)
    eventually(
        lambda: (
            "node(s) were unschedulable" in machine.says("get", "events", "-n", space, "-o", "yaml")
        )
    )
    assert [each["status"]["phase"] for each in items(machine, space, "pods", "app=late")] == [
        "Pending"
    ]
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector=app=db")
    refused = machine.kcore("drain", machine.name, *flags, "--timeout=3s", check=False)
    assert refused.returncode == 3
    assert b"would violate the pod's disruption budget" in refused.stderr
    (kept,) = items(machine, space, "pods", "app=db")
    assert "deletionTimestamp" not in kept["metadata"]
    # It goes as soon as the budget allows it.
    done: list[subprocess.CompletedProcess[bytes]] = []
    words = ("drain", machine.name, *flags, "--timeout=60s")
    waiting = threading.Thread(target=lambda: done.append(machine.kcore(*words, check=False)))
    waiting.start()
    time.sleep(2)
    assert not done
    machine.kcore(
        "patch", "pdb", "db", "-n", space, "--type=merge", "-p", '{"spec":{"minAvailable":0}}'
    )
    waiting.join()
    assert done[0].returncode == 0, done[0].stderr
    assert f"pod/{kept['metadata']['name']} evicted\n" in done[0].stdout.decode()
    assert machine.says("uncordon", machine.name) == f"node/{machine.name} uncordoned\n"
    eventually(lambda: ready(machine, space, "db") == 1 and ready(machine, space, "late") == 1)
    assert not taints(machine)


def test_a_taint_drives_out_whom_it_is_not_tolerated_by(
    machine: Machine, space: str, open_again: None
) -> None:
    machine.apply(deployment("web"), "-n", space)
    eventually(lambda: ready(machine, space, "web") == 1)
    (before,) = items(machine, space, "pods")
    try:
        machine.kcore("taint", "nodes", machine.name, "example.com/broken=yes:NoExecute")
        eventually(
            lambda: (
                before["metadata"]["uid"]
                not in [each["metadata"]["uid"] for each in items(machine, space, "pods")]
            )
        )
        assert "Marking for deletion Pod" in machine.says("get", "events", "-n", space)
    finally:
        machine.kcore("taint", "nodes", machine.name, "example.com/broken-", check=False)
    eventually(lambda: ready(machine, space, "web") == 1)


def rooms(machine: Machine) -> list[int]:
    """Process ids of the machine's rooms."""
    root = str(machine.root)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if words[0] == sys.executable and "rooms" in words and root in words:
                found.append(int(entry.name))
    return found


def test_rooms_that_are_killed_evict_nobody(machine: Machine, space: str) -> None:
    machine.apply(deployment("web", 2), "-n", space)
    eventually(lambda: ready(machine, space, "web") == 2)
    before = {each["metadata"]["uid"] for each in items(machine, space, "pods")}
    for _ in range(3):
        (old,) = rooms(machine)
        os.kill(old, signal.SIGKILL)
        eventually(lambda old=old: bool(rooms(machine)) and rooms(machine) != [old])  # type: ignore[misc]
        time.sleep(1)
    time.sleep(10)
    assert ready(machine, space, "web") == 2
    assert {each["metadata"]["uid"] for each in items(machine, space, "pods")} == before
    assert not taints(machine)
    assert "Ready" in machine.says("get", "node", machine.name)
