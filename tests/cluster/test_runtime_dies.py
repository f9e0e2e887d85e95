"""containerd dies under a running cluster: said where people look, and mended by what it says."""

import os
import signal
import time
from pathlib import Path

from tests.machine import Machine


def containerd(machine: Machine) -> int:
    """Its process id."""
    config = str(machine.root / "state" / "containerd")
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if words[0].endswith("containerd") and any(word.startswith(config) for word in words):
            return int(process.name)
    raise AssertionError("no containerd runs")


def ready(machine: Machine) -> tuple[str, str]:
    """The node's condition: status and message."""
    path = '{.status.conditions[?(@.type=="Ready")]'
    words = ("get", "node", machine.name, "-o", f"jsonpath={path}.status}} {path}.message}}")
    status, _, message = machine.says(*words).partition(" ")
    return status, message


def until(machine: Machine, status: str) -> str:
    """Waits for it; the message."""
    for _ in range(120):
        said, message = ready(machine)
        if said == status:
            return message
        time.sleep(0.5)
    raise AssertionError(f"the node says {said}: {message}")


def test_a_dead_containerd_is_said_and_up_again_mends_it(machine: Machine, space: str) -> None:
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: lives}
spec:
  containers: [{name: main, image: kcore.local/busybox:1, command: [sleep, "1000"]}]
"""
    machine.apply(pod, "-n", space)
    machine.kcore("wait", "-n", space, "pod/lives", "--for=condition=Ready", "--timeout=60s")
    before = machine.says("get", "pod", "lives", "-n", space, "-o", "jsonpath={.status}")
    os.kill(containerd(machine), signal.SIGKILL)
    message = until(machine, "False")
    assert "container runtime is down" in message
    assert "kcore up" in message
    machine.up()
    until(machine, "True")
    # Its containers had another parent: nothing was started again.
    machine.kcore("wait", "-n", space, "pod/lives", "--for=condition=Ready", "--timeout=60s")
    after = machine.says("get", "pod", "lives", "-n", space, "-o", "jsonpath={.status}")
    assert '"restartCount":0' in before.replace(" ", "") or "restartCount" not in before
    assert before.count("containerID") == after.count("containerID")
    machine.says("exec", "-n", space, "lives", "--", "true")
