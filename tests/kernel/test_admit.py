"""What an object must be: defaults, checks with their places, all at once; schema and CEL."""

from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, secret_pb2

from kcore.kernel import format, path, schema
from kcore.wire import cel
from kcore.wire.errors import ApiError, Reason
from tests.kernel import world as worlds
from tests.kernel.test_commit import deployment
from tests.kernel.world import (
    CONFIG_MAP,
    DEPLOYMENT,
    NODE,
    POD,
    SECRET,
    World,
    config_map,
    pod,
    refused,
)


@pytest.fixture
async def w() -> Any:
    async with worlds.world() as made:
        yield made


async def places(w: World, kind: str, message: Any) -> dict[str, str]:
    """Violations of a creation, by place."""
    with pytest.raises(ApiError) as caught:
        await w.create(kind, message)
    assert caught.value.reason is Reason.INVALID
    return {one.path: one.message for one in caught.value.violations}


# Defaults.


async def test_a_deployment_is_completed(w: World) -> None:
    made = await w.create(DEPLOYMENT, deployment())
    spec = made.spec
    assert (spec.replicas, spec.revision_history_limit, spec.progress_deadline_seconds) == (
        1,
        10,
        600,
    )
    assert spec.strategy.type == "RollingUpdate"
    assert spec.strategy.rolling_update.max_surge.str_val == "25%"
    container = spec.template.spec.containers[0]
    assert container.image_pull_policy == "IfNotPresent"
    assert container.termination_message_path == "/dev/termination-log"
    assert spec.template.spec.restart_policy == "Always"


async def test_a_present_zero_is_not_absent(w: World) -> None:
    made = await w.create(DEPLOYMENT, deployment(replicas=0, revision_history_limit=0))
    assert (made.spec.replicas, made.spec.revision_history_limit) == (0, 0)
    given = pod("p", termination_grace_period_seconds=0, restart_policy="")
    stored = await w.create(POD, given)
    assert stored.spec.termination_grace_period_seconds == 0
    assert stored.spec.restart_policy == "Always"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
    ],
)
async def test_a_default_may_depend_on_another_field(w: World, image: str, policy: str) -> None:
    for name in ("first", "again"):
        made = pod(name, containers=[{"name": "c", "image": image}])
        assert (await w.create(POD, made)).spec.containers[0].image_pull_policy == policy


async def test_a_volume_without_source_is_an_empty_directory(w: World) -> None:
    made = pod("p", volumes=[{"name": "v"}])
    stored = await w.create(POD, made)
    assert stored.spec.volumes[0].volume_source.HasField("empty_dir")


async def test_what_is_write_only_is_not_stored(w: World) -> None:
    made = secret_pb2.Secret(metadata={"name": "s", "namespace": "default"})
    made.data["a"], made.data["b"] = b"1", b"2"
    made.string_data["b"] = "3"
    stored = await w.create(SECRET, made)
    assert dict(stored.data) == {"a": b"1", "b": b"3"}
    assert not stored.string_data
    assert stored.type == "Opaque"


# Checks.


