"""The mission, sentence by sentence, as far as it is built: what needs a machine."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.machine import Machine

PAIR = """
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: one
    image: kcore.local/busybox:1
    command: [sh, -c, "mkdir /srv; echo here > /srv/index.html; exec httpd -f -p 80 -h /srv"]
  - name: two
    image: kcore.local/busybox:1
    command: [sleep, "1000"]
"""

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: main, image: "kcore.local/busybox:1", command: [sleep, "TIME"]}
"""


def objects(machine: Machine, *words: str) -> list[dict]:
    """What `kcore get … -o json` lists."""
    return json.loads(machine.says("get", *words, "-o", "json"))["items"]


def test_a_pod_is_one_or_more_containers_sharing_namespaces_each_with_its_own_root(
    machine: Machine, space: str
) -> None:
    machine.apply(PAIR, "-n", space)
    machine.kcore("wait", "-n", space, "pod/pair", "--for=condition=Ready", "--timeout=60s")

    def run(name: str, *words: str) -> str:
        return machine.says("exec", "-n", space, "pair", "-c", name, "--", *words)

    for kind in ("net", "ipc", "uts"):
        assert run("one", "readlink", f"/proc/self/ns/{kind}") == run(
            "two", "readlink", f"/proc/self/ns/{kind}"
        )
    assert run("two", "wget", "-qO-", "http://127.0.0.1/") == "here\n"
    assert run("one", "ls", "/srv") == "index.html\n"
    assert machine.kcore(
        "exec", "-n", space, "pair", "-c", "two", "--", "ls", "/srv", check=False
    ).returncode


def test_a_deployment_makes_a_replicaset_which_makes_pods_and_a_new_template_rolls(
    machine: Machine, space: str
) -> None:
    for seconds in ("1001", "1002"):
        machine.apply(DEPLOYMENT.replace("TIME", seconds), "-n", space)
        machine.kcore("rollout", "status", "deploy/web", "-n", space, "--timeout=90s")
    (deployment,) = objects(machine, "deployments", "-n", space)
    sets = objects(machine, "replicasets", "-n", space)
    pods = [
        pod
        for pod in objects(machine, "pods", "-n", space)
        if "deletionTimestamp" not in pod["metadata"]
    ]
    assert sorted(one["spec"]["replicas"] for one in sets) == [0, 2]
    new = next(one for one in sets if one["spec"]["replicas"])
    assert all(
        one["metadata"]["ownerReferences"][0]["uid"] == deployment["metadata"]["uid"]
        for one in sets
    )
    assert {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods} == {
        new["metadata"]["uid"]
    }


def test_any_client_can_watch_objects_and_is_told_of_changes(machine: Machine, space: str) -> None:
    config = str(machine.root / "config" / "kubeconfig")
    watch = subprocess.Popen(
        (
            *("nsenter", f"--net=/run/netns/{machine.name}", sys.executable, "-m", "kcore"),
            *("--kubeconfig", config, "get", "configmaps", "-n", space, "-w", "-o", "name"),
        ),
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        time.sleep(2)
        machine.kcore("create", "configmap", "told", "-n", space)
        assert watch.stdout is not None
        lines = iter(watch.stdout.readline, "")
        assert any(line.strip() == "configmap/told" for line in lines)
    finally:
        watch.kill()
        watch.wait()


def test_the_kubelet_registers_its_node_and_keeps_it_up_to_date(machine: Machine) -> None:
    (node,) = objects(machine, "nodes")
    assert node["metadata"]["name"] == machine.name
    assert node["spec"]["podCIDR"].endswith("/24")
    assert int(node["status"]["capacity"]["pods"]) == 110
    (lease,) = objects(machine, "leases", "-n", "kube-node-lease")
    first = lease["spec"]["renewTime"]
    for _ in range(40):
        (lease,) = objects(machine, "leases", "-n", "kube-node-lease")
        if lease["spec"]["renewTime"] != first:
            return
        time.sleep(0.5)
    pytest.fail("the lease was not renewed in 20 s")


def test_the_kubelet_listens_nowhere(machine: Machine) -> None:
    said = machine.run("ss", "-lntpH").stdout.decode()
    rooms = machine.run("pgrep", "-f", f"kcore rooms .*{machine.root}").stdout.decode().split()
    assert rooms
    assert not [line for line in said.splitlines() if any(f"pid={pid}," in line for pid in rooms)]


def test_the_scheduler_binds_an_unbound_pod_to_a_node(machine: Machine, space: str) -> None:
    machine.apply(PAIR, "-n", space)
    machine.kcore("wait", "-n", space, "pod/pair", "--for=condition=PodScheduled", "--timeout=60s")
    (pod,) = objects(machine, "pods", "-n", space)
    assert pod["spec"]["nodeName"] == machine.name
    assert "Successfully assigned" in machine.says("events", "-n", space)


def test_the_smallest_cluster_is_one_node_without_a_taint(machine: Machine) -> None:
    (node,) = objects(machine, "nodes")
    assert "taints" not in node["spec"]
