"""Probes and lifecycle hooks on real containers: BEHAVIOUR 14, 15, 16."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.core.v1 import container_pb2

from tests.cluster.test_pods import (  # noqa: F401 - a fixture
    POLITE,
    Pod,
    container,
    house,
    is_over,
    machine,
    message,
    pod,
    until,
)
from tests.kubelet.house import is_ready

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

SERVE = "mkdir /www && httpd -p 8080 -h /www && echo $$ > /www/live"


def probe(one: container_pb2.Container, kind: str, **numbers: int) -> Any:
    """A probe that is asked every second, and believed at once."""
    made = getattr(one, f"{kind}_probe")
    made.period_seconds, made.failure_threshold = 1, 1
    for field, number in numbers.items():
        setattr(made, field, number)
    return made.handler


async def test_probes(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        web = pod("web", f"{SERVE}; sleep 1; touch /www/ready; {POLITE}")
        first = web.spec.containers[0]
        first.ports.add(name="web", container_port=8080)
        ready = probe(first, "readiness").http_get
        ready.path, ready.port.type, ready.port.str_val = "/ready", 1, "web"
        live = probe(first, "liveness", failure_threshold=5).http_get
        live.path, live.port.int_val = "/live", 8080

        # Its server comes late: until then nothing else is asked.
        late = pod("late", f"sleep 1.5; {SERVE}; {POLITE}")
        first = late.spec.containers[0]
        probe(first, "startup", failure_threshold=30).tcp_socket.port.int_val = 8080
        probe(first, "liveness").tcp_socket.port.int_val = 8080

        # It falls ill in its first life only.
        sick = pod("sick", f"test -e /v/x || (touch /v/x; sleep 1; touch /sick) & {POLITE}")
        first = sick.spec.containers[0]
        sick.spec.volumes.add(name="v").volume_source.empty_dir.SetInParent()
        first.volume_mounts.add(name="v", mount_path="/v")
        command = "test ! -e /sick || { echo so ill; exit 1; }"
        probe(first, "liveness").exec.command.extend(["sh", "-c", command])

        # It answers too late.
        slow = pod("slow", POLITE)
        probe(slow.spec.containers[0], "readiness").exec.command.extend(["sleep", "33"])

        # The container waits for its sidecar's startup.
        beside = pod("beside", f"test -e /v/up || exit 3; {POLITE}")
        beside.spec.volumes.add(name="v").volume_source.empty_dir.SetInParent()
        sidecar = container(
            beside.spec.init_containers.add(), "s", f"sleep 1; touch /v/up; {POLITE}"
        )
        sidecar.restart_policy = "Always"
        handler = probe(sidecar, "startup", failure_threshold=30)
        handler.exec.command.extend(["test", "-e", "/v/up"])
        for one in (sidecar, beside.spec.containers[0]):
            one.volume_mounts.add(name="v", mount_path="/v")

        for one in (web, late, sick, slow, beside):
            await here.create(one)
        found = await until(here, "web", lambda pod: pod.status.phase == "Running")
        assert found.status.container_statuses[0].started and not is_ready(found)
        assert restarts(await until(here, "web", is_ready)) == 0
        assert restarts(await until(here, "late", is_ready)) == 0
        found = await until(here, "beside", is_ready)
        assert (
            restarts(found) == 0 and found.status.container_statuses[0].last_state.ByteSize() == 0
        )
        found = await until(here, "sick", lambda pod: restarts(pod) == 1 and is_ready(pod))
        assert found.status.container_statuses[0].last_state.terminated.exit_code == 143
        found = await until(here, "slow", lambda pod: pod.status.phase == "Running")
        assert not is_ready(found)
        told = {(reason, text) for reason, text, _ in await here.events()}
        assert told >= {
            ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404"),
            ("Unhealthy", "Liveness probe failed: so ill"),
            ("Unhealthy", 'Readiness probe failed: command "sleep 33" took longer than 1 s'),
            ("Killing", "Container c0 failed liveness probe, will be restarted"),
        }
        dialed = [text for reason, text in told if text.startswith("Startup probe failed: dial ")]
        assert dialed and all(text.endswith(":8080: connection refused") for text in dialed)


async def test_hooks(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        told = (
            "trap 'cat /bye > /dev/termination-log; exit 143' TERM; while true; do sleep 0.05; done"
        )
        polite = pod("polite", f"{SERVE}; {told}")
        polite.spec.termination_grace_period_seconds = 10
        cycle = polite.spec.containers[0].lifecycle
        # The server may not be there yet; a hook asks once.
        cycle.post_start.exec.command.extend(
            ["sh", "-c", "until wget -qO- localhost:8080/live; do sleep 0.1; done; echo hi > /hi"]
        )
        cycle.pre_stop.exec.command.extend(["sh", "-c", "sleep 1; cat /hi > /bye"])

        failing = pod("failing", POLITE, policy="Never")
        failing.spec.containers[0].lifecycle.post_start.exec.command.extend(
            ["sh", "-c", "echo not today; exit 7"]
        )

        late = pod("late", "trap '' TERM; while true; do sleep 0.05; done")
        late.spec.containers[0].lifecycle.pre_stop.exec.command.extend(["sleep", "77"])

        for one in (polite, failing, late):
            await here.create(one)
        for name in ("polite", "late"):
            await until(here, name, is_ready)
        ended: dict[str, Pod] = {}
        for name in ("polite", "late"):
            last = here.world.tasks.start(here.last_seen(name))
            await here.delete(name)
            ended[name] = await last
        assert message(ended["polite"]) == "hi\n"
        assert code(ended["polite"]) == 143
        assert code(ended["late"]) == 137
        found = await until(here, "failing", is_over)
        assert found.status.phase == "Failed" and code(found) == 143
        said = {(reason, text) for reason, text, _ in await here.events()}
        assert said >= {
            ("FailedPostStartHook", "PostStartHook failed: not today"),
            ("Killing", "Container c0 failed its postStart hook"),
            ("FailedPreStopHook", "PreStopHook failed: it was not done within 2 s"),
        }


def restarts(one: Pod) -> int:
    """How often its containers have started again."""
    every = (*one.status.init_container_statuses, *one.status.container_statuses)
    return sum(each.restart_count for each in every)


def code(one: Pod) -> int:
    """How its container ended."""
    return int(one.status.container_statuses[0].state.terminated.exit_code)