async def test_all_violations_at_once_each_with_its_place(w: World) -> None:
    bad = deployment(replicas=-1)
    container = bad.spec.template.spec.containers[0]
    container.ClearField("image")
    container.image_pull_policy = "Sometimes"
    container.ports.add(container_port=99999)
    container.env.add(name="A=B")
    container.resources.limits["cpu"].string = "many"
    bad.metadata.labels["bad key"] = "x"
    bad.spec.selector.match_labels["app"] = "other"
    bad.spec.strategy.rolling_update.max_surge.type = 1
    bad.spec.strategy.rolling_update.max_surge.str_val = "lots"
    top = "spec.template.spec.containers[0]"
    found = await places(w, DEPLOYMENT, bad)
    assert found[f"{top}.image"] == "Required value"
    assert found[f"{top}.imagePullPolicy"].startswith('Unsupported value: "Sometimes": supported')
    assert found[f"{top}.ports[0].containerPort"].startswith("Invalid value: 99999")
    assert found[f"{top}.env[0].name"].startswith('Invalid value: "A=B": must be')
    assert found[f"{top}.resources.limits[cpu]"].startswith('Invalid value: "many": must be a quan')
    assert found["spec.replicas"] == "Invalid value: -1: must be greater than or equal to 0"
    assert found["metadata.labels"].startswith("Invalid value: bad key: must be")
    assert found["spec.template.metadata.labels"] == "must match the selector"
    assert found["spec.strategy.rollingUpdate.maxSurge"].startswith('Invalid value: "lots"')


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        (lambda p: p.metadata.__setattr__("name", "Big"), "metadata.name", "DNS subdomain"),
        (
            lambda p: p.spec.containers[0].__setattr__("name", "a.b"),
            "spec.containers[0].name",
            "DN",
        ),
        (lambda p: p.spec.ClearField("containers"), "spec.containers", "Required value"),
        (lambda p: p.metadata.finalizers.append("mine"), "metadata.finalizers[0]", "domain"),
        (
            lambda p: p.metadata.finalizers.extend(["a/b", "a/b"]),
            "metadata.finalizers[1]",
            "Duplicate value",
        ),
        (
            lambda p: p.metadata.owner_references.add(kind="X", name="x", uid="u"),
            "metadata.ownerReferences[0].apiVersion",
            "Required value",
        ),
        (
            lambda p: [
                p.metadata.owner_references.add(
                    api_version="v1", kind="X", name="x", uid=uid, controller=True
                )
                for uid in "ab"
            ],
            "metadata.ownerReferences[1].controller",
            "only one owner",
        ),
        (
            lambda p: p.metadata.annotations.__setitem__("big", "x" * (257 << 10)),
            "metadata.annotations",
            "at most 262144 bytes",
        ),
        (
            lambda p: p.metadata.labels.__setitem__("k", "v" * 64),
            "metadata.labels",
            "at most 63",
        ),
        (
            lambda p: p.spec.volumes.add(name="v").volume_source.host_path.SetInParent(),
            "spec.volumes[0].hostPath.path",
            "Required value",
        ),
        (
            lambda p: [
                p.spec.volumes.add(name="v").volume_source.host_path.__setattr__("path", "/x"),
                p.spec.volumes[0].volume_source.secret.__setattr__("secret_name", "s"),
            ],
            "spec.volumes[0]",
            "exactly one source",
        ),
    ],
)
async def test_what_a_pod_may_not_be(w: World, change: Any, place: str, said: str) -> None:
    bad = pod("p")
    change(bad)
    found = await places(w, POD, bad)
    assert said in found[place], found


async def test_unknown_field_numbers_are_refused_with_their_place(w: World) -> None:
    body = config_map("a").SerializeToString() + b"\xfa\x3f\x01x"
    operation = pb.Operation(ref=pb.Ref(kind=CONFIG_MAP), create=body)
    with refused(Reason.INVALID, "unknown field number 1023"):
        await w.run(operation)
    made = pod("p")
    container = made.spec.containers[0].SerializeToString() + b"\xfa\x3f\x01x"
    made.spec.ClearField("containers")
    spec = made.spec.SerializeToString() + b"\x12" + bytes([len(container)]) + container
    made.ClearField("spec")
    operation = pb.Operation(
        ref=pb.Ref(kind=POD), create=made.SerializeToString() + b"\x12" + bytes([len(spec)]) + spec
    )
    with refused(Reason.INVALID, "spec.containers[0]: unknown field number 1023"):
        await w.run(operation)


async def test_metadata_that_comes_twice_is_one_object(w: World) -> None:
    """What is asked permission for is what is written, however the bytes are spliced."""
    body = config_map("a").SerializeToString() + config_map("b", "other").SerializeToString()
    operation = pb.Operation(ref=pb.Ref(kind=CONFIG_MAP), create=body)
    key = w.kernel.key_of(operation)
    assert (key.namespace, key.name) == ("other", "b")
    await w.create(worlds.NAMESPACE, worlds.namespace("other"))
    await w.run(operation)
    assert w.there(CONFIG_MAP, "b", "other") and not w.there(CONFIG_MAP, "a")


async def test_immutable_fields_are_named(w: World) -> None:
    made = await w.create(DEPLOYMENT, deployment())
    made.spec.selector.match_labels["more"] = "x"
    made.spec.template.metadata.labels["more"] = "x"
    with refused(Reason.INVALID, "spec.selector: field is immutable"):
        await w.update(DEPLOYMENT, made)
    running = await w.create(POD, pod("p"))
    running.spec.containers[0].image = "other:1"
    running = await w.update(POD, running)
    running.spec.containers[0].command.append("sh")
    running.spec.hostname = "x"
    with refused(Reason.INVALID, "spec.containers[0].command: field is immutable") as caught:
        await w.update(POD, running)
    assert caught.error is not None
    assert {one.path for one in caught.error.violations} == {
        "spec.containers[0].command",
        "spec.hostname",
    }


async def test_what_was_stored_is_not_judged_anew(w: World) -> None:
    """A status write is not refused for a spec that it doesn't touch."""
    made = await w.create(POD, pod("p"))
    made.status.phase = "Running"
    made.spec.ClearField("containers")
    stored = await w.update(POD, made, "status")
    assert stored.status.phase == "Running" and len(stored.spec.containers) == 1
    stored.status.phase = "Succeeded"
    stored = await w.update(POD, stored, "status")
    stored.status.phase = "Running"
    with refused(Reason.INVALID, "status.phase: Succeeded and Failed are final"):
        await w.update(POD, stored, "status")


