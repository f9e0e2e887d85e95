"""`kcore apply`: what it says, what it refuses and where, and that what was got applies again."""

from pathlib import Path

import pytest

from tests.cli.cluster import Run

CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  labels: {app: web}
data:
  color: blue
"""
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: nginx
        image: nginx:1.27
        ports:
        - containerPort: 80
        resources:
          limits: {cpu: 100m, memory: 1.5Gi}
        readinessProbe:
          httpGet: {path: /, port: 80}
"""


async def test_says_what_it_did(run: Run) -> None:
    assert await run("apply -f -", stdin=CONFIG.encode()) == (0, "configmap/settings created\n", "")
    again = await run("apply -f -", stdin=CONFIG.encode())
    assert again == (0, "configmap/settings unchanged\n", "")
    other = CONFIG.replace("blue", "red").encode()
    assert await run("apply -f -", stdin=other) == (0, "configmap/settings configured\n", "")
    assert await run("apply -f - --server-side", stdin=other) == (
        0,
        "configmap/settings serverside-applied\n",
        "",
    )
    assert await run("apply -o name -f -", stdin=other) == (0, "configmap/settings\n", "")


async def test_a_field_that_leaves_the_file_leaves_the_object(run: Run) -> None:
    await run.apply(CONFIG + "  size: big\n")
    await run.apply(CONFIG)
    assert await run("get cm settings -o jsonpath={.data}") == (0, '{"color":"blue"}', "")


async def test_what_was_got_applies_unchanged(run: Run) -> None:
    await run.apply(WEB)
    for form in ("yaml", "json"):
        code, got, _ = await run(f"get deploy web -o {form}")
        assert code == 0
        assert await run("apply -f -", stdin=got.encode()) == (
            0,
            "deployment.apps/web unchanged\n",
            "",
        )
    code, got, _ = await run("get deploy,ns -o yaml")
    assert await run("apply -f -", stdin=got.encode()) == (
        0,
        "deployment.apps/web unchanged\n"
        "namespace/default unchanged\n"
        "namespace/kube-system unchanged\n",
        "",
    )


async def test_what_was_got_with_its_status_applies_unchanged(run: Run) -> None:
    await run.apply(WEB)
    condition = {"type": "Available", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}
    status = {"replicas": 3, "observedGeneration": 1, "conditions": [condition]}
    await run.status("Deployment", "web", status)
    await run("rollout restart deploy/web")
    _, got, _ = await run("get deploy web -o yaml")
    assert "observedGeneration" in got
    code, out, err = await run("apply -f -", stdin=got.encode())
    assert (code, out, err) == (0, "deployment.apps/web unchanged\n", "")


async def test_what_others_set_is_kept(run: Run) -> None:
    await run.apply(WEB.replace("  replicas: 3\n", ""))
    assert (await run("scale deploy/web --replicas=5"))[0] == 0
    await run.apply(WEB.replace("  replicas: 3\n", "").replace("1.27", "1.28"))
    code, said, _ = await run(
        "get deploy web -o",
        "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}",
    )
    assert (code, said) == (0, "5 nginx:1.28")


async def test_dry_runs_store_nothing(run: Run) -> None:
    for way, said in (("client", "dry run"), ("server", "server dry run")):
        assert await run(f"apply --dry-run={way} -f -", stdin=CONFIG.encode()) == (
            0,
            f"configmap/settings created ({said})\n",
            "",
        )
    assert (await run("get cm settings"))[0] == 1
    code, said, _ = await run("apply --dry-run=server -o yaml -f -", stdin=WEB.encode())
    assert code == 0
    assert "progressDeadlineSeconds: 600" in said


