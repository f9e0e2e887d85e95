"""Manifests: goldens of what is said about wrong ones, and the forms that files have."""

import http.server
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcore.client import kinds, manifest, problem, yaml_writer
from kcore.wire.errors import Violation

CASES = Path(__file__).parent.parent / "cases" / "manifests"
KINDS = kinds.built_in()


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")) + sorted(CASES.glob("*.json")),
                         ids=lambda path: path.name)  # fmt: skip
def test_what_is_said_about_wrong_manifests(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)
    try:
        found = manifest.load([path.name], KINDS)
        said = "".join(f"{m.kind.full_name} at {m.at}\n{m.message}" for m in found)
    except problem.Refused as refused:
        said = f"{refused}\n"
    golden = path.with_suffix(path.suffix + ".txt")
    if os.environ.get("BLESS"):
        golden.write_text(said)
    assert golden.read_text() == said


def names(*sources: str, recursive: bool = False, stdin: bytes = b"") -> list[str]:
    found = manifest.load(sources, KINDS, recursive=recursive, stdin=lambda: stdin)
    return [getattr(m.message, "metadata").name for m in found]  # noqa: B009


def test_files_directories_and_standard_input(tmp_path: Path) -> None:
    one = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"
    (tmp_path / "b.yaml").write_text(one % "b")
    (tmp_path / "a.yml").write_text(one % "a")
    (tmp_path / "c.json").write_text(
        '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}'
    )
    (tmp_path / "README.md").write_text("# no manifest")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.yaml").write_text(one % "d")
    assert names(str(tmp_path)) == ["a", "b", "c"]
    assert names(str(tmp_path), recursive=True) == ["a", "b", "c", "d"]
    assert names(str(tmp_path / "b.yaml"), "-", stdin=(one % "x").encode()) == ["b", "x"]
    assert names("-", stdin=(one % "x").encode("utf-16")) == ["x"]
    assert names("-", stdin=b"---\n# only words\n---\n") == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nothing.yaml", "nothing.yaml: no such file or directory"),
        ("no*thing.yaml", "no*thing.yaml: no file is like this"),
        ("http://127.0.0.1:1/x.yaml", "http://127.0.0.1:1/x.yaml: [Errno 111] Connection refused"),
    ],
)
def test_sources_that_cannot_be_read(source: str, said: str) -> None:
    with pytest.raises(problem.Refused) as refused:
        manifest.load([source], KINDS)
    assert str(refused.value) == said


def test_an_empty_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(problem.Refused, match=r"no \.yaml, \.yml or \.json file"):
        manifest.load([str(tmp_path)], KINDS)


def test_bytes_that_are_no_text_have_a_place() -> None:
    with pytest.raises(problem.Refused) as refused:
        manifest.load(["-"], KINDS, stdin=lambda: b"a: b\nc: \xff\n")
    assert str(refused.value) == "<stdin>:2:4: is not UTF-8 text"


def test_what_a_server_complains_about_is_shown_in_the_file() -> None:
    text = (
        b"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n"
        b"  metadata:\n    name: A_b\n    labels: {app.kubernetes.io/name: '-'}\n"
    )
    (one,) = manifest.load(["-"], KINDS, stdin=lambda: text)
    assert one.show(Violation("metadata.name", "is no name")) == (
        "<stdin>:7:11: metadata.name: is no name\n"
        " 7 |     name: A_b\n"
        "   |           ^^^"
    )  # fmt: skip
    assert one.show(Violation("metadata.labels[app.kubernetes.io/name]", "bad")).startswith(
        "<stdin>:8:38: metadata.labels[app.kubernetes.io/name]: bad\n"
    )
    assert one.show(Violation("", "bad")).startswith("<stdin>:4:3: bad")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "containers", "template", "spec", "labels", "items", "x.y"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.sampled_from(["v1", "apps/v1", "v2", "", None, 1]),
    st.sampled_from(["Pod", "Deployment", "List", "ConfigMap", "Secret", "Nothing", "", 3]),
    st.dictionaries(st.sampled_from(["metadata", "spec", "items", "data", "type"]), VALUES),
)
def test_any_object_is_taken_or_refused_with_a_place(
    version: object, kind: object, rest: dict[str, object]
) -> None:
    text = yaml_writer.write({"apiVersion": version, "kind": kind, **rest})
    try:
        manifest.load(["-"], KINDS, stdin=lambda: text.encode())
    except problem.Refused as refused:
        for said in refused.said:
            assert re.match(r"<stdin>:\d+:\d+: ", said)


def test_manifests_come_from_patterns_and_from_the_network(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(
            f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
        )
    found = manifest.load([f"{tmp_path}/*.yaml"], KINDS)
    assert [one.document.plain["metadata"]["name"] for one in found] == ["a", "b"]

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, directory=str(tmp_path), **more)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        (one,) = manifest.load([f"{base}/b.yaml"], KINDS)
        assert one.document.name == f"{base}/b.yaml"
        with pytest.raises(problem.Refused, match=r"c\.yaml: 404 File not found"):
            manifest.load([f"{base}/c.yaml"], KINDS)
        server.shutdown()