async def test_fields_that_nobody_acts_on_are_told_of_once(w: World) -> None:
    made = pod("p", volumes=[{"name": "v"}])
    made.spec.volumes[0].volume_source.persistent_volume_claim.claim_name = "c"
    said = "spec.volumes[0].persistentVolumeClaim: stored, but not acted on"
    for name in ("p", "q"):
        made.metadata.name = name
        result = await w.run(worlds.create(POD, made))
        assert list(result.operations[0].warnings) == [said]
    made.metadata.labels["a"] = "b"
    result = await w.run(worlds.update(POD, made))
    assert result.operations[0].changed and not result.operations[0].warnings


async def test_sensitive_values_are_not_said(w: World) -> None:
    made = secret_pb2.Secret(metadata={"name": "s", "namespace": "default"}, type="x")
    made.data["../etc"] = b"hush"
    with pytest.raises(ApiError) as caught:
        await w.create(SECRET, made)
    assert "hush" not in str(caught.value)


async def test_a_refused_object_is_refused_again(w: World) -> None:
    """Contents that were found good are remembered; bad ones are not."""
    bad = pod("p", restart_policy="Sometimes")
    for _ in range(2):
        assert "spec.restartPolicy" in await places(w, POD, bad)
    for name in ("a", "b"):
        await w.create(POD, pod(name))


# The parts.


def test_formats() -> None:
    good = {
        "dns-subdomain": ["a", "a.b-c.d", "1", "a" * 253],
        "path-segment": ["a", "system:A b", "a" * 253],
        "dns-label": ["a", "0-9", "a" * 63],
        "dns-1035": ["a", "a-1"],
        "port-name": ["http", "h2c", "a-b"],
        "qualified-name": ["a", "A_b.c", "example.com/Name"],
        "label-value": ["", "A.b_c-1"],
        "ip": ["10.0.0.1", "::1"],
        "cidr": ["10.0.0.0/8", "fd00::/64"],
        "env-name": ["A", "a.b", "_x"],
        "absolute-path": ["/", "/a/b..c"],
        "relative-path": ["a", "a/b", "..a"],
        "config-key": ["a", "A_b-c.d", ".dockerconfigjson"],
        "quantity": ["1", "100m", "1.5Gi", "12e6", "-1"],
        "quantity-nonnegative": ["0", "1Ki"],
        "image": ["nginx", "a.b:5000/c/d:e@sha256:f"],
        "sysctl": ["net.ipv4.ip_forward", "net/ipv4/x"],
    }
    bad = {
        "dns-subdomain": ["", "A", "a..b", "-a", "a-", ".a", "a" * 254, "a_b"],
        "path-segment": ["", ".", "..", "a/b", "a%2f", "a\nb", "a" * 254],
        "dns-label": ["", "a.b", "a" * 64, "A"],
        "dns-1035": ["1a", ""],
        "port-name": ["123", "a--b", "a" * 16, "", "-a"],
        "qualified-name": ["", "/a", "a/", "a/b/c", "A/b", "a" * 64, "ä"],
        "label-value": ["-", "a" * 64, "a b"],
        "ip": ["", "1.2.3", "01.2.3.4", "fe80::1%eth0"],
        "cidr": ["10.0.0.0", "10.0.0.0/33", ""],
        "env-name": ["", "a=b", "a\nb"],
        "absolute-path": ["", "a", "/../x"],
        "relative-path": ["", "/a", "../x", "a/../b"],
        "config-key": ["", "a/b", "..", ".", "..a", "a" * 254],
        "quantity": ["", "x", "1 Gi", "1ki"],
        "quantity-nonnegative": ["-1"],
        "image": ["a b", " a", "a\n"],
        "sysctl": ["", "A", "a..b"],
    }
    assert set(good) == set(bad) == set(format.TEXTS)
    for name, texts in good.items():
        for text in texts:
            assert format.TEXTS[name](text) == "", (name, text)
    for name, texts in bad.items():
        for text in texts:
            assert format.TEXTS[name](text), (name, text)


def test_paths_go_through_lists_and_maps() -> None:
    kind = worlds.kinds().kind(POD)
    made = kind.message()
    for name in "ab":
        made.spec.containers.add(name=name, image=f"i{name}")
    made.metadata.labels["a.b/c"] = "v"
    descriptor = kind.message.DESCRIPTOR

    def found(text: str) -> list[tuple[str, Any]]:
        return list(path.values(made, path.compile_path(descriptor, text)))

    assert found("spec.containers.image") == [
        ("spec.containers[0].image", "ia"),
        ("spec.containers[1].image", "ib"),
    ]
    assert found("metadata.labels.a.b/c") == [("metadata.labels[a.b/c]", "v")]
    assert found("spec.nodeName") == found("spec.node_name") == []
    assert path.compile_path(descriptor, "status.pod_ip").text == "status.podIP"
    with pytest.raises(ValueError, match="PodSpec has no field 'nope'"):
        path.compile_path(descriptor, "spec.nope")


