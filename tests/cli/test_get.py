"""`kcore get` and `describe`: tables, forms, selections, absences, changes."""

import asyncio
import json
import shlex

import pytest

from kcore.cli import root
from kcore.cli import session as cli_session
from tests.cli.cluster import Run

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: "nginx:1.27"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, labels: {app: web, tier: front}}
spec: {containers: [{name: nginx, image: "nginx:1.27"}], nodeName: n1}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec: {containers: [{name: db, image: db}, {name: side, image: side}]}
---
apiVersion: v1
kind: Pod
metadata: {name: dns, namespace: kube-system}
spec: {containers: [{name: dns, image: dns}]}
"""
RUNNING = {
    "phase": "Running",
    "podIP": "10.0.0.7",
    "containerStatuses": [
        {
            "name": "nginx",
            "ready": True,
            "restartCount": 2,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
    ],
}


@pytest.fixture(autouse=True)
async def some_objects(run: Run) -> None:
    await run.apply(WEB)
    await run.status("Pod", "web-0", RUNNING)


async def test_tables(run: Run) -> None:
    run.clock.seconds += 3700
    assert await run("get pods") == (
        0,
        "NAME    READY   STATUS    RESTARTS   AGE\n"
        "db-0    0/2     Pending   0          61m\n"
        "web-0   1/1     Running   2          61m\n",
        "",
    )
    assert await run("get po web-0 -o wide --no-headers") == (
        0,
        "web-0   1/1   Running   2   61m   10.0.0.7   n1   <none>   <none>\n",
        "",
    )
    assert await run("get pods -A -l '!app'") == (
        0,
        "NAMESPACE     NAME   READY   STATUS    RESTARTS   AGE\n"
        "kube-system   dns    0/1     Pending   0          61m\n",
        "",
    )
    assert await run("get deploy --show-labels") == (
        0,
        "NAME   READY   UP-TO-DATE   AVAILABLE   AGE   LABELS\n"
        "web    0/2     0            0           61m   app=web\n",
        "",
    )


async def test_several_kinds(run: Run) -> None:
    assert await run("get po,deploy -l app=web") == (
        0,
        "NAME        READY   STATUS    RESTARTS   AGE\n"
        "pod/web-0   1/1     Running   2          0s\n"
        "\n"
        "NAME                  READY   UP-TO-DATE   AVAILABLE   AGE\n"
        "deployment.apps/web   0/2     0            0           0s\n",
        "",
    )
    code, out, _ = await run("get all -o name")
    assert (code, out) == (0, "pod/db-0\npod/web-0\ndeployment.apps/web\n")
    assert (await run("get deploy/web pod/web-0 -o name"))[1] == (
        "deployment.apps/web\npod/web-0\n"
    )


async def test_selections(run: Run) -> None:
    async def names(arguments: str) -> list[str]:
        code, out, err = await run(f"get pods -o name {arguments}")
        assert (code, err) == (0, "")
        return [line.removeprefix("pod/") for line in out.splitlines()]

    assert await names("-l app=web") == ["web-0"]
    assert await names("-l 'app in (web, db),!tier'") == ["db-0"]
    assert await names("--field-selector spec.nodeName=n1") == ["web-0"]
    assert await names("--field-selector status.phase!=Running") == ["db-0"]
    assert await names("-A --sort-by .metadata.name") == ["db-0", "dns", "web-0"]
    assert await names("-n kube-system") == ["dns"]
    assert await names("web-0 db-0") == ["web-0", "db-0"]
    code, _, err = await run("get pods --field-selector spec.nothing=1")
    assert code == 1
    assert "field label not supported: spec.nothing" in err


async def test_nothing_there(run: Run) -> None:
    assert await run("get cm") == (0, "", "No resources found in default namespace.\n")
    assert await run("get cm -n kube-sistem") == (
        0,
        "",
        "No resources found in kube-sistem namespace:"
        ' there is no namespace "kube-sistem", did you mean "kube-system"?\n',
    )
    assert await run("get cm -A") == (0, "", "No resources found.\n")
    assert await run("get nodes") == (0, "", "No resources found.\n")
    assert await run("get cm -o name") == (0, "", "")
    _, out, _ = await run("get cm -o json")
    assert json.loads(out)["items"] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("get pod web-1", 'pod "web-1" not found in namespace "default", did you mean "web-0"?'),
        (
            "get pod dns",
            'pod "dns" not found in namespace "default"; found in "kube-system":'
            " kcore get pod dns -n kube-system",
        ),
        (
            "-n default get pod/dns --namespace=default -o wide",
            'pod "dns" not found in namespace "default"; found in "kube-system":'
            " kcore get pod/dns -o wide -n kube-system",
        ),
        (
            "get pod zzz -n kube-systm",
            'pod "zzz" not found in namespace "kube-systm":'
            ' there is no namespace "kube-systm", did you mean "kube-system"?',
        ),
        ("get pod zzz", 'pod "zzz" not found in namespace "default"'),
        ("get ns defalt", 'namespace "defalt" not found, did you mean "default"?'),
        ("get podz", 'there is no kind "podz", did you mean "pod"?'),
        ("get xyzzy", 'there is no kind "xyzzy"; `kcore api-resources` lists all'),
    ],
)
async def test_what_is_not_found_is_looked_for(run: Run, line: str, said: str) -> None:
    assert await run(line) == (1, "", f"error: {said}\n")
    assert (await run(f"{line} --ignore-not-found"))[0] == (0 if " not found" in said else 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("get", "name a kind, such as `pods`, or an object, such as `pod/web`"),
        (
            "get pods -o yml",
            '-o takes wide, name, yaml, json, custom-columns=…, cel=…, jsonpath=…, not "yml"',
        ),
        ("get pod/web-0 web", '"web" is not of the form kind/name like the others'),
        ("get pods web -l a=b", "a name and a selector don't go together"),
        ("get pods,deploy -w", "only one kind can be watched at a time"),
        ("get pods -o jsonpath={.a[}", "jsonpath"),
        ("get pods -o custom-columns=NAME", '"NAME" is not of the form HEADING:.path'),
        ("get pods -o custom-columns=A:.a[", "cannot read"),
        ("get pods -o jsonpath-file=/nothing", "/nothing: no such file or directory"),
        ("get pods -o go-template={{.a}}", "try -o jsonpath=… or -o custom-columns=…"),
        ("get pods -o cel=self.spec.nothing", "undefined field 'nothing'"),
        ("get pods --at yesterday", "--at takes a revision, a time (2026-01-31T12:00:00Z)"),
        ("get pods -w --at 1m", "the past does not change"),
        ("get pods --output-watch-events", "goes with --watch"),
        ("get pods -f x", "-f and names don't go together"),
    ],
)
async def test_wrong_usage(run: Run, line: str, said: str) -> None:
    code, out, err = await run(line)
    assert (code, out) == (2, "")
    assert said in err


async def test_forms(run: Run) -> None:
    _, out, _ = await run("get pod web-0 -o yaml")
    assert out.startswith("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-0\n")
    assert "managedFields" not in out
    assert "managedFields" in (await run("get pod web-0 -o yaml --show-managed-fields"))[1]
    _, out, _ = await run("get pods -o json")
    assert [item["metadata"]["name"] for item in json.loads(out)["items"]] == ["db-0", "web-0"]
    for template, said in (
        ("{.items[*].metadata.name}", "db-0 web-0"),
        (
            '{range .items[*]}{.metadata.name}{"\\t"}{.status.phase}{"\\n"}{end}',
            "db-0\tPending\nweb-0\tRunning\n",
        ),
    ):
        assert await run("get pods -o", f"jsonpath={template}") == (0, said, "")
    assert (await run("get pod web-0 -o jsonpath={.status.podIP}"))[1] == "10.0.0.7"


async def test_columns_of_the_users_own(run: Run) -> None:
    columns = "NAME:.metadata.name,IMAGES:.spec.containers[*].image,NODE:.spec.nodeName"
    assert await run(f"get pods -o custom-columns={columns}") == (
        0,
        "NAME    IMAGES       NODE\ndb-0    db,side      <none>\nweb-0   nginx:1.27   n1\n",
        "",
    )
    file = run.directory / "columns"
    file.write_text("NAME          PHASE\nmetadata.name {.status.phase}\n")
    assert (await run(f"get po web-0 -o custom-columns-file={file}"))[1] == (
        "NAME    PHASE\nweb-0   Running\n"
    )
    assert (await run(f"get po web-0 --no-headers -o custom-columns-file={file}"))[1] == (
        "web-0   Running\n"
    )
    _, out, _ = await run("get pods -L app,tier")
    assert out.splitlines()[0].endswith("AGE   APP   TIER")
    assert out.splitlines()[2].endswith("0s    web   front")


async def test_cel_is_a_form(run: Run) -> None:
    for text, said in (
        ("self.status.podIP", "\n10.0.0.7\n"),
        ("self.metadata.name + ' ' + self.spec.nodeName", "db-0 \nweb-0 n1\n"),
        ("self.spec.containers.map(c, c.image)", "db,side\nnginx:1.27\n"),
        ("self.spec.containers[1].name", "side\n\n"),
        ("self.spec.containers.size() > 1", "true\nfalse\n"),
        (
            "self.status.container_statuses[0].state",
            '\n{"running":{"startedAt":"2026-01-01T00:00:00Z"}}\n',
        ),
    ):
        assert await run("get pods -o", f"cel={text}") == (0, said, "")


async def test_templates_from_files_and_as_json(run: Run) -> None:
    file = run.directory / "template"
    file.write_text('{range .items[*]}{.metadata.name}{"\\n"}{end}')
    assert (await run(f"get pods -o jsonpath-file={file}"))[1] == "db-0\nweb-0\n"
    _, out, _ = await run("get pods -o jsonpath-as-json={.items[*].metadata.name}")
    assert json.loads(out) == ["db-0", "web-0"]


async def test_sorting(run: Run) -> None:
    for name, note, size in (("c-10", "x", "2Gi"), ("c-9", "y", "900Mi"), ("c-1", "z", "100m")):
        await run.apply(
            f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n"
            f"data: {{note: {note}, size: {size}}}\n"
        )

    async def names(path: str) -> list[str]:
        _, out, _ = await run(f"get cm -o name --sort-by {path}")
        return [line.removeprefix("configmap/") for line in out.splitlines()]

    assert await names(".metadata.name") == ["c-1", "c-9", "c-10"]
    assert await names("'{.data.note}'") == ["c-10", "c-9", "c-1"]
    assert await names("data.size") == ["c-1", "c-9", "c-10"]
    assert await names(".data.nothing") == ["c-1", "c-10", "c-9"]


async def test_the_past(run: Run) -> None:
    revision = (await run("get pod web-0 -o jsonpath={.metadata.resourceVersion}"))[1]
    run.clock.seconds += 600
    await run("label pod web-0 tier=back --overwrite")
    await run("delete deploy web --no-wait")
    for moment in (revision, "5m", "5m ago", "2026-01-01T00:05:00Z"):
        code, out, err = await run("get pod web-0 -o jsonpath={.metadata.labels.tier} --at", moment)
        assert (code, out, err) == (0, "front", ""), moment
    assert (await run("get deploy -o name --at 5m"))[1] == "deployment.apps/web\n"
    assert (await run("get deploy --at 5m --no-headers"))[1].split()[-1] == "5m"
    assert await run("get deploy web --at 11m") == (
        1,
        "",
        'error: deployment.apps "web" was not there in namespace "default" at that time\n',
    )
    assert (await run("get pods --at 999999"))[0] == 1


async def test_words_for_kinds(run: Run) -> None:
    for words in (
        "po,deploy",
        "pods,deployments.apps",
        "Pod,deployment.v1.apps",
        "pod,deploy.apps",
    ):
        _, out, _ = await run(f"get {words} -o name")
        assert out == "pod/db-0\npod/web-0\ndeployment.apps/web\n", words
    assert (await run("get po --show-kind --no-headers"))[1].startswith("pod/db-0 ")


async def test_objects_of_files_are_looked_up_in_their_namespaces(run: Run) -> None:
    file = run.directory / "all.yaml"
    file.write_text(WEB)
    assert (await run(f"get -f {file} -o name"))[1] == (
        "deployment.apps/web\npod/web-0\npod/db-0\npod/dns\n"
    )


async def test_what_is_good_and_bad_is_coloured_if_asked(run: Run) -> None:
    _, out, _ = await run("--color=always get pods --no-headers")
    assert out == (
        "db-0    \x1b[33m0/2\x1b[0m   \x1b[33mPending\x1b[0m   0   0s\n"
        "web-0   \x1b[32m1/1\x1b[0m   \x1b[32mRunning\x1b[0m   2   0s\n"
    )


async def test_watch_shows_what_changes(run: Run) -> None:
    session = run.session()
    watching = asyncio.ensure_future(root.call(["get", "pods", "-w", "-l", "app=web"], session))

    async def shown(lines: int) -> list[str]:
        for _ in range(500):
            text: str = session.stdout.getvalue()  # type: ignore[attr-defined]
            if text.count("\n") >= lines:
                break
            await asyncio.sleep(0.01)
        return text.splitlines()

    assert await shown(2) == [
        "NAME    READY   STATUS    RESTARTS   AGE",
        "web-0   1/1     Running   2          0s",
    ]
    await run("label pod web-0 more=1")
    await run("delete pod db-0 --no-wait")
    await run("label pod web-0 app=other --overwrite")
    assert (await shown(4))[2:] == ["web-0   1/1     Running   2          0s"] * 2
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_watch_says_what_happened(run: Run) -> None:
    def watch(line: str) -> tuple[cli_session.Session, asyncio.Future[int]]:
        session = run.session()
        return session, asyncio.ensure_future(root.call(shlex.split(line), session))

    table, one = watch("get pods -w --output-watch-events -l app=db")
    stream, two = watch("get pods --watch-only --output-watch-events -o json -l app=db")
    await asyncio.sleep(0.05)
    await run("label pod db-0 more=1")
    await run("delete pod db-0 --no-wait")

    def said(session: cli_session.Session) -> str:
        return session.stdout.getvalue()  # type: ignore[attr-defined,no-any-return]

    for _ in range(500):
        if said(table).count("\n") >= 4 and said(stream).count("DELETED"):
            break
        await asyncio.sleep(0.01)
    assert [line.split()[0] for line in said(table).splitlines()] == [
        "EVENT",
        "ADDED",
        "MODIFIED",
        "DELETED",
    ]
    first, at = json.JSONDecoder().raw_decode(said(stream))
    assert first["type"] == "MODIFIED"
    assert first["object"]["metadata"]["labels"]["more"] == "1"
    second, _ = json.JSONDecoder().raw_decode(said(stream), at + 1)
    assert second["type"] == "DELETED"
    for watching in (one, two):
        watching.cancel()
    await asyncio.gather(one, two, return_exceptions=True)


async def test_describe(run: Run) -> None:
    _, uid, _ = await run("get pod web-0 -o jsonpath={.metadata.uid}")
    await run.apply(
        "apiVersion: v1\nkind: Event\nmetadata: {name: e1}\n"
        f"involvedObject: {{kind: Pod, name: web-0, namespace: default, uid: {uid}}}\n"
        "reason: Started\nmessage: |\n  Started\n  container nginx\ntype: Normal\n"
        'source: {component: kubelet}\ncount: 3\nfirstTimestamp: "2026-01-01T00:00:00Z"\n'
        'lastTimestamp: "2026-01-01T00:00:30Z"\n'
    )
    run.clock.seconds += 90
    code, out, err = await run("describe pod web-0")
    assert (code, err) == (0, "")
    assert out.startswith(
        "Name:         web-0\n"
        "Namespace:    default\n"
        "Labels:       app=web\n"
        "              tier=front\n"
        "Annotations:  <none>\n"
        "Created:      2026-01-01T00:00:00Z (90s ago)\n"
        "Spec:\n"
    )
    assert "  Containers:\n    nginx:\n      Image" in out
    assert "    nginx:\n      Ready:          true\n      Restart Count:  2\n" in out
    assert out.endswith(
        "Events:\n"
        "  Type     Reason    Age                 From      Message\n"
        "  Normal   Started   60s (x3 over 90s)   kubelet   Started container nginx\n"
    )
    assert (await run("describe pod web"))[1].startswith("Name:         web-0\n")
    code, out, err = await run("describe pod nothing web-0")
    assert code == 1
    assert out.startswith("Name:         web-0\n")
    assert err == 'error: pod "nothing" not found in namespace "default"\n'
    await run.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"
    )
    code, out, _ = await run("describe secret s")
    assert "password: 7 bytes" in out
    assert "hunter2" not in out


async def test_events(run: Run) -> None:
    for name, reason, about, second in (("e1", "Pulled", "web-0", 5), ("e2", "Failed", "db-0", 1)):
        await run.apply(
            f"apiVersion: v1\nkind: Event\nmetadata: {{name: {name}}}\n"
            f"involvedObject: {{kind: Pod, name: {about}}}\nreason: {reason}\nmessage: some words\n"
            f"type: {'Warning' if reason == 'Failed' else 'Normal'}\n"
            f'count: 1\nlastTimestamp: "2026-01-01T00:00:0{second}Z"\n'
        )
    run.clock.seconds += 60
    assert await run("events") == (
        0,
        "LAST SEEN   TYPE      REASON   OBJECT      MESSAGE\n"
        "59s         Warning   Failed   pod/db-0    some words\n"
        "55s         Normal    Pulled   pod/web-0   some words\n",
        "",
    )
    assert (await run("events --for pod/web-0 --no-headers"))[1] == (
        "55s   Normal   Pulled   pod/web-0   some words\n"
    )
    assert (await run("events --types=warning -o name"))[1] == "event/e2\n"
    assert await run("events -n kube-system") == (
        0,
        "",
        "No events found in kube-system namespace.\n",
    )


async def test_objects_do_not_steer_the_terminal(run: Run) -> None:
    evil = "\x1b[2J\x9b1m\nfake   row"
    await run.status("Pod", "web-0", {"phase": "Failed", "message": evil, "reason": evil})
    for form in ("", "-o wide", "-o yaml", "-o json"):
        _, out, _ = await run(f"get pod web-0 {form}")
        assert "\x1b" not in out
    _, out, _ = await run("get pod web-0 --no-headers")
    assert len(out.splitlines()) == 1
    assert "\x1b" not in (await run("describe pod web-0"))[1]
