"""Pods from nothing to Ready, beside the same calls made to the runtime with nothing above.

A whole kcore in a network namespace of its own (the tests' machine), its own containerd.
"""

import asyncio
import shutil
import time
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import deployment_pb2
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.runtime.v1 import api_pb2 as cri_pb

from bench.api import Client, cpu_seconds, resident_bytes
from bench.figure import Figure
from kcore.boot import images
from kcore.kubelet import container, cri
from tests.machine import Machine, make_machine, remove_machine

DEPLOYMENT = deployment_pb2.Deployment.DESCRIPTOR.full_name
POD = pod_pb2.Pod.DESCRIPTOR.full_name
AT_ONCE = 8
ROUNDS = 3


async def figures(root: Path) -> list[Figure]:
    """Starts of 1, 10 and 30 pods, and what kcore takes at rest."""
    machine = make_machine("kcbench")
    try:
        machine.up()
        client = Client(machine.root / "run" / "kcore.sock")
        found = [await _start(client, machine, count) for count in (1, 10, 30)]
        return [*found, *await _idle(machine)]
    finally:
        remove_machine(machine)
        shutil.rmtree(root, ignore_errors=True)


def _deployment(name: str, replicas: int) -> deployment_pb2.Deployment:
    made = deployment_pb2.Deployment()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.replicas = replicas
    made.spec.selector.match_labels["app"] = name
    made.spec.template.metadata.labels["app"] = name
    made.spec.template.spec.termination_grace_period_seconds = 0
    made.spec.template.spec.containers.add(
        name="main", image=images.BUSYBOX, command=["sleep", "100000"]
    )
    return made


async def _start(client: Client, machine: Machine, count: int) -> Figure:
    spent, bare = [], []
    for turn in range(ROUNDS):
        spent.append(await _by_kcore(client, f"b{count}-{turn}", count))
        bare.append(await _by_hand(machine, count))
    plural = "s" if count > 1 else ""
    return Figure(
        f"{count} pod{plural} from create to Ready",
        sorted(spent)[ROUNDS // 2],
        "s",
        "bare CRI calls, 8 at once",
        sorted(bare)[ROUNDS // 2],
        more_is_better=False,
    )


async def _by_kcore(client: Client, name: str, count: int) -> float:
    ref = pb.Ref(kind=DEPLOYMENT, namespace="default", name=name)
    body = _deployment(name, count).SerializeToString()
    selection = pb.Selection(kind=POD, namespace="default", labels=f"app={name}")
    begin = time.perf_counter()
    create = pb.Transaction(operations=[pb.Operation(ref=ref, create=body)])
    await client.commit(pb.CommitRequest(transactions=[create]))
    ready: set[str] = set()
    watch = client.watch(pb.WatchRequest(selections=[selection], progress_ms=50))
    async for response in watch:
        for event in response.events:
            pod = pod_pb2.Pod.FromString(event.object)
            if any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions):
                ready.add(pod.metadata.name)
        if len(ready) == count:
            break
    spent = time.perf_counter() - begin
    watch.cancel()
    remove = pb.Transaction(operations=[pb.Operation(ref=ref, delete=pb.Delete())])
    await client.commit(pb.CommitRequest(transactions=[remove]))
    while (await client.list(pb.ListRequest(selection=selection))).items:
        await asyncio.sleep(0.05)
    return spent


async def _by_hand(machine: Machine, count: int) -> float:
    """The calls that the kubelet makes, and no more; the pods get the same network."""
    socket = machine.root / "run" / "containerd" / "containerd.sock"
    logs = machine.root / "bare"
    together = asyncio.Semaphore(AT_ONCE)
    sandboxes: list[str] = []

    async def one(runtime: cri.Cri, number: int) -> None:
        pod = pod_pb2.Pod()
        pod.metadata.name, pod.metadata.namespace = f"bare-{number}", "bare"
        pod.metadata.uid = f"bare-{number}-{time.monotonic_ns()}"
        spec = pod.spec.containers.add(
            name="main", image=images.BUSYBOX, command=["sleep", "100000"]
        )
        box = container.sandbox(pod, 0, logs, cri_pb.DNSConfig())
        # Not known as a pod of anybody: the kubelet must leave it alone.
        box.labels.clear()
        config = cri_pb.ContainerConfig(
            metadata=cri_pb.ContainerMetadata(name="main"),
            image=cri_pb.ImageSpec(image=images.BUSYBOX),
            command=list(spec.command),
            log_path="main.log",
            linux=cri_pb.LinuxContainerConfig(
                security_context=container.security(pod, spec, cri_pb.Image())
            ),
        )
        (logs / f"bare_bare-{number}_{pod.metadata.uid}").mkdir(parents=True)
        async with together:
            sandbox = await runtime.run_pod_sandbox(box)
            sandboxes.append(sandbox)
            made = await runtime.create_container(sandbox, config, box)
            await runtime.start_container(made)

    async with cri.Cri(f"unix://{socket}") as runtime:
        begin = time.perf_counter()
        await asyncio.gather(*(one(runtime, number) for number in range(count)))
        spent = time.perf_counter() - begin
        for sandbox in sandboxes:
            await runtime.stop_pod_sandbox(sandbox)
            await runtime.remove_pod_sandbox(sandbox)
    return spent


async def _idle(machine: Machine) -> list[Figure]:
    """All processes of kcore, the runtime not counted, with nothing to do."""
    root = str(machine.root)
    pids = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"--root\0{root}" in path.read_text(errors="replace") and "kcore" in path.read_text()
    ]
    await asyncio.sleep(5)
    before = sum(cpu_seconds(pid) for pid in pids)
    await asyncio.sleep(20)
    spent = (sum(cpu_seconds(pid) for pid in pids) - before) / 20
    memory = sum(resident_bytes(pid) for pid in pids) / 2**20
    return [
        Figure(
            "whole kcore at rest: processor",
            spent * 100,
            "% of a core",
            "kube-apiserver's code alone, published",
            1.9,
            more_is_better=False,
        ),
        Figure(
            f"whole kcore at rest: memory, {len(pids)} processes",
            memory,
            "MiB",
            "k3s server in users' reports, published",
            500.0,
            more_is_better=False,
        ),
    ]
