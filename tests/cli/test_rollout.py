"""`kcore rollout`: followed to its end, undone, paused, restarted."""

import asyncio
import json

import pytest

from tests.cli.cluster import Run

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: "nginx:2"}]}
"""


@pytest.fixture(autouse=True)
async def two_revisions(run: Run) -> None:
    await run.apply(WEB)
    _, uid, _ = await run("get deploy web -o jsonpath={.metadata.uid}")
    for number, image in ((1, "nginx:1"), (2, "nginx:2")):
        cause = "kubernetes.io/change-cause: first, " if number == 1 else ""
        await run.apply(
            "apiVersion: apps/v1\nkind: ReplicaSet\n"
            f"metadata:\n  name: web-{number}\n  labels: {{app: web}}\n"
            f"  annotations: {{{cause}deployment.kubernetes.io/revision: '{number}'}}\n"
            "  ownerReferences:\n"
            f"  - {{apiVersion: apps/v1, kind: Deployment, name: web, uid: {uid},"
            " controller: true}\n"
            f"spec:\n  selector: {{matchLabels: {{app: web, pod-template-hash: h{number}}}}}\n"
            "  template:\n"
            f"    metadata: {{labels: {{app: web, pod-template-hash: h{number}}}}}\n"
            f"    spec: {{containers: [{{name: nginx, image: '{image}'}}]}}\n"
        )


async def test_status_follows_to_the_end(run: Run) -> None:
    states = [
        {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1},
        {"observedGeneration": 1, "replicas": 4, "updatedReplicas": 3},
        {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 1},
        {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3},
    ]
    following = asyncio.ensure_future(run("rollout status deploy/web"))
    for state in states:
        await asyncio.sleep(0.05)
        await run.status("Deployment", "web", state)
    waiting = 'Waiting for deployment "web" rollout to finish: '
    assert await following == (
        0,
        'Waiting for deployment "web" spec update to be observed...\n'
        f"{waiting}1 out of 3 new replicas have been updated...\n"
        f"{waiting}1 old replicas are pending termination...\n"
        f"{waiting}1 of 3 updated replicas are available...\n"
        'deployment "web" successfully rolled out\n',
        "",
    )


async def test_status_that_fails_or_is_late(run: Run) -> None:
    code, _, err = await run("rollout status deploy/web --timeout=50ms")
    assert (code, err.startswith("error: timed out: ")) == (3, True)
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    await run.status("Deployment", "web", {"observedGeneration": 1, "conditions": [condition]})
    assert await run("rollout status deploy web") == (
        1,
        "",
        'error: deployment "web" exceeded its progress deadline\n',
    )


async def test_history(run: Run) -> None:
    assert await run("rollout history deploy/web") == (
        0,
        "deployment.apps/web\nREVISION   CHANGE-CAUSE\n1          first\n2          <none>\n",
        "",
    )
    code, out, _ = await run("rollout history deploy/web --revision=1")
    assert code == 0
    assert out.startswith("deployment.apps/web with revision #1\ntemplate:\n")
    assert "nginx:1" in out
    assert "pod-template-hash" not in out
    assert (await run("rollout history deploy/web --revision=7"))[0] == 1


async def test_undo(run: Run) -> None:
    assert await run("rollout undo deploy/web") == (0, "deployment.apps/web rolled back\n", "")
    _, out, _ = await run("get deploy web -o jsonpath={.spec.template}")
    template = json.loads(out)
    assert template["spec"]["containers"][0]["image"] == "nginx:1"
    assert template["metadata"]["labels"] == {"app": "web"}
    assert await run("rollout undo deploy/web --to-revision=1") == (
        0,
        "deployment.apps/web skipped rollback (current template already matches revision 1)\n",
        "",
    )
    code, _, err = await run("rollout undo deploy/web --to-revision=9")
    assert (code, err) == (
        1,
        'error: deployment "web" has no revision 9; there are: 1, 2\n',
    )


async def test_pause_resume_restart(run: Run) -> None:
    assert await run("rollout pause deploy/web") == (0, "deployment.apps/web paused\n", "")
    assert await run("rollout pause deploy/web") == (
        1,
        "",
        'error: deployment "web" is already paused\n',
    )
    for command in ("undo", "restart"):
        code, _, err = await run(f"rollout {command} deploy/web")
        assert code == 1
        assert "`kcore rollout resume deployment.apps/web` first" in err
    assert (await run("rollout resume deploy/web"))[1] == "deployment.apps/web resumed\n"
    assert (await run("rollout restart deploy/web"))[1] == "deployment.apps/web restarted\n"
    _, out, _ = await run("get deploy web -o jsonpath={.spec.template.metadata.annotations}")
    assert json.loads(out) == {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    code, _, err = await run("rollout pause rs/web-1")
    assert (code, "replicasets cannot be paused" in err) == (2, True)
    assert (await run("rollout undo cm/x"))[0] == 2


async def test_several_are_restarted_at_once(run: Run) -> None:
    other = WEB.replace("name: web}", "name: api, labels: {tier: back}}")
    await run.apply(other.replace("app: web", "app: api"))
    assert (await run("rollout restart deploy/web deploy/api"))[1] == (
        "deployment.apps/web restarted\ndeployment.apps/api restarted\n"
    )
    assert (await run("rollout restart deploy -l tier=back"))[1] == (
        "deployment.apps/api restarted\n"
    )
    assert (await run("rollout restart deploy"))[0] == 2
    assert (await run("rollout restart deploy -l tier=none"))[0] == 1
    await run("rollout pause deploy/web")
    code, out, err = await run("rollout restart deploy/web deploy/api")
    assert (code, out) == (1, "deployment.apps/api restarted\n") and "web" in err