async def test_the_file_is_wrong(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(WEB.replace("image:", "imagee:"))
    code, out, err = await run(f"apply -f {file}")
    assert (code, out) == (1, "")
    assert err == (
        f"{file}:15:9: spec.template.spec.containers[0].imagee: unknown field,"
        ' did you mean "image"?\n'
        " 15 |         imagee: nginx:1.27\n"
        "    |         ^^^^^^\n"
    )


async def test_what_the_server_refuses_is_shown_in_the_file(run: Run) -> None:
    wrong = WEB.replace("labels: {app: web}\n    spec", "labels: {app: other}\n    spec")
    code, out, err = await run("apply -f -", stdin=(CONFIG + "---\n" + wrong).encode())
    assert (code, out) == (1, "configmap/settings created\n")
    assert err == (
        "<stdin>:19:15: spec.template.metadata.labels: must match the selector\n"
        " 19 |       labels: {app: other}\n"
        "    |               ^\n"
    )


async def test_immutable_fields(run: Run) -> None:
    await run.apply(WEB)
    code, _, err = await run("apply -f -", stdin=WEB.replace("app: web", "app: other").encode())
    assert code == 1
    assert err.startswith("<stdin>:8:5: spec.selector: ")
    assert "field is immutable" in err


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (CONFIG.replace("name: settings", "generateName: s-"), "", "cannot use generate name"),
        (CONFIG.replace("name: settings", "uid: x"), "", "metadata.name: is not set"),
        (
            CONFIG.replace("name: settings", "name: settings\n  namespace: shop"),
            "-n default",
            '<stdin>:5:14: metadata.namespace: does not match --namespace "default"',
        ),
        ("# nothing\n", "", "error: there are no objects in what was given"),
        (CONFIG.replace("v1", "v9"), "", "no matches for kind"),
    ],
)
async def test_refusals(run: Run, text: str, arguments: str, said: str) -> None:
    code, out, err = await run(f"apply -f - {arguments}", stdin=text.encode())
    assert (code, out) == (1, "")
    assert said in err


async def test_a_missing_namespace(run: Run) -> None:
    code, _, err = await run("apply -n shop -f -", stdin=CONFIG.encode())
    assert code == 1
    assert 'namespace "shop"' in err or "shop" in err


async def test_a_namespace_and_what_is_in_it_go_together(run: Run) -> None:
    both = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n" + CONFIG.replace(
        "name: settings", "name: settings\n  namespace: shop"
    )
    assert await run("apply -f -", stdin=both.encode()) == (
        0,
        "namespace/shop created\nconfigmap/settings created\n",
        "",
    )


async def test_conflicts_name_the_other_manager(run: Run) -> None:
    await run.apply(CONFIG)
    red = CONFIG.replace("blue", "red").encode()
    code, _, err = await run("apply --server-side --field-manager=ci -f -", stdin=red)
    assert code == 1
    assert err.startswith('<stdin>:7:10: data[color]: conflict with "kcore"')
    code, out, _ = await run(
        "apply --server-side --force-conflicts --field-manager=ci -f -", stdin=red
    )
    assert (code, out) == (0, "configmap/settings serverside-applied\n")


async def test_waiting_ends_with_what_is_ready_or_with_3(run: Run) -> None:
    both = f"{CONFIG}---\n{WEB}".encode()
    code, out, err = await run("apply --wait --timeout=50ms -f -", stdin=both)
    assert code == 3
    assert out == "configmap/settings created\ndeployment.apps/web created\n"
    assert err.endswith(
        'Waiting for deployment "web" spec update to be observed...\n'
        'error: timed out: Waiting for deployment "web" spec update to be observed...\n'
    )
    done = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3}
    await run.status("Deployment", "web", {**done, "availableReplicas": 3})
    code, out, _ = await run("apply --wait --timeout=5s -f -", stdin=WEB.encode())
    assert (code, out) == (0, "deployment.apps/web unchanged\n")


async def test_create_makes_only_what_is_new(run: Run) -> None:
    assert (await run("create -f -", stdin=CONFIG.encode()))[1] == "configmap/settings created\n"
    code, _, err = await run("create -f -", stdin=CONFIG.encode())
    assert code == 1
    assert "already exists" in err
    code, out, _ = await run(
        "create -f -", stdin=CONFIG.replace("name: settings", "generateName: s-").encode()
    )
    assert code == 0
    assert out.startswith("configmap/s-") and out.endswith(" created\n")


async def test_objects_of_many(run: Run) -> None:
    many = "---\n".join(CONFIG.replace("settings", f"s{i}") for i in range(250))
    code, out, _ = await run("apply -f -", stdin=many.encode())
    assert code == 0
    assert out.count("created") == 250
    code, out, _ = await run("get cm --no-headers")
    assert len(out.splitlines()) == 250


async def test_warnings_are_talk(run: Run) -> None:
    # Stored, but nothing acts on it.
    given = CONFIG.replace("data:", "metadata_: x\ndata:").replace("metadata_: x\n", "")
    pod = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostname: h\n"
        "  containers: [{name: a, image: b, stdin: true}]\n"
    )
    code, out, err = await run("apply -f -", stdin=f"{given}---\n{pod}".encode())
    assert code == 0
    assert out == "configmap/settings created\npod/p created\n"
    assert all(line.startswith("Warning: ") for line in err.splitlines())
