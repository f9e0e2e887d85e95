"""The main line: a Kubernetes Deployment, unchanged, runs in containerd and does what it should."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from kcore.boot import up
from tests.machine import HERE, Machine, make_machine, remove_machine


def deployment(name: str, replicas: int, text: str = "one", extra: str = "") -> str:
    """A Deployment of sleepers; another `text` is another template."""
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  {extra}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kcore.local/busybox:1
        command: [sh, -c, "echo {text}; trap 'exit 0' TERM; while true; do sleep 0.1; done"]
"""


def pods(machine: Machine, space: str, label: str = "") -> list[dict]:
    """Pods of a namespace, as JSON."""
    words = ["get", "pods", "-n", space, "-o", "json"]
    return json.loads(machine.says(*words, *(["-l", label] if label else [])))["items"]


def apply(machine: Machine, space: str, text: str) -> str:
    """Applies and waits for the rollout."""
    said = machine.apply(text, "-n", space)
    name = said.split()[0]
    machine.kcore("rollout", "status", name, "-n", space, "--timeout=90s")
    return said


def test_the_example_runs_and_answers(machine: Machine, space: str) -> None:
    machine.kcore("apply", "-n", space, "-f", str(HERE / "examples" / "web.yaml"))
    machine.kcore("rollout", "status", "deployment/web", "-n", space, "--timeout=90s")
    found = pods(machine, space)
    assert len(found) == 3
    assert {pod["status"]["phase"] for pod in found} == {"Running"}
    for pod in found:
        address = pod["status"]["podIP"]
        page = machine.run("busybox", "wget", "-qO-", f"http://{address}:8080/").stdout.decode()
        assert page == f"hello from {pod['metadata']['name']}\n"
    table = machine.says("get", "pods", "-n", space).splitlines()
    assert table[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert all(line.split()[1:3] == ["1/1", "Running"] for line in table[1:])
    again = machine.says("apply", "-n", space, "-f", str(HERE / "examples" / "web.yaml"))
    assert again == "deployment.apps/web unchanged\nservice/web unchanged\n"


def test_pods_reach_each_other_and_the_node(machine: Machine, space: str) -> None:
    machine.kcore("apply", "-n", space, "-f", str(HERE / "examples" / "web.yaml"))
    machine.kcore("rollout", "status", "deployment/web", "-n", space, "--timeout=90s")
    one, two, *_ = pods(machine, space)
    page = machine.says(
        *("exec", "-n", space, one["metadata"]["name"], "--"),
        *("wget", "-qO-", f"http://{two['status']['podIP']}:8080/"),
    )
    assert page == f"hello from {two['metadata']['name']}\n"
    node = one["status"]["hostIP"]
    machine.kcore("exec", "-n", space, one["metadata"]["name"], "--", "ping", "-c1", "-W5", node)


def test_exec_passes_bytes_and_exit_codes(machine: Machine, space: str) -> None:
    apply(machine, space, deployment("shell", 1))
    (pod,) = pods(machine, space)
    name = pod["metadata"]["name"]
    content = os.urandom(3_000_000)
    echoed = machine.kcore("exec", "-i", "-n", space, name, "--", "cat", input=content)
    assert echoed.stdout == content
    for code in (0, 1, 7, 255):
        done = machine.kcore(
            "exec", "-n", space, name, "--", "sh", "-c", f"exit {code}", check=False
        )
        assert done.returncode == code
    done = machine.kcore("exec", "-n", space, name, "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_logs_follow_until_the_end(machine: Machine, space: str) -> None:
    machine.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: teller}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: kcore.local/busybox:1
    command: [sh, -c, "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done; exit 3"]
""",
        *("-n", space),
    )
    machine.kcore("wait", "-n", space, "pod/teller", "--for=jsonpath={.status.phase}=Running",
                  "--timeout=60s", check=False)  # fmt: skip
    said = machine.says("logs", "-f", "-n", space, "teller")
    assert said == "".join(f"line {number}\n" for number in range(1, 7))
    machine.kcore("wait", "-n", space, "pod/teller", "--for=jsonpath={.status.phase}=Failed",
                  "--timeout=60s")  # fmt: skip
    (pod,) = pods(machine, space)
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert machine.says("logs", "--tail=2", "-n", space, "teller") == "line 5\nline 6\n"


def test_scale_roll_undo_and_pause(machine: Machine, space: str) -> None:
    watched = [*("-n", space)]
    apply(machine, space, deployment("roll", 4))
    machine.kcore("scale", *watched, "deployment/roll", "--replicas=5")
    machine.kcore("rollout", "status", "deployment/roll", *watched, "--timeout=90s")
    assert len(pods(machine, space)) == 5

    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            found = pods(machine, space)
            alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
            ready = [
                pod
                for pod in alive
                if any(
                    c["type"] == "Ready" and c["status"] == "True"
                    for c in pod["status"].get("conditions", [])
                )
            ]
            seen.append((len(alive), len(ready)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        apply(machine, space, deployment("roll", 5, "two"))
    finally:
        stop.set()
        watcher.join()
    # 5 replicas: surge 25 % up is 2, unavailable 25 % down is 1.
    assert max(total for total, _ in seen) <= 7
    assert min(ready for _, ready in seen) >= 4
    assert {p["spec"]["containers"][0]["command"][2][:8] for p in alive_pods(machine, space)} == {
        "echo two"
    }

    machine.kcore("rollout", "undo", "deployment/roll", *watched)
    machine.kcore("rollout", "status", "deployment/roll", *watched, "--timeout=90s")
    assert {p["spec"]["containers"][0]["command"][2][:8] for p in alive_pods(machine, space)} == {
        "echo one"
    }
    history = machine.says("rollout", "history", "deployment/roll", *watched)
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["2", "3"]

    machine.kcore("rollout", "pause", "deployment/roll", *watched)
    machine.apply(deployment("roll", 3, "three"), *watched)
    machine.kcore("wait", *watched, "deployment/roll", "--for=jsonpath={.status.replicas}=3",
                  "--timeout=60s")  # fmt: skip
    assert {p["spec"]["containers"][0]["command"][2][:8] for p in alive_pods(machine, space)} == {
        "echo one"
    }
    machine.kcore("rollout", "resume", "deployment/roll", *watched)
    machine.kcore("rollout", "status", "deployment/roll", *watched, "--timeout=90s")
    assert {p["spec"]["containers"][0]["command"][2][:10] for p in alive_pods(machine, space)} == {
        "echo three"
    }


def alive_pods(machine: Machine, space: str) -> list[dict]:
    """Pods that are not being deleted."""
    return [p for p in pods(machine, space) if "deletionTimestamp" not in p["metadata"]]


def test_a_replica_set_adopts_and_releases(machine: Machine, space: str) -> None:
    apply(machine, space, deployment("own", 2))
    one = pods(machine, space)[0]["metadata"]["name"]
    machine.kcore("label", "-n", space, f"pod/{one}", "app=other", "--overwrite")
    wait_for(lambda: len(pods(machine, space, "app=own")) == 2)
    released = json.loads(machine.says("get", "pod", one, "-n", space, "-o", "json"))
    wait_for(
        lambda: (
            "ownerReferences"
            not in json.loads(machine.says("get", "pod", one, "-n", space, "-o", "json"))[
                "metadata"
            ]
        )
    )
    assert released["metadata"]["labels"]["app"] == "other"
    # Back again: one too many, and one goes.
    machine.kcore("label", "-n", space, f"pod/{one}", "app=own", "--overwrite")
    wait_for(lambda: len(alive_pods(machine, space)) == 2)
    machine.kcore("delete", "-n", space, "deployment/own")
    wait_for(lambda: not pods(machine, space))


def test_config_maps_secrets_and_env_reach_containers(machine: Machine, space: str) -> None:
    machine.apply(
        """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green, size: "3"}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {password: s3cret}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  volumes:
  - name: settings
    configMap: {name: settings}
  - name: hidden
    secret: {secretName: hidden, defaultMode: 0400}
  - name: scratch
    emptyDir: {}
  containers:
  - name: main
    image: kcore.local/busybox:1
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: BOTH, value: "$(COLOUR)-$$(COLOUR)"}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: hidden, mountPath: /hidden}
    - {name: scratch, mountPath: /scratch}
    command: [sh, -c]
    args:
    - cat /settings/size /hidden/password; stat -Lc %a /hidden/password; echo $BOTH;
      touch /scratch/x && stat -c %a /scratch
