"""patch, replace, set: what they change and what they say."""

import json
from pathlib import Path

import pytest

from tests.cli.cluster import Run

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers: [{name: first, image: "busybox:1"}]
      containers:
      - {name: nginx, image: "nginx:1.27", env: [{name: OLD, value: "1"}]}
      - {name: side, image: "side:1"}
"""
CONFIG = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {app.color: blue, size: big}\n"
)
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec: {containers: [{name: nginx, image: "nginx:1.27"}]}
"""


async def at(run: Run, what: str, path: str) -> str:
    code, out, err = await run(f"get {what} -o", f"jsonpath={path}")
    assert (code, err) == (0, "")
    return out


async def containers(run: Run, what: str = "deploy web") -> dict[str, dict[str, object]]:
    found = json.loads(await at(run, what, "{.spec.template.spec.containers}"))
    return {one["name"]: one for one in found}


async def test_strategic_merge_is_the_default(run: Run) -> None:
    await run.apply(WEB)
    patch = (
        '{"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:2"}]}}}}'
    )
    assert await run("patch deploy web -p", patch) == (0, "deployment.apps/web patched\n", "")
    found = await containers(run)
    assert [c["image"] for c in found.values()] == ["nginx:1.27", "side:2"]
    assert await run("patch deployment/web -p", patch) == (
        0,
        "deployment.apps/web patched (no change)\n",
        "",
    )
    assert (await run("patch deploy web -p 'spec: {replicas: 4}' -o name"))[1] == (
        "deployment.apps/web\n"
    )
    assert await at(run, "deploy web", "{.spec.replicas}") == "4"


async def test_merge_and_json(run: Run, tmp_path: Path) -> None:
    await run.apply(CONFIG)
    assert (await run("patch cm c --type=merge -p", '{"data": {"size": null, "b": "1"}}'))[0] == 0
    assert json.loads(await at(run, "cm c", "{.data}")) == {"app.color": "blue", "b": "1"}
    file = tmp_path / "patch.yaml"
    file.write_text("- {op: test, path: /data/b, value: '1'}\n- {op: remove, path: /data/b}\n")
    assert (await run(f"patch cm c --type=json --patch-file={file}"))[0] == 0
    assert await at(run, "cm c", "{.data}") == '{"app.color":"blue"}'
    code, out, err = await run(f"patch cm c --type=json --patch-file={file}")
    assert (code, out) == (1, "")
    assert err == (
        f'{file}:1:3: patch[0]: there is no "b"\n'
        " 1 | - {op: test, path: /data/b, value: '1'}\n"
        "   |   ^\n"
    )


async def test_dry_runs_and_doors(run: Run) -> None:
    await run.apply(WEB)
    for way, said in (("client", "dry run"), ("server", "server dry run")):
        assert await run(f"patch deploy web --dry-run={way} -p 'spec: {{replicas: 7}}'") == (
            0,
            f"deployment.apps/web patched ({said})\n",
            "",
        )
    assert await at(run, "deploy web", "{.spec.replicas}") == "1"
    assert (await run("patch deploy web --subresource=status -p 'status: {replicas: 3}'"))[0] == 0
    assert await at(run, "deploy web", "{.status.replicas}") == "3"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("deploy web", 2, "say how: with one --patch or one --patch-file"),
        ("deploy web -p {} -p {}", 2, "say how"),
        ("deploy web -p []", 2, "a patch of type strategic is an object"),
        ("deploy web --type=json -p {}", 2, "a patch of type json is a list of operations"),
        ("deploy web -p '{'", 1, "--patch:"),
        ("deploy nothing -p {}", 1, 'deployment.apps "nothing" not found in namespace "default"'),
        (
            "deploy web -p 'spec: {replicass: 1}'",
            1,
            '--patch:1:8: spec.replicass: unknown field, did you mean "replicas"?\n'
            " 1 | spec: {replicass: 1}\n"
            "   |        ^^^^^^^^^\n",
        ),
        (
            "deploy web -p 'spec: {replicas: -1}'",
            1,
            "--patch:1:18: spec.replicas: Invalid value",
        ),
    ],
)
async def test_wrong_patches(run: Run, arguments: str, code: int, said: str) -> None:
    await run.apply(WEB)
    found, out, err = await run(f"patch {arguments}")
    assert (found, out) == (code, "")
    assert said in err


async def test_replace(run: Run) -> None:
    await run.apply(CONFIG)
    changed = CONFIG.replace("blue", "red").replace(", size: big", "")
    assert await run("replace -f -", stdin=changed.encode()) == (0, "configmap/c replaced\n", "")
    assert await at(run, "cm c", "{.data}") == '{"app.color":"red"}'
    _, old, _ = await run("get cm c -o yaml")
    await run("label cm c a=b")
    code, out, err = await run("replace -f -", stdin=old.encode())
    assert (code, out) == (1, "")
    assert "the object has been modified" in err
    code, _, err = await run("replace -f -", stdin=CONFIG.replace("name: c", "name: d").encode())
    assert code == 1
    assert "not found" in err
    for way in ("client", "server"):
        _, out, _ = await run(f"replace --dry-run={way} -f -", stdin=CONFIG.encode())
        assert out.startswith("configmap/c replaced (")
    assert await at(run, "cm c", "{.data}") == '{"app.color":"red"}'


