"""cordon, uncordon, taint, drain, and how nodes are shown."""

import asyncio
import json
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb

from tests.cli.cluster import Run

NODE = """\
apiVersion: v1
kind: Node
metadata: {name: %s, labels: {kubernetes.io/hostname: %s}}
"""
POOL = """\
apiVersion: kcore.dev/v1
kind: Pool
metadata: {name: pod-cidrs}
spec: {cidr: 10.244.0.0/16, blockSize: 24}
"""
POD = "kcore.core.v1.Pod"


async def nodes(run: Run, *names: str) -> None:
    await run.apply(POOL)
    for name in names:
        await run.apply(NODE % (name, name))


async def pod(run: Run, name: str, on: str = "n1", spec: str = "", meta: str = "") -> None:
    await run.apply(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}, {meta}}}\n"
        f"spec: {{containers: [{{name: a, image: b}}], nodeName: {on}, {spec}}}\n"
    )
    await run.status(
        "Pod", name, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    )


async def owned(run: Run, kind: str, name: str) -> str:
    """Metadata of a pod that such an object controls."""
    template = "{metadata: {labels: {app: x}}, spec: {containers: [{name: a, image: b}]}}"
    await run.apply(
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"
        f"spec: {{selector: {{matchLabels: {{app: x}}}}, template: {template}}}\n"
    )
    uid = (await run(f"get {kind}.apps {name} -o jsonpath={{.metadata.uid}}"))[1]
    return (
        f"ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {name}, uid: {uid},"
        " controller: true}]"
    )


async def budget(run: Run, app: str, allowed: int) -> None:
    await run.apply(
        f"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: {app}}}\n"
        f"spec: {{minAvailable: 1, selector: {{matchLabels: {{app: {app}}}}}}}\n"
    )
    await run.status(
        "PodDisruptionBudget",
        app,
        {"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 1,
         "currentHealthy": 1, "expectedPods": 1},
    )  # fmt: skip


async def kubelet(run: Run, seconds: float = 20.0) -> None:
    """Pods that are to go are gone."""
    for _ in range(int(seconds / 0.01)):
        found = json.loads((await run("get pods -A -o json"))[1])
        for each in found["items"]:
            if each["metadata"].get("deletionTimestamp"):
                ref = pb.Ref(kind=POD, namespace=each["metadata"]["namespace"])
                ref.name = each["metadata"]["name"]
                await run.commit(pb.Operation(ref=ref, delete=pb.Delete(grace_seconds=0)))
        await asyncio.sleep(0.01)


async def drained(run: Run, line: str) -> tuple[int, str, str]:
    """`drain`, while the kubelet is at work."""
    work = asyncio.create_task(kubelet(run))
    try:
        return await run(line)
    finally:
        work.cancel()


async def test_cordon_and_uncordon_say_what_was_and_is(run: Run) -> None:
    await nodes(run, "n1", "n2")
    assert await run("cordon n1") == (0, "node/n1 cordoned\n", "")
    assert await run("cordon node/n1 n2") == (
        0,
        "node/n1 already cordoned\nnode/n2 cordoned\n",
        "",
    )
    assert (await run("get node n1 -o jsonpath={.spec.unschedulable}"))[1] == "true"
    assert await run("uncordon n1 --dry-run=server") == (
        0, "node/n1 uncordoned (server dry run)\n", ""
    )  # fmt: skip
    assert await run("uncordon n1") == (0, "node/n1 uncordoned\n", "")
    assert await run("uncordon n1") == (0, "node/n1 already uncordoned\n", "")
    assert (await run("get node n1 -o jsonpath={.spec.unschedulable}"))[1] == ""
    assert await run("uncordon -l kubernetes.io/hostname=n2") == (0, "node/n2 uncordoned\n", "")
    code, _, err = await run("cordon n3")
    assert code == 1 and err.startswith('error: node "n3" not found')
    assert (await run("cordon"))[0] == 2


async def test_nodes_are_shown_as_users_know_them(run: Run) -> None:
    await nodes(run, "n1", "n2", "n3")
    version = {"kubeletVersion": "v1.2.3"}
    for name, value in (("n1", "True"), ("n2", "Unknown")):
        condition = {"type": "Ready", "status": value}
        await run.status("Node", name, {"conditions": [condition], "nodeInfo": version})
    await run("label node n1 node-role.kubernetes.io/control-plane=")
    await run("cordon n1 n2")
    _, out, _ = await run("get nodes")
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
        ["n1", "Ready,SchedulingDisabled", "control-plane", "0s", "v1.2.3"],
        ["n2", "NotReady,SchedulingDisabled", "<none>", "0s", "v1.2.3"],
        ["n3", "Unknown", "<none>", "0s", "<none>"],
    ]


async def taints(run: Run, name: str) -> list[dict[str, Any]]:
    found: dict[str, Any] = json.loads((await run(f"get node {name} -o json"))[1])
    taints: list[dict[str, Any]] = found.get("spec", {}).get("taints", [])
    return taints


async def test_taints_are_set_replaced_and_removed(run: Run) -> None:
    await nodes(run, "n1", "n2")
    line = "taint nodes n1 dedicated=db:NoSchedule slow:PreferNoSchedule"
    assert await run(line) == (0, "node/n1 tainted\n", "")
    assert await taints(run, "n1") == [
        {"key": "dedicated", "value": "db", "effect": "NoSchedule"},
        {"key": "slow", "effect": "PreferNoSchedule"},
    ]
    assert await run("taint nodes n1 dedicated=web:NoSchedule") == (
        1,
        "",
        "error: node n1 already has dedicated taint(s) with same effect(s)"
        " and --overwrite is false\n",
    )
    assert (await run("taint node n1 dedicated=web:NoSchedule --overwrite"))[0] == 0
    assert (await run("taint node/n1 dedicated=web:NoExecute"))[0] == 0
    assert [each["value"] for each in await taints(run, "n1") if "value" in each] == ["web"] * 2
    assert await run("taint no n1 slow- dedicated=x:NoSchedule --overwrite") == (
        0,
        "node/n1 modified\n",
        "",
    )
    assert await run("taint nodes --all dedicated:NoExecute- --dry-run=client") == (
        1,
        "node/n1 untainted (dry run)\n",
        'error: taint "dedicated:NoExecute" not found on node n2\n',
    )
    assert await run("taint nodes n1 dedicated-") == (0, "node/n1 untainted\n", "")
    assert await taints(run, "n1") == []