""",
        *("-n", space),
    )
    machine.kcore("wait", "-n", space, "pod/reader", "--for=jsonpath={.status.phase}=Succeeded",
                  "--timeout=60s")  # fmt: skip
    said = machine.says("logs", "-n", space, "reader")
    assert said == "3s3cret400\ngreen-$(COLOUR)\n777\n"


def test_two_containers_share_a_pod(machine: Machine, space: str) -> None:
    machine.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: kcore.local/busybox:1
    command: [sh, -c, "mkdir /srv; echo shared > /srv/index.html; exec httpd -f -p 80 -h /srv"]
  - name: side
    image: kcore.local/busybox:1
    command: [sleep, "1000"]
""",
        *("-n", space),
    )
    machine.kcore("wait", "-n", space, "pod/pair", "--for=condition=Ready", "--timeout=60s")
    said = machine.says(
        *("exec", "-n", space, "pair", "-c", "side", "--", "wget", "-qO-", "http://127.0.0.1/")
    )
    assert said == "shared\n"


def test_a_crashing_container_backs_off(machine: Machine, space: str) -> None:
    machine.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: crasher}
spec:
  containers:
  - name: main
    image: kcore.local/busybox:1
    command: [sh, -c, "echo once more; exit 1"]
""",
        *("-n", space),
    )
    wait_for(
        lambda: (
            (status := main_status(machine, space)).get("restartCount", 0) >= 1
            and status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        )
    )
    status = main_status(machine, space)
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert machine.says("logs", "-n", space, "crasher", "--previous") == "once more\n"
    assert "BackOff" in machine.says("events", "-n", space)


def main_status(machine: Machine, space: str) -> dict:
    """Status of the one container of the one pod."""
    statuses = pods(machine, space)[0]["status"].get("containerStatuses", [{"state": {}}])
    return statuses[0]


def wait_for(condition, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not so in time"
        time.sleep(0.2)


def test_a_static_pod_runs_and_cannot_be_deleted(machine: Machine) -> None:
    manifest = machine.root / "config" / "manifests" / "fixed.yaml"
    manifest.write_text("""
