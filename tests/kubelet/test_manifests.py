"""Static pods: what becomes of files, what is refused, and when a change is a change."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.clock import LoopClock
from kcore.kubelet import manifests, static_pod

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers:
  - name: main
    image: kcore.local/busybox:1
    command: [sleep, "1000"]
    volumeMounts:
    - {name: data, mountPath: /data, subPath: a}
  volumes:
  - name: data
    hostPath: {path: /srv}
"""


def put(directory: Path, name: str, text: str) -> None:
    """As good editors do it."""
    (directory / f".{name}.new").write_text(text)
    (directory / f".{name}.new").rename(directory / name)


def names(pods: Mapping[str, pod_pb2.Pod]) -> list[str]:
    return sorted(pod.metadata.name for pod in pods.values())


def test_a_file_becomes_a_pod(tmp_path: Path) -> None:
    put(tmp_path, "web.yaml", POD)
    found = manifests.read(tmp_path, "n1")
    assert not found.problems
    ((uid, pod),) = found.pods.items()
    meta, spec = pod.metadata, pod.spec
    assert (meta.name, meta.namespace, meta.uid) == ("web-n1", "default", uid)
    assert meta.annotations["kubernetes.io/config.source"] == "file"
    assert meta.annotations["kubernetes.io/config.hash"] == uid
    assert (spec.node_name, spec.restart_policy, spec.dns_policy) == (
        "n1",
        "Always",
        "ClusterFirst",
    )
    assert spec.termination_grace_period_seconds == 30
    assert spec.containers[0].image_pull_policy == "IfNotPresent"
    assert pod.status.qos_class == "BestEffort"
    assert list(manifests.read(tmp_path, "n1").pods) == [uid]
    assert list(manifests.read(tmp_path, "n2").pods) != [uid]


def test_the_uid_is_of_what_is_said_and_where(tmp_path: Path) -> None:
    put(tmp_path, "web.yaml", POD)
    (uid,) = manifests.read(tmp_path, "n1").pods
    put(tmp_path, "web.yaml", "# a word to the reader\n" + POD)
    assert list(manifests.read(tmp_path, "n1").pods) == [uid]
    put(tmp_path, "web.yaml", POD.replace('"1000"', '"1001"'))
    assert list(manifests.read(tmp_path, "n1").pods) != [uid]
    (tmp_path / "web.yaml").unlink()
    put(tmp_path, "other.yaml", POD)
    assert list(manifests.read(tmp_path, "n1").pods) != [uid]


def test_uids_are_the_same_in_every_process(tmp_path: Path) -> None:
    put(tmp_path, "web.yaml", POD.replace("{app: web}", "{a: b, c: d, e: f, g: h}"))
    code = (
        "import sys, pathlib; from kcore.kubelet import manifests; "
        "print(*manifests.read(pathlib.Path(sys.argv[1]), 'n1').pods)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert found == {(" ".join(manifests.read(tmp_path, "n1").pods) + "\n").encode()}


def test_what_is_passed_over(tmp_path: Path) -> None:
    for name in (".hidden.yaml", "web.txt", "web.yaml~", "README"):
        (tmp_path / name).write_text(POD)
    (tmp_path / "dir.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "nowhere.yaml").symlink_to(tmp_path / "nothing")
    found = manifests.read(tmp_path, "n1")
    assert not found.pods and not found.problems
    assert not manifests.read(tmp_path / "none", "n1").pods


def test_json_and_several_in_one_file(tmp_path: Path) -> None:
    plain = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "j", "creationTimestamp": None},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
        "status": {},
    }
    put(tmp_path, "j.json", json.dumps(plain))
    put(
        tmp_path, "two.yml", POD + "---\n# nothing\n---\n" + POD.replace("name: web\n", "name: b\n")
    )
    found = manifests.read(tmp_path, "n1")
    assert not found.problems and names(found.pods) == ["b-n1", "j-n1", "web-n1"]
    assert len(found.pods) == 3