async def test_replace_by_force_makes_it_anew(run: Run) -> None:
    await run.apply(POD % "p")
    _, old, _ = await run("get pod p -o yaml")
    changed = old.replace("1.27", "1.28").replace("name: nginx\n", "name: other\n")
    assert await run("replace --force -f -", stdin=changed.encode()) == (
        0,
        'pod "p" deleted\npod/p replaced\n',
        "",
    )
    assert await at(run, "pod p", "{.spec.containers[*].name}") == "other"
    assert await run("replace --force -f -", stdin=(POD % "q").encode()) == (
        0,
        "pod/q replaced\n",
        "",
    )


async def test_images(run: Run) -> None:
    await run.apply(WEB)
    assert await run("set image deploy/web nginx=nginx:1.28 first=busybox:2") == (
        0,
        "deployment.apps/web image updated\n",
        "",
    )
    assert [c["image"] for c in (await containers(run)).values()] == ["nginx:1.28", "side:1"]
    path = "{.spec.template.spec.initContainers[0].image}"
    assert await at(run, "deploy web", path) == "busybox:2"
    # Nothing to say where nothing changes.
    assert await run("set image deploy/web nginx=nginx:1.28") == (0, "", "")
    assert (await run("set image deploy --all '*=all:1'"))[0] == 0
    assert {c["image"] for c in (await containers(run)).values()} == {"all:1"}
    await run.apply(POD % "p")
    assert (await run("set image pods p '*=b:1' --dry-run=server"))[1] == (
        "pod/p image updated (server dry run)\n"
    )
    assert await run("set image deploy/web ngin=x") == (
        1,
        "",
        'deployment.apps/web: error: there is no container "ngin", did you mean "nginx"?\n',
    )
    assert (await run("set image deploy/web"))[0] == 2
    assert (await run("set image cm/c a=b"))[0] == 1
    await run.apply(CONFIG)
    assert "configmaps have no containers" in (await run("set image cm/c a=b"))[2]


async def test_environments(run: Run) -> None:
    await run.apply(WEB + "---\n" + CONFIG)
    assert await run("set env deploy/web LEVEL=debug OLD- -c nginx") == (
        0,
        "deployment.apps/web env updated\n",
        "",
    )
    found = await containers(run)
    assert found["nginx"]["env"] == [{"name": "LEVEL", "value": "debug"}]
    assert "env" not in found["side"]
    assert (await run("set env deploy/web --from=cm/c --prefix=C_ -c side"))[0] == 0
    side = (await containers(run))["side"]
    assert side["env"] == [
        {"name": f"C_{name}", "valueFrom": {"configMapKeyRef": {"name": "c", "key": key}}}
        for name, key in (("APP_COLOR", "app.color"), ("SIZE", "size"))
    ]
    assert await run("set env deploy/web --list") == (
        0,
        "# deployment.apps/web, container nginx\n"
        "LEVEL=debug\n"
        "# deployment.apps/web, container side\n"
        "# C_APP_COLOR from configMapKeyRef: app.color of c\n"
        "# C_SIZE from configMapKeyRef: size of c\n",
        "",
    )
    code, _, err = await run("set env deploy/web LEVEL=info --no-overwrite -c nginx")
    assert code == 1
    assert 'nginx already has a value for "LEVEL"' in err
    code, _, err = await run("set env deploy/web --from=cm/c --keys=siz")
    assert err == 'error: configmap "c" has no key "siz", did you mean "size"?\n'


async def test_resources(run: Run) -> None:
    await run.apply(WEB)
    limits = "set resources deploy/web -c=nginx --limits=cpu=200m,memory=512Mi --requests=cpu=100m"
    assert await run(limits) == (0, "deployment.apps/web resource requirements updated\n", "")
    assert (await containers(run))["nginx"]["resources"] == {
        "limits": {"cpu": "200m", "memory": "512Mi"},
        "requests": {"cpu": "100m"},
    }
    await run("set resources deploy/web --limits=cpu=0,memory=1Gi --requests=cpu=0")
    assert (await containers(run))["nginx"]["resources"] == {"limits": {"memory": "1Gi"}}
    code, _, err = await run("set resources deploy/web --limits=cpu=much")
    assert code == 2
    assert "'much' is not a quantity" in err


async def test_accounts(run: Run) -> None:
    await run.apply(WEB)
    assert (await run("set serviceaccount deploy/web robot"))[1] == (
        "deployment.apps/web serviceaccount updated\n"
    )
    path = "{.spec.template.spec.serviceAccountName}"
    assert await at(run, "deploy web", path) == "robot"