@pytest.mark.parametrize(
    "words, said",
    [
        ("nodes n1 a=b", '"a=b" has no effect: a=b:NoSchedule'),
        ("nodes n1 a=b:NoExecut", 'not "NoExecut", did you mean "NoExecute"?'),
        ("nodes n1 a:NoExecute a:NoExecute-", "a:NoExecute is both set and removed"),
        ("nodes n1", "say which taints"),
        ("pods p a:NoExecute", "only nodes have taints"),
        ("nodes a:NoExecute", "name a node, or select some by -l"),
    ],
)
async def test_what_is_no_taint_is_refused(run: Run, words: str, said: str) -> None:
    await nodes(run, "n1")
    code, out, err = await run(f"taint {words}")
    assert (code, out) == (2, "") and said in err


async def test_drain_leaves_what_comes_back_by_itself_and_sends_the_rest_away(run: Run) -> None:
    await nodes(run, "n1", "n2")
    await pod(run, "web-1", meta=await owned(run, "ReplicaSet", "web"))
    await pod(run, "agent-1", meta=await owned(run, "DaemonSet", "agent"))
    await pod(run, "static", meta="annotations: {kubernetes.io/config.mirror: x}")
    await pod(run, "elsewhere", on="n2")
    assert await drained(run, "drain n1 --ignore-daemonsets") == (
        0,
        "node/n1 cordoned\nevicting pod default/web-1\npod/web-1 evicted\nnode/n1 drained\n",
        "Warning: ignoring DaemonSet-managed Pods: default/agent-1\n",
    )
    _, out, _ = await run("get pods -o name")
    assert out.split() == ["pod/agent-1", "pod/elsewhere", "pod/static"]


async def test_drain_touches_nothing_if_one_pod_may_not_go(run: Run) -> None:
    await nodes(run, "n1")
    await pod(run, "web-1", meta=await owned(run, "ReplicaSet", "web"))
    await pod(run, "agent-1", meta=await owned(run, "DaemonSet", "agent"))
    await pod(run, "bare", spec="volumes: [{name: scratch, emptyDir: {}}]")
    code, out, err = await run("drain n1")
    assert (code, out) == (1, "node/n1 cordoned\n")
    daemons = (
        "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): default/agent-1"
    )
    local = "cannot delete Pods with local storage (use --delete-emptydir-data to override)"
    bare = "cannot delete Pods that declare no controller (use --force to override)"
    listed = [daemons, f"{local}: default/bare", f"{bare}: default/bare"]
    assert err == (
        f'error: unable to drain node "n1" due to error: [{", ".join(listed)}]\n'
        "There are pending nodes to be drained:\n n1\n" + "\n".join(listed) + "\n"
    )
    assert len((await run("get pods -o name"))[1].split()) == 3
    flags = "--ignore-daemonsets --delete-emptydir-data --force"
    code, out, err = await run(f"drain n1 {flags} --dry-run=client")
    assert (code, out) == (
        0,
        "node/n1 already cordoned (dry run)\nevicting pod default/bare (dry run)\n"
        "evicting pod default/web-1 (dry run)\nnode/n1 drained (dry run)\n",
    )
    code, out, err = await drained(run, f"drain n1 {flags} --pod-selector=app=bare")
    assert (code, err) == (
        0,
        "Warning: deleting Pods with local storage: default/bare\n"
        "Warning: deleting Pods that declare no controller: default/bare\n",
    )
    assert (await run("get pods -o name"))[1].split() == ["pod/agent-1", "pod/web-1"]


async def test_drain_waits_for_a_budget(run: Run) -> None:
    await nodes(run, "n1")
    await pod(run, "db", meta=await owned(run, "ReplicaSet", "db"))
    await budget(run, "db", 0)

    async def later() -> None:
        await asyncio.sleep(0.1)
        await run.status(
            "PodDisruptionBudget",
            "db",
            {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 1,
             "currentHealthy": 2, "expectedPods": 2},
        )  # fmt: skip

    (code, out, err), _ = await asyncio.gather(drained(run, "drain n1"), later())
    assert code == 0
    assert out.endswith("evicting pod default/db\npod/db evicted\nnode/n1 drained\n")
    assert err.startswith(
        'error when evicting pods/"db" -n "default" (will retry after 5s): '
        "Cannot evict pod as it would violate the pod's disruption budget"
    )


async def test_drain_ends_in_time_and_names_who_is_still_there(run: Run) -> None:
    await nodes(run, "n1")
    await pod(run, "db", meta=await owned(run, "ReplicaSet", "db"))
    await budget(run, "db", 0)
    code, _, err = await run("drain n1 --timeout=200ms")
    assert code == 3
    assert "still there: default/db: global timeout reached: 0.2s" in err
    # Past the budget.
    code, out, _ = await drained(run, "drain n1 --disable-eviction --timeout=20s")
    assert (code, out) == (
        0,
        "node/n1 already cordoned\ndeleting pod default/db\npod/db deleted\nnode/n1 drained\n",
    )
