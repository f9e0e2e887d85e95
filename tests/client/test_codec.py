"""Messages as plain values: what goes round comes back, and what is wrong is all said."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcore.client import codec, document, kinds, yaml_writer
from kcore.wire.errors import ApiError, Reason
from tests import budget
from tests.client.messages import messages

KINDS = kinds.built_in()
NAMES = [kind.full_name for kind in KINDS.kinds]


def plain_of(kind: str, plain: dict[str, Any]) -> dict[str, Any]:
    """There and back."""
    found = next(k for k in KINDS.kinds if k.name == kind)
    return codec.to_plain(codec.from_plain(found.descriptor, plain))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=budget.examples(60), deadline=None)
@given(data=st.data())
def test_every_message_comes_back(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    message = data.draw(messages(kind.descriptor))
    plain = codec.to_plain(message)
    assert list(plain)[:2] == ["apiVersion", "kind"]
    for text in (yaml_writer.write(plain), json.dumps(plain)):
        (read,) = document.read(text, "x")
        assert read.problems == []
        again, problems = codec.read(kind.descriptor, read.plain)
        assert problems == []
        # An inline message holds nothing of its own: empty, it is not told from absent.
        assert codec.to_plain(again) == plain
        assert again.FromString(again.SerializeToString()) == again


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=budget.examples(60), deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["metadata", "spec", "status", "name", "containers", "data", "x"]),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=10,
    )
)
def test_any_value_is_taken_or_refused(name: str, plain: Any) -> None:
    if isinstance(plain, dict):
        message, problems = codec.read(KINDS[name].descriptor, plain)
        assert problems or codec.read(KINDS[name].descriptor, codec.to_plain(message))[1] == []


def test_json_names_are_kubernetes_own() -> None:
    status = {
        "hostIP": "1.1.1.1",
        "hostIPs": [{"ip": "1.1.1.1"}],
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "qosClass": "Burstable",
        "containerStatuses": [{"name": "a", "imageID": "sha256:1", "containerID": "x://1"}],
    }
    assert plain_of("Pod", {"status": status})["status"] == status
    spec = {"hostPID": True, "hostIPC": False, "setHostnameAsFQDN": False}
    assert plain_of("Pod", {"spec": spec})["spec"] == spec


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("Deployment", {"spec": {"replicas": 0, "paused": False, "minReadySeconds": 0}}),
        ("Deployment", {"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0}}}}),
        ("Deployment", {"spec": {"strategy": {"rollingUpdate": {"maxSurge": "25%"}}}}),
        ("Pod", {"spec": {"terminationGracePeriodSeconds": 0, "enableServiceLinks": False}}),
        ("Pod", {"spec": {"automountServiceAccountToken": False}}),
        ("Pod", {"spec": {"securityContext": {"runAsUser": 0}}}),
        ("Pod", {"spec": {"containers": [{"name": ""}]}}),
        ("Pod", {"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}}),
        ("ConfigMap", {"immutable": False}),
        ("Pod", {}),
    ],
)
def test_zero_is_not_unset(kind: str, plain: dict[str, Any]) -> None:
    shown = plain_of(kind, plain)
    del shown["apiVersion"], shown["kind"]
    assert shown == plain


def test_inline_fields_stand_in_their_parents_place() -> None:
    plain = {
        "spec": {
            "volumes": [{"name": "a", "configMap": {"name": "cm", "optional": False}}],
            "containers": [
                {
                    "name": "c",
                    "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3},
                    "envFrom": [{"secretRef": {"name": "s"}}],
                }
            ],
        }
    }
    shown = plain_of("Pod", plain)
    assert shown["spec"] == plain["spec"]
    assert list(shown["spec"]["volumes"][0]) == ["name", "configMap"]


def test_scalars_that_are_messages() -> None:
    made = plain_of(
        "Pod",
        {
            "metadata": {"creationTimestamp": "2026-01-31T12:00:00+02:00"},
            "spec": {
                "containers": [
                    {
                        "resources": {"limits": {"cpu": 1, "memory": "1.5Gi", "a/b": 0.5}},
                        "readinessProbe": {"tcpSocket": {"port": 80}},
                    }
                ]
            },
        },
    )
    assert made["metadata"]["creationTimestamp"] == "2026-01-31T10:00:00Z"
    container = made["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"a/b": "0.5", "cpu": "1", "memory": "1.5Gi"}
    assert container["readinessProbe"]["tcpSocket"]["port"] == 80


def test_times_keep_what_their_kind_keeps() -> None:
    lease = {"spec": {"renewTime": "2026-01-31T12:00:00.123456789Z"}}
    assert plain_of("Lease", lease)["spec"]["renewTime"] == "2026-01-31T12:00:00.123456Z"
    pod = {"status": {"startTime": "2026-01-31T12:00:00.9Z"}}
    assert plain_of("Pod", pod)["status"]["startTime"] == "2026-01-31T12:00:00Z"


def test_bytes_are_base64_and_maps_have_any_key() -> None:
    data = {"a.b/c": base64.b64encode(bytes(range(256))).decode(), "": "", "é": "aGk="}
    assert plain_of("Secret", {"data": data})["data"] == dict(sorted(data.items()))
    assert plain_of("ConfigMap", {"data": {"a": None}})["data"] == {"a": ""}


def test_quantities_keep_their_text() -> None:
    (read,) = document.read("a: [100m, 0.10, 1, 1e3, 128Mi, 129M, 12e6, 1.5Gi, 0400]", "x")
    for value, text in zip(
        read.plain["a"],
        ["100m", "0.10", "1", "1e3", "128Mi", "129M", "12e6", "1.5Gi", "256"],
        strict=True,
    ):
        made = plain_of("Pod", {"spec": {"overhead": {"cpu": value}}})
        assert made["spec"]["overhead"]["cpu"] == text


def test_modes_are_octal() -> None:
    (read,) = document.read("{a: 0400, b: 0o400, c: 256, d: 0x100}", "x")
    assert set(read.plain.values()) == {256}


def test_all_that_is_wrong_is_said_at_once() -> None:
    kind = next(k for k in KINDS.kinds if k.name == "Pod")
    with pytest.raises(ApiError) as refused:
        codec.from_plain(
            kind.descriptor,
            {
                "apiVersion": "v2",
                "metadata": {"name": "web", "labels": {"a": 1}, "generation": 1.5},
                "spec": {
                    "containers": [{"imagee": "x"}, None, {"ports": {}}],
                    "nodeName": True,
                    "restartPolicy": [],
                    "volumes": [{"configMap": {"defaultMode": 2**40}}],
                },
                "statu": {},
            },
        )
    assert refused.value.reason is Reason.INVALID
    assert refused.value.message.startswith('Pod "web" is invalid: ')
    assert [str(v) for v in refused.value.violations] == [
        'apiVersion: expected "v1"',
        "metadata.labels.a: expected a string, got the number 1; put it in quotes",
        "metadata.generation: expected a whole number, got 1.5",
        'spec.containers[0].imagee: unknown field, did you mean "image"?',
        "spec.containers[1]: must not be null",
        "spec.containers[2].ports: expected a list, got a mapping",
        "spec.nodeName: expected a string, got a boolean; put it in quotes",
        "spec.restartPolicy: expected a string, got a list",
        "spec.volumes[0].configMap.defaultMode: must be between -2147483648 and 2147483647",
        'statu: unknown field, did you mean "status"?',
    ]


@pytest.mark.parametrize(
    "time",
    [
        "",
        "now",
        "2026-01-31",
        "2026-02-30T00:00:00Z",
        "2026-01-31T12:00:00",
        "2026-01-31T25:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-31 12:00:00Z",
        "9999-12-31T23:59:59-99:00",
        5,
        None,
        [],
    ],
)
def test_what_is_no_time_is_refused_or_unset(time: Any) -> None:
    kind = next(k for k in KINDS.kinds if k.name == "Pod")
    _, problems = codec.read(kind.descriptor, {"metadata": {"deletionTimestamp": time}})
    assert bool(problems) is (time is not None)


def test_hostile_bytes_are_shown() -> None:
    kind = next(k for k in KINDS.kinds if k.name == "Pod")
    message: Any = kind.message()
    message.metadata.creation_timestamp.seconds = 2**62
    message.metadata.deletion_timestamp.seconds = -(2**62)
    message.metadata.managed_fields.add().fields_v1.raw = b"{"
    shown = codec.to_plain(message)["metadata"]
    assert shown["creationTimestamp"] == "9999-12-31T23:59:59Z"
    assert "deletionTimestamp" not in shown
    assert shown["managedFields"] == [{"fieldsV1": {}}]
