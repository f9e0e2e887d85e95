"""create, delete, label, annotate, scale, wait: what they say and what they do."""

import asyncio
import base64
import json
from pathlib import Path

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.apiserver.session import Session
from kcore.wire.errors import ApiError, Reason
from tests.cli.cluster import Run

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: "nginx:1.27"}]}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: web}}
spec: {containers: [{name: nginx, image: "nginx:1.27"}], nodeName: n1}
"""


async def test_generators(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    (tmp_path / "b.bin").write_bytes(b"\xff\x00")
    (tmp_path / "env").write_text("# words\nA=1\n\nB=x=y\n")
    assert await run(
        f"create configmap c --from-literal=k=v=w --from-file={tmp_path / 'a.txt'}"
        f" --from-file=bin={tmp_path / 'b.bin'} --from-env-file={tmp_path / 'env'}"
    ) == (0, "configmap/c created\n", "")
    _, out, _ = await run("get cm c -o json")
    made = json.loads(out)
    assert made["data"] == {"A": "1", "B": "x=y", "a.txt": "hello\n", "k": "v=w"}
    assert made["binaryData"] == {"bin": "/wA="}
    assert await run("create secret generic s --from-literal=p=w") == (0, "secret/s created\n", "")
    assert (await run("get secret s -o jsonpath={.data.p}"))[1] == "dw=="
    assert await run("create namespace shop") == (0, "namespace/shop created\n", "")
    assert await run("create serviceaccount bot -n shop") == (0, "serviceaccount/bot created\n", "")
    assert await run("create deployment d --image=a/nginx:1 -r 2 --port=80 -- run -x") == (
        0,
        "deployment.apps/d created\n",
        "",
    )
    _, out, _ = await run("get deploy d -o jsonpath={.spec.template.spec.containers[0].command}")
    assert out == '["run","-x"]'
    code, out, _ = await run("create deployment e --image=nginx --dry-run=client -o yaml")
    assert code == 0
    assert "  - image: nginx\n" in out or "- name: nginx\n        image: nginx\n" in out
    assert (await run("get deploy e"))[0] == 1
    assert await run("create namespace shop") == (
        1,
        "",
        'error: namespaces "shop" already exists\n',
    )


async def test_delete_says_and_waits(run: Run) -> None:
    await run.apply(WEB)
    assert await run("delete deploy web") == (0, 'deployment.apps "web" deleted\n', "")
    assert await run("delete deploy web") == (
        1,
        "",
        'error: deployment.apps "web" not found in namespace "default"\n',
    )
    assert await run("delete deploy web --ignore-not-found") == (0, "", "")
    await run.apply(WEB)
    assert await run("delete -f -", stdin=WEB.encode()) == (
        0,
        'deployment.apps "web" deleted\n',
        "",
    )


async def test_delete_waits_for_a_kubelet(run: Run) -> None:
    await run.apply(POD % "p")
    code, out, err = await run("delete pod p --timeout=50ms")
    assert (code, out) == (3, 'pod "p" deleted\n')
    assert err == "error: timed out waiting for the deletion to end\n"
    deleting = asyncio.ensure_future(run("delete pod p --now"))
    await asyncio.sleep(0.05)
    assert not deleting.done()
    ref = pb.Ref(kind="kcore.core.v1.Pod", namespace="default", name="p")
    await run.commit(pb.Operation(ref=ref, delete=pb.Delete(grace_seconds=0)))
    assert await deleting == (0, 'pod "p" deleted\n', "")


async def test_delete_by_force_and_selection(run: Run) -> None:
    for name in ("a", "b", "c"):
        await run.apply(POD % name)
    await run("label pod c app=other --overwrite")
    code, out, err = await run("delete pods -l app=web --force")
    assert (code, out) == (0, 'pod "a" force deleted\npod "b" force deleted\n')
    assert err.startswith("Warning: immediate deletion")
    assert (await run("delete pods --all --no-wait"))[1] == 'pod "c" deleted\n'
    assert await run("delete cm --all") == (0, "", "No resources found.\n")
    assert (await run("delete deploy web --dry-run=client"))[1] == (
        'deployment.apps "web" deleted (dry run)\n'
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("delete pods", "say which: names, a selector, or --all"),
        ("delete pod web --all", "a name goes neither"),
        ("delete pod web --grace-period=0", "also takes --force"),
        ("delete pod web --force --grace-period=5", "--force means a grace period of 0"),
        ("label pod web", "say what: key=value to set, key- to remove"),
        ("label pod web =x", "has no key"),
        ("label pod web a=1 a-", "is given twice"),
        ("scale deploy --replicas=1", "say which of the deployments"),
        ("scale cm/x --replicas=1", "not found"),
        ("wait pod/web --for=nothing", "--for takes"),
        ("wait pods --for=delete", "say which"),
        ("create configmap c --from-literal=x", "is not of the form key=value"),
        ("create configmap c --from-literal=x=1 --from-literal=x=2", "is given twice"),
        ("create configmap c --from-file=/nothing/there", "no such file or directory"),
        ("create -f x configmap c", "don't go together"),
        ("apply", "say what with -f"),
    ],
)
async def test_wrong_usage(run: Run, line: str, said: str) -> None:
    code, out, err = await run(line)
    assert (code, out) == (1 if said == "not found" else 2, "")
    assert said in err


async def test_labels(run: Run) -> None:
    await run.apply(POD % "p")
    await run.apply(POD % "q")
    assert await run("label pod p tier=front app.kubernetes.io/part-of=shop") == (
        0,
        "pod/p labeled\n",
        "",
    )
    _, out, _ = await run("get pod p -o jsonpath={.metadata.labels}")
    assert json.loads(out) == {"app": "web", "app.kubernetes.io/part-of": "shop", "tier": "front"}
    assert await run("label pod p tier=front") == (0, "pod/p not labeled\n", "")
    assert await run("label pod p tier=back") == (
        1,
        "",
        'error: pod/p: "tier" is "front"; --overwrite replaces it\n',
    )
    assert (await run("label pod p tier=back --overwrite"))[1] == "pod/p labeled\n"
    assert (await run("label pod p tier- app.kubernetes.io/part-of-"))[1] == "pod/p unlabeled\n"
    assert (await run("label pods --all x=1"))[1] == "pod/p labeled\npod/q labeled\n"
    assert (await run("label pods -l x=1 x- --dry-run=server"))[1] == (
        "pod/p unlabeled (server dry run)\npod/q unlabeled (server dry run)\n"
    )
    assert (await run("annotate pod p note='some words: yes'"))[1] == "pod/p annotated\n"
    assert (await run("get pod p -o jsonpath={.metadata.annotations.note}"))[1] == (
        "some words: yes"
    )
    code, _, err = await run("label pod p a=-bad-")
    assert code == 1
    assert "metadata.labels" in err


async def test_scale(run: Run) -> None:
    await run.apply(WEB)
    assert await run("scale deploy web --replicas=3") == (0, "deployment.apps/web scaled\n", "")
    assert (await run("get deploy web -o jsonpath={.spec.replicas}"))[1] == "3"
    code, _, err = await run("scale deploy/web --replicas=5 --current-replicas=1")
    assert code == 1
    assert "spec.replicas" in err
    assert (await run("scale deploy/web --replicas=0 --current-replicas=3"))[0] == 0
    assert (await run("get deploy web -o jsonpath={.spec.replicas}"))[1] == "0"


async def test_wait(run: Run) -> None:
    await run.apply(WEB)
    await run.apply(POD % "p")
    assert await run("wait deploy/web --for=condition=Available --timeout=50ms") == (
        3,
        "",
        "error: timed out waiting for condition=Available on deployments.apps/web\n".replace(
            "deployments", "deployment"
        ),
    )
    waiting = asyncio.ensure_future(run("wait deploy/web --for=condition=available --timeout=10s"))
    phase = asyncio.ensure_future(
        run("wait pod --all --timeout=10s --for", "jsonpath={.status.phase}=Running")
    )
    gone = asyncio.ensure_future(run("wait pod/p --for=delete --timeout=10s"))
    made = asyncio.ensure_future(run("wait cm/new --for=create --timeout=10s"))
    await asyncio.sleep(0.05)
    condition = {"type": "Available", "status": "True"}
    await run.status("Deployment", "web", {"observedGeneration": 1, "conditions": [condition]})
    assert await waiting == (0, "deployment.apps/web condition met\n", "")
    await run.status("Pod", "p", {"phase": "Running"})
    assert await phase == (0, "pod/p condition met\n", "")
    await run("delete pod p --force")
    assert await gone == (0, "pod/p deleted\n", "")
    await run("create configmap new")
    assert await made == (0, "configmap/new condition met\n", "")
    assert (await run("wait pod/p --for=delete"))[:2] == (0, "pod/p deleted\n")
    code, _, err = await run("wait pod/p --for=condition=Ready")
    assert (code, err) == (1, 'error: pod "p" not found in namespace "default"\n')


async def test_a_lost_answer_is_asked_for_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Session.commit
    lost = 0

    async def lose_answers(self: Session, request: pb.CommitRequest) -> pb.CommitResponse:
        nonlocal lost
        answer = await commit(self, request)
        if lost < 3:
            lost += 1
            raise ApiError(Reason.UNAVAILABLE, "it may have been applied")
        return answer

    monkeypatch.setattr(Session, "commit", lose_answers)
    assert await run("create configmap c") == (0, "configmap/c created\n", "")
    assert lost == 3
    monkeypatch.setattr(Session, "commit", _away)
    assert await run("create configmap d") == (1, "", "error: nobody there\n")


async def _away(self: Session, request: pb.CommitRequest) -> pb.CommitResponse:
    raise ApiError(Reason.UNAVAILABLE, "nobody there")


async def test_secrets_of_registries_and_keys(run: Run, tmp_path: Path) -> None:
    assert await run(
        "create secret docker-registry pull --docker-server=r.example --docker-username=me"
        " --docker-password=w"
    ) == (0, "secret/pull created\n", "")
    _, out, _ = await run("get secret pull -o json")
    made = json.loads(out)
    assert made["type"] == "kubernetes.io/dockerconfigjson"
    assert json.loads(base64.b64decode(made["data"][".dockerconfigjson"])) == {
        "auths": {"r.example": {"username": "me", "password": "w", "auth": "bWU6dw=="}}
    }
    assert (await run("create secret docker-registry p --docker-username=me"))[0] == 2
    (tmp_path / "web.crt").write_text("nothing")
    (tmp_path / "web.key").write_text("nothing")
    code, _, err = await run(
        f"create secret tls t --cert={tmp_path / 'web.crt'} --key={tmp_path / 'web.key'}"
    )
    assert code == 2
    assert err.startswith("error: tls: ")


async def test_jobs(run: Run) -> None:
    assert await run("create job once --image=busybox -- date -u") == (
        0,
        "job.batch/once created\n",
        "",
    )
    _, out, _ = await run("get job once -o json")
    spec = json.loads(out)["spec"]["template"]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["containers"][0]["command"] == ["date", "-u"]
    assert (await run("create cj nightly --image=busybox --schedule='0 3 * * *' -- true"))[1] == (
        "cronjob.batch/nightly created\n"
    )
    assert (await run("create job now --from=cronjob/nightly"))[1] == "job.batch/now created\n"
    _, out, _ = await run("get job now -o json")
    made = json.loads(out)
    assert made["metadata"]["ownerReferences"][0]["name"] == "nightly"
    assert made["spec"]["template"]["spec"]["containers"][0]["command"] == ["true"]
    assert (await run("create job x"))[0] == 2


async def test_services(run: Run) -> None:
    await run.apply(
        "apiVersion: kcore.dev/v1\nkind: Pool\nmetadata: {name: service-ips}\n"
        "spec: {cidr: 10.96.0.0/24}\n---\n" + WEB.replace("name: web", "name: web, labels: {x: y}")
    )
    assert await run("expose deploy/web --port=80 --target-port=http --name=front") == (
        0,
        "service/front exposed\n",
        "",
    )
    _, out, _ = await run("get svc front -o json")
    spec = json.loads(out)["spec"]
    assert spec["selector"] == {"app": "web"}
    assert spec["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": "http"}]
    assert await run("expose deploy/web") == (
        1,
        "",
        "error: deployment.apps/web says no port; say it with --port\n",
    )
    assert (await run("create svc clusterip web --tcp=80:8080"))[1] == "service/web created\n"
    code, out, _ = await run("get svc web -o jsonpath={.spec.ports[0].targetPort}")
    assert (code, out) == (0, "8080")
    assert (await run("create service clusterip x"))[0] == 2
    assert (await run("create service clusterip x --tcp=a"))[0] == 2


async def test_labels_are_listed_and_guarded(run: Run) -> None:
    await run.apply(POD % "p")
    assert await run("label pod p --list a=b") == (
        0,
        "Listing labels for pod/p:\n a=b\n app=web\n",
        "",
    )
    code, _, err = await run("label pod p c=d --resource-version=1")
    assert code == 1, err
    assert await run("label -f - c=d", stdin=(POD % "p").encode()) == (0, "pod/p labeled\n", "")
    assert (await run("label pods c=d --field-selector metadata.name=p"))[
        1
    ] == "pod/p not labeled\n"
