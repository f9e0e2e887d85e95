"""What is written as YAML is read back as it was, by us and by other readers."""

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kcore.client import document, yaml_writer

STRINGS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text("ab: #-\n\t'\"|>&*!%@`{}[],?~=0123456789.eExo+", max_size=20),
    st.sampled_from(
        ["yes", "No", "0400", "1e3", "12:30", "2026-01-01", "null", "", "~", "y", "0x1f", "1_000"]
    ),
    st.sampled_from(
        [".inf", "-", "- a", "a: b", "a #b", "<<", "=", "0o7", "---", "...", "1.", "+1", "a:"]
    ),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        STRINGS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(STRINGS, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_reads_back(value: object) -> None:
    text = yaml_writer.write(value)
    read = document.read(text, "x.yaml")
    assert [p for d in read for p in d.problems] == []
    assert [d.plain for d in read] == [value]
    assert yaml.load(text, yaml.CSafeLoader) == value


@given(VALUES)
def test_json_reads_as_json(value: object) -> None:
    whole = {"v": value}
    for text in (json.dumps(whole), json.dumps(whole, indent=2, ensure_ascii=False)):
        assert [d.plain for d in document.read(text, "x.json")] == [whole]


def test_looks_as_people_know_it() -> None:
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web", "on": "yes"}},
        "data": {"run.sh": "#!/bin/sh\necho hi\n", "mode": "0400", "ip": "10.0.0.1", "cpu": "100m"},
        "args": ["--x=1", "-v", "a b", "*", "$(HOME)/x"],
        "list": [{"a": 1, "b": [1.5, []]}, [{}]],
    }
    assert (
        yaml_writer.write(value)
        == """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  labels:
    app.kubernetes.io/name: web
    "on": "yes"
data:
  run.sh: |
    #!/bin/sh
    echo hi
  mode: "0400"
  ip: 10.0.0.1
  cpu: 100m
args:
- --x=1
- -v
- a b
- "*"
- $(HOME)/x
list:
- a: 1
  b:
  - 1.5
  - []
- - {}
"""
    )