def test_expressions_speak_proto_names_and_json_names() -> None:
    kind = worlds.kinds().kind(POD)
    engine = cel.Engine(kind.message.DESCRIPTOR.file.pool)
    made = kind.message()
    made.spec.node_name = "n"
    made.status.pod_ip = "1.2.3.4"
    made.metadata.labels["nodeName"] = "map keys stay"
    made.spec.containers.add(image_pull_policy="Always")

    def value(text: str) -> Any:
        expression = engine.compile(text, POD)
        return expression.evaluate(expression.bind(made))

    assert value("self.spec.nodeName + self.status.podIP") == "n1.2.3.4"
    assert value("self.spec.node_name + self.status.pod_ip") == "n1.2.3.4"
    assert value("self.metadata.labels.nodeName + self.metadata.labels['nodeName']") == (
        "map keys stay" * 2
    )
    assert value("has(self.spec.nodeName) && 'podIP' != ''") is True
    assert value("self.spec.containers.all(c, c.imagePullPolicy == 'Always')") is True
    assert value("PodSpec{nodeName: 'x'}").node_name == "x"
    assert value("self.spec\n  .nodeName") == "n"
    assert value("quantity('1500m')") == 1.5
    assert value("matches_labels(kcore.meta.v1.LabelSelector{matchLabels: {'a': 'b'}}, {'a': 'b'})")
    assert value("sum(self.spec.containers.map(c, c.imagePullPolicy.size()) + [1, 2])") == 9
    assert value("sum([])") == 0
    assert isinstance(value("sum([9223372036854775807, 1])"), cel.Failed)
    assert isinstance(value("quantity('x')"), cel.Failed)
    assert isinstance(value("self.metadata.labels['nobody']"), cel.Failed)
    loop = "[1,2,3,4,5,6,7,8,9,10]"
    deep = "true"
    for name in "abcdef":
        deep = f"{loop}.all({name}, {deep})"
    assert isinstance(value(deep), cel.Failed)
    for bad in ("self.spec.nodename", "self.", "self.spec +", "nobody"):
        with pytest.raises(ValueError, match=POD):
            engine.compile(bad, POD)


def test_a_schema_says_what_is_wrong_with_it() -> None:
    from google.protobuf import descriptor_pb2

    files = descriptor_pb2.FileDescriptorSet.FromString(worlds.kinds().descriptors)

    def broken(change: Any) -> bytes:
        changed = descriptor_pb2.FileDescriptorSet()
        changed.CopyFrom(files)
        for file in changed.file:
            for message in file.message_type:
                change(message)
        return changed.SerializeToString()

    def rename_metadata(message: Any) -> None:
        if message.name == "ConfigMap":
            message.field[0].name = "meta"

    with pytest.raises(ValueError, match=r"kcore.core.v1.ConfigMap: a kind has .* metadata = 1"):
        schema.compile_schema(broken(rename_metadata))
    without = descriptor_pb2.FileDescriptorSet()
    without.file.extend(one for one in files.file if not one.name.endswith("meta/v1/meta.proto"))
    with pytest.raises(ValueError, match=r"imports kcore/meta/v1/meta.proto, which is not there"):
        schema.compile_schema(without.SerializeToString())


def test_a_schema_has_its_own_pool() -> None:
    one = worlds.kinds()
    other = schema.compile_schema(one.descriptors)
    assert one.digest == other.digest
    assert one.kind(POD).message is not other.kind(POD).message
    assert one.kind(POD).api_version == "v1"
    assert one.kind(DEPLOYMENT).api_version == "apps/v1"
    assert one.kind(DEPLOYMENT).resource == "deployments.apps"


async def test_selectable_fields_are_read_as_texts(w: World) -> None:
    await w.create(worlds.POOL, worlds_pool())
    made = node_pb2.Node(metadata={"name": "n"}, spec={"unschedulable": True})
    await w.create(NODE, made)
    replica = w.kernel._replica
    found = [one.key.name for one in replica.selected(NODE, "spec.unschedulable", "true")]
    assert found == ["n"]
    await w.create(POD, pod("p", node_name="n"))
    assert [one.key.name for one in replica.selected(POD, "spec.nodeName", "n")] == ["p"]
    assert [one.key.name for one in replica.selected(POD, "spec.hostNetwork", "false")] == ["p"]
    assert [one.key.name for one in replica.labelled(POD, "nobody", "x")] == []


def worlds_pool() -> Any:
    from tests.kernel.test_commit import pool

    return pool("pod-cidrs", cidr="10.244.0.0/16", block_size=24)