def test_one_bad_file_disturbs_no_other(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", "kind: [\n")
    put(tmp_path, "b.yaml", POD)
    put(tmp_path, "c.yaml", POD.replace("imagee", "x").replace("image:", "imagee:"))
    put(tmp_path, "d.yaml", POD)
    put(tmp_path, "e.yaml", "")
    put(tmp_path, "f.yaml", POD.replace("kind: Pod", "kind: Deployment"))
    (tmp_path / "g.yaml").write_bytes(b"\xff\xfe\xfa")
    found = manifests.read(tmp_path, "n1")
    assert names(found.pods) == ["web-n1"]
    assert sorted(found.problems) == ["a.yaml", "c.yaml", "d.yaml", "e.yaml", "f.yaml", "g.yaml"]
    said = found.problems["c.yaml"]
    assert said.startswith(f"{tmp_path}/c.yaml:9:5: spec.containers[0].imagee: unknown field")
    assert "is in b.yaml already" in found.problems["d.yaml"]
    assert found.problems["f.yaml"].endswith('f.yaml:2:7: kind: must be "Pod" here')


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("name: web", "name: ..", "metadata.name"),
        ("name: web", "name: a/b", "metadata.name"),
        ("name: web", "generateName: web-", "metadata.name"),
        ("name: web", f"name: {'x' * 252}", "metadata.name"),
        ("name: web", "name: web\n  uid: ../../x", "metadata.uid"),
        ("name: web", "name: web\n  namespace: ../x", "metadata.namespace"),
        (
            "name: web",
            "name: web\n  annotations: {kubernetes.io/config.hash: a/../b}",
            "metadata.annotations[kubernetes.io/config.hash]",
        ),
        ("- name: main", "- name: a/b", "spec.containers[0].name"),
        ("- name: main", "- name: ..", "spec.containers[0].name"),
        ("image: kcore.local/busybox:1", "image: a b", "spec.containers[0].image"),
        ("mountPath: /data", "mountPath: /a/../b", "spec.containers[0].volumeMounts[0].mountPath"),
        ("mountPath: /data", "mountPath: data", "spec.containers[0].volumeMounts[0].mountPath"),
        ("subPath: a", "subPath: ../../etc", "spec.containers[0].volumeMounts[0].subPath"),
        ("{name: data, m", "{name: other, m", "spec.containers[0].volumeMounts[0].name"),
        ("- name: data", "- name: ../data", "spec.volumes[0].name"),
        ("path: /srv", "path: ../srv", "spec.volumes[0].hostPath.path"),
        (
            "hostPath: {path: /srv}",
            "configMap: {name: c}",
            "spec.volumes[0].configMap",
        ),
        ("hostPath: {path: /srv}", "secret: {secretName: c}", "spec.volumes[0].secret"),
        (
            "hostPath: {path: /srv}",
            "projected: {sources: [{configMap: {name: c}}]}",
            "spec.volumes[0].projected.sources[0].configMap",
        ),
        ("spec:\n", "spec:\n  serviceAccountName: x\n", "spec.serviceAccountName"),
        ("spec:\n", "spec:\n  imagePullSecrets: [{name: x}]\n", "spec.imagePullSecrets"),
        ("spec:\n", "spec:\n  nodeName: n2\n", "spec.nodeName"),
        ("spec:\n", "spec:\n  restartPolicy: Sometimes\n", "spec.restartPolicy"),
        ("spec:\n", "spec:\n  hostname: a/b\n", "spec.hostname"),
        (
            "    volumeMounts:",
            "    envFrom: [{configMapRef: {name: c}}]\n    volumeMounts:",
            "spec.containers[0].envFrom[0].configMapRef",
        ),
        (
            "    volumeMounts:",
            "    env: [{name: a, valueFrom: {secretKeyRef: {name: c, key: k}}}]\n    volumeMounts:",
            "spec.containers[0].env[0].valueFrom.secretKeyRef",
        ),
        (
            "    volumeMounts:",
            "    resources: {limits: {memory: 1Gb}}\n    volumeMounts:",
            "spec.containers[0].resources.limits.memory",
        ),
        (
            "    volumeMounts:",
            "    ports: [{containerPort: 99999}]\n    volumeMounts:",
            "spec.containers[0].ports[0].containerPort",
        ),
    ],
)
def test_what_is_refused_names_its_place(tmp_path: Path, old: str, new: str, path: str) -> None:
    assert old in POD
    put(tmp_path, "web.yaml", POD.replace(old, new, 1))
    found = manifests.read(tmp_path, "n1")
    assert not found.pods
    said = found.problems["web.yaml"].splitlines()
    assert any(f": {path}: " in line for line in said), said
    assert all(line.startswith(f"{tmp_path}/web.yaml:") for line in said)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    bad = POD.replace("- name: main", "- name: a/b").replace("/data", "data")
    put(tmp_path, "web.yaml", bad.replace("    image: kcore.local/busybox:1\n", ""))
    said = manifests.read(tmp_path, "n1").problems["web.yaml"].splitlines()
    assert len(said) == 3


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_does_harm(data: str | bytes) -> None:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    pods, said = manifests.parse(raw, "x.yaml", "x.yaml", "n1")
    assert bool(pods) != bool(said)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["metadata", "spec", "name", "containers", "volumes", "env", "ports", "image"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_no_shape_does_harm(plain: object) -> None:
    whole = {"apiVersion": "v1", "kind": "Pod", "spec": plain, "metadata": plain}
    pods, said = manifests.parse(json.dumps(whole).encode(), "x.json", "x.json", "n1")
    assert bool(pods) != bool(said)


@pytest.mark.looptime
async def test_changes_are_seen_and_slips_are_forgiven(tmp_path: Path) -> None:
    clock = LoopClock()
    told: list[list[str]] = []
    said: list[str] = []

    def wanted(pods: Mapping[str, pod_pb2.Pod]) -> None:
        told.append(names(pods))

    put(tmp_path, "web.yaml", POD)
    running = asyncio.create_task(
        manifests.run(tmp_path, "n1", wanted, clock, lambda name, text: said.append(name))
    )
    await clock.sleep(0.1)
    assert told == [["web-n1"]]
    put(tmp_path, "b.yaml", POD.replace("name: web\n", "name: b\n"))
    await clock.sleep(1.1)
    assert told[-1] == ["b-n1", "web-n1"]
    # A slip: what runs goes on running, and it is said once.
    put(tmp_path, "b.yaml", "kind: [")
    await clock.sleep(60)
    assert (told[-1], said) == (["b-n1", "web-n1"], ["b.yaml"])
    assert len(told) == 2
    put(tmp_path, "b.yaml", POD.replace("name: web\n", "name: c\n"))
    await clock.sleep(1.1)
    assert told[-1] == ["c-n1", "web-n1"]
    (tmp_path / "web.yaml").unlink()
    await clock.sleep(0.6)
    assert told[-1] == ["c-n1"]
    # Another text is another pod, under the same name.
    put(tmp_path, "b.yaml", POD.replace("name: web\n", "name: c\n").replace("1000", "1001"))
    await clock.sleep(1.1)
    assert told[-1] == ["c-n1"] and len(told) == 5
    running.cancel()


@pytest.mark.looptime
async def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    clock = LoopClock()
    found = manifests.Manifests(tmp_path, "n1")
    found.look(whole=True)
    with (tmp_path / "web.yaml").open("w") as file:
        for line in POD.splitlines(keepends=True):
            file.write(line)
            file.flush()
            found.look(whole=True)
            assert found.reading() == manifests.Reading({}, {})
            await clock.sleep(0.5)
    found.look(whole=False)
    assert names(found.reading().pods) == ["web-n1"]


def test_a_directory_that_cannot_be_read_is_not_empty(tmp_path: Path) -> None:
    directory = tmp_path / "manifests"
    directory.mkdir()
    put(directory, "web.yaml", POD)
    found = manifests.Manifests(directory, "n1")
    found.look(whole=True)
    directory.rename(tmp_path / "aside")
    # Not a directory any more.
    directory.write_text("")
    found.look(whole=True)
    assert names(found.reading().pods) == ["web-n1"]
    assert "" in found.reading().problems
    directory.unlink()
    found.look(whole=True)
    assert not found.reading().pods


def test_defaults_of_a_host_network_pod() -> None:
    pod = pod_pb2.Pod()
    pod.metadata.name = "x"
    pod.spec.host_network = True
    container = pod.spec.containers.add(name="c", image="x")
    container.ports.add(container_port=80)
    container.resources.limits["cpu"].string = "1"
    pod.spec.volumes.add(name="v")
    made, problems = static_pod.make(pod, "n1", "x.yaml")
    assert not problems
    port = made.spec.containers[0].ports[0]
    assert (port.host_port, port.protocol) == (80, "TCP")
    assert made.spec.containers[0].image_pull_policy == "Always"
    assert made.spec.containers[0].resources.requests["cpu"].string == "1"
    assert made.spec.volumes[0].volume_source.HasField("empty_dir")
    assert not pod.spec.restart_policy
