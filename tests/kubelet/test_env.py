"""The environment, command and arguments of a container."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet import env
from tests.kubelet.scene import UID, pod

FACTS = env.Facts(("10.0.0.7",), ("192.0.2.1",), {"cpu": "2", "memory": "8Gi"})
NAMED = env.Named(
    config_maps={"m": {"A": b"map", "B": b"b"}, "n": {"A": b"later"}},
    secrets={"s": {"PASSWORD": b"x\nroot2::0:0::/:/bin/sh", "RAW": b"\xff\xfe"}},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(hostname -f)", "$(hostname -f)"),
        ("$(echo $$)", "$(echo $$)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$$", "$"),
        ("$(A)$(A)", "11"),
        # What it stands for is not looked at again.
        ("$(C)", "$(A)"),
    ],
)
def test_names_in_brackets_become_values(text: str, expected: str) -> None:
    assert env.expand(text, {"A": "1", "B": "2", "C": "$(A)"}) == expected


@given(st.text(alphabet="$()AB -\n", max_size=30))
def test_doubled_dollars_make_any_text_stand_for_itself(text: str) -> None:
    assert env.expand(text.replace("$", "$$"), {"A": "1"}) == text


@given(st.text(max_size=30), st.dictionaries(st.sampled_from("AB"), st.text(max_size=5)))
def test_it_is_always_a_text(text: str, known: dict[str, str]) -> None:
    env.expand(text, known)


def container() -> container_pb2.Container:
    """Nothing but a name."""
    return container_pb2.Container(name="a")


def variables(one: container_pb2.Container, of: pod_pb2.Pod | None = None) -> dict[str, str]:
    """Its environment."""
    return env.variables(of or pod(), one, NAMED, FACTS)


def test_later_sources_win_and_env_wins_over_all() -> None:
    one = container()
    for name in ("m", "n"):
        one.env_from.add().config_map_ref.local_object_reference.name = name
    one.env_from.add(prefix="P_").config_map_ref.local_object_reference.name = "m"
    one.env.add(name="B", value="own $(A)")
    one.env.add(name="C", value="$(B), $(D)")
    one.env.add(name="D", value="$(P_A)")
    assert variables(one) == {
        "A": "later",
        "B": "own later",
        "P_A": "map",
        "P_B": "b",
        # D comes later, so it stands as it is.
        "C": "own later, $(D)",
        "D": "map",
    }


def test_values_reach_the_process_as_they_are() -> None:
    """S18: a newline in a value is a newline in a value."""
    one = container()
    one.env_from.add().secret_ref.local_object_reference.name = "s"
    found = variables(one)
    assert found["PASSWORD"] == "x\nroot2::0:0::/:/bin/sh"
    assert found["RAW"].encode("utf-8", "surrogateescape") == b"\xff\xfe"


@pytest.mark.parametrize("what", ["config_map", "secret"])
@pytest.mark.parametrize("optional", [True, False])
def test_what_is_missing_and_not_optional_is_an_error(what: str, optional: bool) -> None:
    for name, key in (("gone", "A"), ("m" if what == "config_map" else "s", "gone")):
        one = container()
        reference = getattr(one.env.add(name="X").value_from, f"{what}_key_ref")
        reference.local_object_reference.name, reference.key = name, key
        reference.optional = optional
        if optional:
            assert variables(one) == {}
        else:
            with pytest.raises(env.Missing, match="gone"):
                variables(one)
    one = container()
    source = getattr(one.env_from.add(), f"{what}_ref")
    source.local_object_reference.name, source.optional = "gone", optional
    if optional:
        assert variables(one) == {}
    else:
        with pytest.raises(env.Missing, match='"gone" not found'):
            variables(one)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "default"),
        ("metadata.uid", UID),
        ("metadata.labels['app']", "x"),
        ("metadata.labels['no']", ""),
        ("metadata.annotations['example.com/a.b']", "y"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1"),
        ("status.podIP", "10.0.0.7"),
        ("status.podIPs", "10.0.0.7"),
    ],
)
def test_a_pod_is_told_of_itself(path: str, expected: str) -> None:
    of = pod(node_name="n1", service_account_name="default")
    of.metadata.labels["app"] = "x"
    of.metadata.annotations["example.com/a.b"] = "y"
    one = container()
    one.env.add(name="X").value_from.field_ref.field_path = path
    assert variables(one, of) == {"X": expected}


def test_other_fields_are_not_told() -> None:
    with pytest.raises(env.Missing, match=r"spec\.priority"):
        env.field_value(pod(), "spec.priority", FACTS)


def test_labels_as_a_file_have_one_line_each() -> None:
    of = pod()
    of.metadata.annotations.update({"b": 'two\nlines "x"', "a": "1"})
    assert env.field_value(of, "metadata.annotations", FACTS) == 'a="1"\nb="two\\nlines \\"x\\""'


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", "", "1"),
        ("limits.cpu", "1m", "250"),
        ("requests.cpu", "", "1"),
        ("requests.cpu", "1m", "100"),
        ("limits.memory", "", "67108864"),
        ("limits.memory", "1Mi", "64"),
        ("requests.memory", "1Mi", "0"),
        ("limits.ephemeral-storage", "", "0"),
    ],
)
def test_resources_are_rounded_up(resource: str, divisor: str, expected: str) -> None:
    one = container()
    one.resources.limits["cpu"].string = "250m"
    one.resources.limits["memory"].string = "64Mi"
    one.resources.requests["cpu"].string = "100m"
    source = one.env.add(name="X").value_from.resource_field_ref
    source.resource = resource
    if divisor:
        source.divisor.string = divisor
    assert variables(one) == {"X": expected}


def test_without_a_limit_it_is_what_the_node_has() -> None:
    one = container()
    one.env.add(name="C").value_from.resource_field_ref.resource = "limits.cpu"
    memory = one.env.add(name="M").value_from.resource_field_ref
    memory.resource, memory.divisor.string = "limits.memory", "1Gi"
    assert variables(one) == {"C": "2", "M": "8"}


def test_all_that_is_named_is_found_for_fetching() -> None:
    of = pod(init="i")
    of.spec.containers[0].env_from.add().config_map_ref.local_object_reference.name = "a"
    key = of.spec.init_containers[0].env.add(name="X").value_from.secret_key_ref
    key.local_object_reference.name = "b"
    of.spec.volumes.add(name="v").volume_source.secret.secret_name = "c"
    projected = of.spec.volumes.add(name="w").volume_source.projected
    projected.sources.add().config_map.local_object_reference.name = "d"
    of.spec.image_pull_secrets.add(name="e")
    assert env.names(of) == (["a", "d"], ["b", "c", "e"])