apiVersion: v1
kind: Pod
metadata: {name: fixed, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: kcore.local/busybox:1
    command: [sleep, "100000"]
""")
    name = f"fixed-{machine.name}"
    try:
        wait_for(lambda: machine.kcore("get", "pod", name, check=False).returncode == 0)
        machine.kcore("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        before = machine.containers()
        machine.kcore("delete", "pod", name, "--wait=false")
        wait_for(lambda: machine.kcore("get", "pod", name, check=False).returncode == 0)
        assert set(machine.containers()) >= set(before)
    finally:
        manifest.unlink()
    wait_for(lambda: machine.kcore("get", "pod", name, check=False).returncode != 0)


def test_killed_and_started_again_nothing_is_lost(machine: Machine, space: str) -> None:
    apply(machine, space, deployment("stay", 3))
    before = machine.containers()
    written = 0
    for turn in range(3):
        pid = int((machine.root / "run" / "kcore.pid").read_text())
        done = threading.Event()

        def kill(pid: int = pid, turn: int = turn, done: threading.Event = done) -> None:
            time.sleep(0.3 + 0.4 * turn)
            os.kill(pid, signal.SIGKILL)
            done.set()

        killer = threading.Thread(target=kill)
        killer.start()
        while not done.is_set():
            made = machine.kcore("create", "configmap", f"note-{written}", "-n", space, check=False)
            if made.returncode:
                break
            written += 1
        killer.join()
        machine.up()
    names = machine.says("get", "configmaps", "-n", space, "-o", "name").split()
    assert {f"configmap/note-{number}" for number in range(written)} <= set(names)
    machine.kcore("rollout", "status", "deployment/stay", "-n", space, "--timeout=60s")
    assert set(machine.containers()) >= set(before)
    assert {p["status"]["containerStatuses"][0]["restartCount"] for p in pods(machine, space)} == {
        0
    }


@pytest.mark.skipif(
    not Path(sys.executable).with_name("grpcurl").exists(), reason="grpcurl is not installed"
)
def test_the_readme_tour_of_grpcurl(machine: Machine) -> None:
    """Every grpcurl command of the README, run as it stands there."""
    readme = (HERE / "README.md").read_text()
    commands = [
        line for line in readme.replace("\\\n", "").splitlines() if line.startswith("grpcurl ")
    ]
    assert len(commands) >= 4
    for command in commands:
        here = command.replace("/run/kcore/kcore.sock", f"{machine.root}/run/kcore.sock")
        tool = Path(sys.executable).with_name("grpcurl")
        done = machine.run("bash", "-c", here.replace("grpcurl", str(tool), 1))
        assert done.stdout, command


def test_down_leaves_nothing() -> None:
    """A machine of its own, brought up, used, and taken down."""
    before = set(network_namespaces())
    machine = make_machine(f"kcd{os.getpid()}")
    try:
        machine.up("-f", str(HERE / "examples" / "web.yaml"))
        # Each pod is a sandbox and a container: the example's three, and CoreDNS where it is built.
        assert len(machine.containers()) == (8 if up.coredns() is not None else 6)
        machine.down()
        assert not list(machine.root.iterdir())
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) == os.getpid():
                continue
            try:
                words = (process / "cmdline").read_bytes().decode("utf-8", "replace")
                mounts = (process / "mountinfo").read_text()
            except OSError:
                continue
            assert str(machine.root) not in words, words
            assert str(machine.root) not in mounts
        assert set(network_namespaces()) - before == {machine.name}
        links = machine.run("ip", "-o", "link").stdout.decode().splitlines()
        names = {line.split(":")[1].split("@")[0].strip() for line in links}
        assert names == {"lo", "uplink", "far"}
        assert "kcore" not in machine.run("nft", "list", "ruleset").stdout.decode()
    finally:
        remove_machine(machine)


def network_namespaces() -> list[str]:
    """Names of those that there are."""
    return sorted(path.name for path in Path("/run/netns").iterdir())
