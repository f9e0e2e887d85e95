"""Writes: versions, names, generations, deletion, guards, causes, repetition."""

import json
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import deployment_pb2
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2, pool_pb2, secret_pb2

from kcore.chance import SAFE_ALPHABET, Chance
from kcore.kernel.store.memory import MemoryStore
from kcore.wire.errors import Reason
from tests.kernel import world as worlds
from tests.kernel.world import (
    CONFIG_MAP,
    DEPLOYMENT,
    LEASE,
    NAMESPACE,
    NODE,
    POD,
    POOL,
    SECRET,
    World,
    config_map,
    namespace,
    pod,
    refused,
)


@pytest.fixture
async def w() -> Any:
    async with worlds.world() as made:
        yield made


def deployment(name: str = "web", **spec: Any) -> Any:
    made = deployment_pb2.Deployment(metadata={"name": name, "namespace": "default"}, spec=spec)
    made.spec.selector.match_labels["app"] = "web"
    made.spec.template.metadata.labels["app"] = "web"
    if not made.spec.template.spec.containers:
        made.spec.template.spec.containers.add(name="c", image="kcore.local/busybox:1")
    return made


# 1. resourceVersion and concurrency.


async def test_create_with_a_resource_version_is_invalid(w: World) -> None:
    made = config_map("a")
    made.metadata.resource_version = "7"
    with refused(Reason.INVALID, "metadata.resourceVersion: must not be set on objects to be cre"):
        await w.create(CONFIG_MAP, made)


async def test_every_write_has_the_next_revision(w: World) -> None:
    first = await w.create(CONFIG_MAP, config_map("a"))
    second = await w.create(CONFIG_MAP, config_map("b"))
    assert int(second.metadata.resource_version) == int(first.metadata.resource_version) + 1
    assert w.head == int(second.metadata.resource_version)


async def test_a_stale_update_is_a_conflict_in_kubernetes_words(w: World) -> None:
    made = await w.create(POD, pod("x"))
    fresh = pod_pb2.Pod.FromString(made.SerializeToString())
    fresh.metadata.labels["a"] = "1"
    await w.update(POD, fresh)
    fresh.metadata.labels["a"] = "2"
    with refused(
        Reason.CONFLICT,
        'Operation cannot be fulfilled on pods "x": the object has been modified; please apply '
        "your changes to the latest version and try again",
    ):
        await w.update(POD, fresh)
    assert w.get(POD, "x").metadata.labels["a"] == "1"


async def test_an_update_without_a_version_wins(w: World) -> None:
    await w.create(CONFIG_MAP, config_map("a", k="1"))
    await w.update(CONFIG_MAP, config_map("a", k="2"))
    assert w.get(CONFIG_MAP, "a").data["k"] == "2"


async def test_an_update_for_another_uid_is_a_conflict(w: World) -> None:
    await w.create(CONFIG_MAP, config_map("a"))
    other = config_map("a")
    other.metadata.uid = "somebody-else"
    with refused(Reason.CONFLICT, "Precondition failed: UID in precondition: somebody-else"):
        await w.update(CONFIG_MAP, other)


async def test_an_update_that_changes_nothing_changes_nothing(w: World) -> None:
    made = await w.create(DEPLOYMENT, deployment())
    head = w.head
    for given in (made, deployment()):
        result = await w.run(worlds.update(DEPLOYMENT, given))
        assert not result.operations[0].changed
        assert result.revision == head
        assert result.operations[0].object == made.SerializeToString(deterministic=True)
    assert w.head == head


async def test_an_update_of_what_is_not_there(w: World) -> None:
    with refused(Reason.NOT_FOUND, 'deployments.apps "web" not found'):
        await w.update(DEPLOYMENT, deployment())
    with refused(Reason.NOT_FOUND, 'no matches for kind "kcore.core.v1.Nothing"'):
        await w.run(pb.Operation(ref=pb.Ref(kind="kcore.core.v1.Nothing"), create=b""))


async def test_what_is_there_is_not_created_again(w: World) -> None:
    await w.create(CONFIG_MAP, config_map("a"))
    with refused(Reason.ALREADY_EXISTS, 'configmaps "a" already exists'):
        await w.create(CONFIG_MAP, config_map("a"))


# 2. Names.


async def test_a_generated_name_has_five_safe_letters(w: World) -> None:
    made = config_map("")
    made.metadata.ClearField("name")
    made.metadata.generate_name = "web-"
    stored = await w.create(CONFIG_MAP, made)
    assert stored.metadata.name.startswith("web-")
    assert len(stored.metadata.name) == 9
    assert set(stored.metadata.name[4:]) <= set(SAFE_ALPHABET)
    made.metadata.generate_name = "p" * 80
    stored = await w.create(CONFIG_MAP, made)
    assert stored.metadata.name[:58] == "p" * 58
    assert len(stored.metadata.name) == 63


async def test_no_name_at_all(w: World) -> None:
    made = config_map("")
    with refused(Reason.INVALID, "metadata.name: Required value: name or generateName is required"):
        await w.create(CONFIG_MAP, made)


async def test_what_is_the_servers_to_say_is_said_by_the_server(w: World) -> None:
    made = pod("a")
    made.metadata.uid = "mine"
    made.metadata.creation_timestamp.seconds = 5
    made.metadata.deletion_timestamp.seconds = 5
    made.metadata.generation = 77
    made.metadata.self_link = "/x"
    made.status.phase = "Running"
    stored = await w.create(POD, made)
    assert stored.metadata.uid != "mine" and len(stored.metadata.uid) == 36
    assert stored.metadata.creation_timestamp.seconds == int(worlds.EPOCH)
    assert not stored.metadata.HasField("deletion_timestamp")
    assert stored.metadata.generation == 1
    assert stored.status.phase == "Pending"
    w.clock.at += 100
    for name in ("uid", "creation_timestamp", "generation", "resource_version"):
        made.metadata.ClearField(name)
    made.metadata.labels["x"] = "y"
    made.metadata.creation_timestamp.seconds = 5
    updated = await w.update(POD, made)
    assert updated.metadata.uid == stored.metadata.uid
    assert updated.metadata.creation_timestamp == stored.metadata.creation_timestamp
    assert not updated.metadata.HasField("deletion_timestamp")


async def test_names_in_the_request_and_in_the_object_must_agree(w: World) -> None:
    operation = worlds.create(CONFIG_MAP, config_map("a"))
    operation.ref.name = "b"
    with refused(Reason.INVALID, 'metadata.name: Invalid value: "a": does not match "b"'):
        await w.run(operation)
    operation = worlds.create(CONFIG_MAP, config_map("a"))
    operation.ref.namespace = "kube-system"
    with refused(Reason.INVALID, 'metadata.namespace: Invalid value: "default": does not match'):
        await w.run(operation)
    nameless = config_map("a")
    nameless.metadata.ClearField("namespace")
    nameless.metadata.ClearField("name")
    operation = worlds.create(CONFIG_MAP, nameless)
    operation.ref.namespace, operation.ref.name = "default", "c"
    await w.run(operation)
    assert w.get(CONFIG_MAP, "c").metadata.namespace == "default"
    operation.ref.namespace = ""
    with refused(Reason.INVALID, "metadata.namespace: Required value"):
        await w.run(operation)
    node = node_pb2.Node(metadata={"name": "n", "namespace": "default"})
    with refused(Reason.INVALID, "nodes do not live in a namespace"):
        await w.create(NODE, node)


async def test_a_namespace_must_be_there_and_alive(w: World) -> None:
    with refused(Reason.NOT_FOUND, 'namespaces "nope" not found'):
        await w.create(CONFIG_MAP, config_map("a", "nope"))
    await w.create(NAMESPACE, namespace("n"))
    await w.create(CONFIG_MAP, config_map("a", "n"))
    await w.delete(NAMESPACE, "n")
    with refused(
        Reason.FORBIDDEN,
        'configmaps "b" is forbidden: unable to create new content in namespace n because it is '
        "being terminated",
    ):
        await w.create(CONFIG_MAP, config_map("b", "n"))


async def test_a_namespace_stays_until_its_last_object_is_gone(w: World) -> None:
    await w.create(NAMESPACE, namespace("n"))
    await w.create(CONFIG_MAP, config_map("a", "n"))
    await w.create(CONFIG_MAP, config_map("b", "n"))
    gone = await w.delete(NAMESPACE, "n")
    assert gone.metadata.HasField("deletion_timestamp")
    await w.delete(CONFIG_MAP, "a", "n")
    assert w.there(NAMESPACE, "n")
    head = w.head
    await w.delete(CONFIG_MAP, "b", "n")
    assert not w.there(NAMESPACE, "n")
    assert w.head == head + 1
    await w.create(NAMESPACE, namespace("empty"))
    await w.delete(NAMESPACE, "empty")
    assert not w.there(NAMESPACE, "empty")


async def test_default_namespaces_cannot_be_deleted(w: World) -> None:
    with refused(Reason.FORBIDDEN, 'namespaces "default" is forbidden: this namespace may not be'):
        await w.delete(NAMESPACE, "default")


# 3. Generations, and doors.


async def test_only_the_spec_makes_a_generation(w: World) -> None:
    made = await w.create(DEPLOYMENT, deployment())
    assert made.metadata.generation == 1
    made.metadata.labels["a"] = "b"
    made = await w.update(DEPLOYMENT, made)
    assert made.metadata.generation == 1
    made.status.observed_generation = 1
    made = await w.update(DEPLOYMENT, made, "status")
    assert made.metadata.generation == 1
    made.spec.replicas = 0
    made = await w.update(DEPLOYMENT, made)
    assert made.metadata.generation == 2


async def test_each_door_ignores_what_is_behind_the_others(w: World) -> None:
    made = await w.create(DEPLOYMENT, deployment())
    main = deployment(replicas=3)
    main.status.replicas = 9
    main.metadata.labels["l"] = "1"
    stored = await w.update(DEPLOYMENT, main)
    assert not stored.HasField("status")
    status = deployment(replicas=7)
    status.status.replicas = 9
    status.metadata.labels["l"] = "2"
    status.metadata.finalizers.append("a/b")
    stored = await w.update(DEPLOYMENT, status, "status")
    assert stored.status.replicas == 9
    assert stored.spec.replicas == 3
    assert stored.metadata.labels["l"] == "1"
    assert not stored.metadata.finalizers
    scale = deployment(replicas=5, paused=True)
    scale.status.replicas = 1
    stored = await w.update(DEPLOYMENT, scale, "scale")
    assert (stored.spec.replicas, stored.spec.paused, stored.status.replicas) == (5, False, 9)
    assert stored.metadata.generation == 3
    scale.metadata.resource_version = made.metadata.resource_version
    with refused(Reason.CONFLICT, "the object has been modified"):
        await w.update(DEPLOYMENT, scale, "status")
    with refused(Reason.NOT_FOUND, 'deployments.apps have no subresource "nothing"'):
        await w.update(DEPLOYMENT, scale, "nothing")
    with refused(Reason.INVALID, "deployments/status cannot be created"):
        operation = worlds.create(DEPLOYMENT, scale)
        operation.subresource = "status"
        await w.run(operation)


async def test_binding_is_a_field_that_is_set_once(w: World) -> None:
    await w.create(POD, pod("p"))
    bound = await w.update(POD, pod("p", node_name="n1"), "binding")
    assert bound.spec.node_name == "n1"
    with refused(Reason.INVALID, "spec.nodeName: field is immutable"):
        await w.update(POD, pod("p", node_name="n2"), "binding")
    again = await w.run(worlds.update(POD, pod("p", node_name="n1"), "binding"))
    assert not again.operations[0].changed


async def test_what_only_a_subresource_may_write(w: World) -> None:
    made = await w.create(POD, pod("p"))
    made.spec.ephemeral_containers.add().ephemeral_container_common.name = "debug"
    made.spec.ephemeral_containers[0].ephemeral_container_common.image = "kcore.local/busybox:1"
    with refused(
        Reason.INVALID, "spec.ephemeralContainers: may only be changed through pods/ephemeralcont"
    ):
        await w.update(POD, made)
    stored = await w.update(POD, made, "ephemeralcontainers")
    assert len(stored.spec.ephemeral_containers) == 1


# 4. Deletion.


async def test_what_nobody_holds_goes_at_once(w: World) -> None:
    made = await w.create(CONFIG_MAP, config_map("a"))
    result = await w.run(worlds.delete(CONFIG_MAP, "a"))
    assert not w.there(CONFIG_MAP, "a")
    last = worlds.kinds().kind(CONFIG_MAP).parse(result.operations[0].object)
    assert last.metadata.uid == made.metadata.uid
    assert last.metadata.resource_version == str(result.revision)
    with refused(Reason.NOT_FOUND, 'configmaps "a" not found'):
        await w.delete(CONFIG_MAP, "a")


async def test_finalizers_hold_an_object(w: World) -> None:
    made = config_map("a")
    made.metadata.finalizers.extend(["a/one", "a/two"])
    await w.create(CONFIG_MAP, made)
    held = await w.delete(CONFIG_MAP, "a")
    assert held.metadata.deletion_timestamp.seconds == int(worlds.EPOCH)
    assert held.metadata.deletion_grace_period_seconds == 0
    head = w.head
    assert not (await w.run(worlds.delete(CONFIG_MAP, "a"))).operations[0].changed
    assert w.head == head
    held.metadata.finalizers.append("a/three")
    with refused(Reason.INVALID, "no new finalizers can be added if the object is being deleted"):
        await w.update(CONFIG_MAP, held)
    del held.metadata.finalizers[1:]
    held.data["k"] = "v"
    held = await w.update(CONFIG_MAP, held)
    assert w.there(CONFIG_MAP, "a")
    held.metadata.ClearField("finalizers")
    await w.update(CONFIG_MAP, held)
    assert not w.there(CONFIG_MAP, "a")


async def test_a_pod_without_node_goes_at_once(w: World) -> None:
    await w.create(POD, pod("p"))
    await w.delete(POD, "p")
    assert not w.there(POD, "p")


async def test_a_pod_on_a_node_waits_for_its_kubelet(w: World) -> None:
    await w.create(POD, pod("p", node_name="n"))
    marked = await w.delete(POD, "p")
    assert marked.metadata.deletion_grace_period_seconds == 30
    assert marked.metadata.deletion_timestamp.seconds == int(worlds.EPOCH) + 30
    assert marked.metadata.generation == 1
    w.clock.at += 7
    longer = await w.run(worlds.delete(POD, "p", grace_seconds=60))
    assert not longer.operations[0].changed
    assert not (await w.run(worlds.delete(POD, "p"))).operations[0].changed
    shorter = await w.delete(POD, "p", grace_seconds=10)
    assert shorter.metadata.deletion_grace_period_seconds == 10
    assert shorter.metadata.deletion_timestamp.seconds == int(worlds.EPOCH) + 10
    await w.delete(POD, "p", grace_seconds=0)
    assert not w.there(POD, "p")


async def test_grace_of_a_pod(w: World) -> None:
    await w.create(POD, pod("own", node_name="n", termination_grace_period_seconds=5))
    assert (await w.delete(POD, "own")).metadata.deletion_grace_period_seconds == 5
    await w.create(POD, pod("asked", node_name="n"))
    asked = await w.delete(POD, "asked", grace_seconds=3)
    assert asked.metadata.deletion_grace_period_seconds == 3
    await w.create(POD, pod("forced", node_name="n"))
    await w.delete(POD, "forced", grace_seconds=0)
    assert not w.there(POD, "forced")
    done = await w.create(POD, pod("done", node_name="n"))
    done.status.phase = "Succeeded"
    await w.update(POD, done, "status")
    await w.delete(POD, "done")
    assert not w.there(POD, "done")


async def test_grace_and_finalizers_are_both_waited_for(w: World) -> None:
    made = pod("p", node_name="n")
    made.metadata.finalizers.append("a/b")
    await w.create(POD, made)
    held = await w.delete(POD, "p")
    held.metadata.ClearField("finalizers")
    held = await w.update(POD, held)
    assert w.there(POD, "p")
    await w.delete(POD, "p", grace_seconds=0)
    assert not w.there(POD, "p")
    made.metadata.name = "q"
    await w.create(POD, made)
    await w.delete(POD, "q")
    held = await w.delete(POD, "q", grace_seconds=0)
    assert held.metadata.deletion_grace_period_seconds == 0
    held.metadata.ClearField("finalizers")
    await w.update(POD, held)
    assert not w.there(POD, "q")


@pytest.mark.parametrize(
    ("propagation", "finalizer"),
    [(pb.PROPAGATION_FOREGROUND, "foregroundDeletion"), (pb.PROPAGATION_ORPHAN, "orphan")],
)
async def test_propagation_is_a_finalizer(w: World, propagation: int, finalizer: str) -> None:
    await w.create(DEPLOYMENT, deployment())
    held = await w.delete(DEPLOYMENT, "web", propagation=propagation)
    assert list(held.metadata.finalizers) == [finalizer]
    assert held.metadata.HasField("deletion_timestamp")
    held.metadata.ClearField("finalizers")
    await w.update(DEPLOYMENT, held)
    assert not w.there(DEPLOYMENT, "web")


async def test_preconditions_of_a_deletion(w: World) -> None:
    made = await w.create(CONFIG_MAP, config_map("a"))
    with refused(Reason.CONFLICT, "Precondition failed: UID in precondition: other"):
        await w.delete(CONFIG_MAP, "a", uid="other")
    with refused(Reason.CONFLICT, "Precondition failed: resourceVersion in precondition: 1,"):
        await w.delete(CONFIG_MAP, "a", revision=1)
    revision = int(made.metadata.resource_version)
    await w.delete(CONFIG_MAP, "a", uid=made.metadata.uid, revision=revision)
    assert not w.there(CONFIG_MAP, "a")


async def test_eviction_is_a_deletion(w: World) -> None:
    await w.create(POD, pod("p", node_name="n"))
    operation = worlds.delete(POD, "p")
    operation.subresource = "eviction"
    result = await w.run(operation)
    evicted = worlds.kinds().kind(POD).parse(result.operations[0].object)
    assert evicted.metadata.deletion_grace_period_seconds == 30


# Transactions.


async def test_a_transaction_is_all_or_nothing(w: World) -> None:
    head = w.head
    with refused(Reason.ALREADY_EXISTS, 'configmaps "a" already exists') as caught:
        await w.run(
            worlds.create(CONFIG_MAP, config_map("a")),
            worlds.create(CONFIG_MAP, config_map("b")),
            worlds.create(CONFIG_MAP, config_map("a")),
        )
    assert caught.error is not None and caught.error.metadata["operation"] == "2"
    assert w.head == head
    assert not w.there(CONFIG_MAP, "a")
    result = await w.run(
        worlds.create(CONFIG_MAP, config_map("a")), worlds.create(CONFIG_MAP, config_map("b"))
    )
    assert result.revision == head + 1
    versions = {w.get(CONFIG_MAP, name).metadata.resource_version for name in "ab"}
    assert versions == {str(head + 1)}


async def test_operations_see_what_came_before_them(w: World) -> None:
    made = pod("p")
    made.status.phase = "Running"
    result = await w.run(
        worlds.create(NAMESPACE, namespace("n")),
        worlds.create(CONFIG_MAP, config_map("a", "n")),
        worlds.create(POD, made),
        worlds.update(POD, made, "status"),
        worlds.delete(CONFIG_MAP, "a", "n"),
    )
    assert [one.changed for one in result.operations] == [True] * 5
    assert w.get(POD, "p").status.phase == "Running"
    assert not w.there(CONFIG_MAP, "a", "n")


async def test_transactions_of_one_request_have_their_own_results(w: World) -> None:
    request = pb.CommitRequest(want=pb.WANT_REVISIONS)
    for operation in (
        worlds.create(CONFIG_MAP, config_map("a")),
        worlds.create(CONFIG_MAP, config_map("a")),
        worlds.create(CONFIG_MAP, config_map("b")),
    ):
        request.transactions.add().operations.append(operation)
    head = w.head
    results = (await w.kernel.commit(request, "me")).results
    assert [one.revision for one in results] == [head + 1, 0, head + 2]
    assert results[1].error.code == Reason.ALREADY_EXISTS.value
    assert not results[0].operations[0].object


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ({"absent": True}, "it exists"),
        ({"revision": 1}, "it is at revision"),
        ({"uid": "x"}, "its uid is"),
        ({"field": {"path": "data.k", "value": "other"}}, 'data.k is "v", not "other"'),
        ({"field": {"path": "immutable", "value": "true"}}, 'immutable is "", not "true"'),
    ],
)
async def test_guards_that_fail(w: World, guard: dict[str, Any], said: str) -> None:
    await w.create(CONFIG_MAP, config_map("a", k="v"))
    with refused(Reason.CONFLICT, said):
        await w.run(
            worlds.create(CONFIG_MAP, config_map("b")),
            guards=[pb.Guard(ref=worlds.ref(CONFIG_MAP, "a"), **guard)],
        )
    assert not w.there(CONFIG_MAP, "b")


async def test_guards_that_hold(w: World) -> None:
    made = await w.create(CONFIG_MAP, config_map("a", k="v"))
    lease = lease_pb2.Lease(metadata={"name": "l", "namespace": "default"})
    lease.spec.holder_identity = "one"
    lease.spec.lease_transitions = 3
    await w.create(LEASE, lease)
    guards = [
        pb.Guard(ref=worlds.ref(CONFIG_MAP, "nobody"), absent=True),
        pb.Guard(ref=worlds.ref(CONFIG_MAP, "a"), revision=int(made.metadata.resource_version)),
        pb.Guard(ref=worlds.ref(CONFIG_MAP, "a"), uid=made.metadata.uid),
        pb.Guard(ref=worlds.ref(CONFIG_MAP, "a"), field=pb.FieldIs(path="data.k", value="v")),
        pb.Guard(ref=worlds.ref(LEASE, "l"), field={"path": "spec.holderIdentity", "value": "one"}),
        pb.Guard(
            ref=worlds.ref(LEASE, "l"), field={"path": "spec.lease_transitions", "value": "3"}
        ),
        pb.Guard(ref=worlds.ref(LEASE, "l"), field={"path": "spec.renewTime", "value": ""}),
    ]
    await w.run(worlds.create(CONFIG_MAP, config_map("b")), guards=guards)
    assert w.there(CONFIG_MAP, "b")
    with refused(Reason.INVALID, "has no field 'nonsense'"):
        guard = pb.Guard(ref=worlds.ref(LEASE, "l"), field={"path": "spec.nonsense", "value": ""})
        await w.run(guards=[guard])


async def test_a_cause_is_older_than_the_write(w: World) -> None:
    await w.run(worlds.create(CONFIG_MAP, config_map("a")), because=w.head)
    with refused(Reason.INVALID, "because: revision"):
        await w.run(worlds.create(CONFIG_MAP, config_map("b")), because=w.head + 1)


async def test_a_dry_run_does_all_but_store(w: World) -> None:
    head = w.head
    result = await w.run(worlds.create(DEPLOYMENT, deployment()), dry_run=True)
    shown = worlds.kinds().kind(DEPLOYMENT).parse(result.operations[0].object)
    assert shown.spec.replicas == 1 and shown.metadata.uid
    assert not shown.metadata.HasField("resource_version")
    assert (w.head, result.operations[0].changed) == (head, True)
    assert not w.there(DEPLOYMENT, "web")
    with refused(Reason.INVALID, "spec.replicas: Invalid value: -1"):
        await w.run(worlds.create(DEPLOYMENT, deployment(replicas=-1)), dry_run=True)


async def test_a_repeated_request_is_answered_not_repeated(w: World) -> None:
    create = worlds.create(CONFIG_MAP, config_map("a"))
    first = await w.run(create, request_id="r1")
    await w.update(CONFIG_MAP, config_map("a", k="v"))
    head = w.head
    second = await w.run(create, request_id="r1")
    assert second == first
    assert w.head == head
    with refused(Reason.ALREADY_EXISTS, "already exists"):
        await w.run(create, request_id="r2")
    with refused(Reason.ALREADY_EXISTS, "already exists"):
        await w.run(create, request_id="r1", actor="somebody-else")


async def test_a_request_is_remembered_over_a_restart() -> None:
    store = MemoryStore(Chance(3))
    named = config_map("")
    named.metadata.ClearField("name")
    named.metadata.generate_name = "g-"
    create = worlds.create(CONFIG_MAP, named)
    async with worlds.world(store) as w:
        first = await w.run(create, request_id="r1")
        identity = w.kernel.cluster_id
    async with worlds.world(store, seed=9) as w:
        assert w.kernel.cluster_id == identity
        assert await w.run(create, request_id="r1") == first
        assert (await w.run(create, request_id="r2")) != first


async def test_limits(w: World) -> None:
    with refused(Reason.EXHAUSTED, "513 operations in a transaction: at most 512 are allowed"):
        await w.run(*[worlds.delete(CONFIG_MAP, "a")] * 513)
    with refused(Reason.EXHAUSTED, "ConfigMap is too large"):
        await w.create(CONFIG_MAP, config_map("a", k="x" * (3 << 19)))
    big = [worlds.create(CONFIG_MAP, config_map(f"a{i}", k="x" * (1 << 20))) for i in range(4)]
    with refused(Reason.EXHAUSTED, "a transaction of"):
        await w.run(*big)
    with refused(Reason.INVALID, "the object is not a kcore.core.v1.ConfigMap"):
        await w.run(pb.Operation(ref=worlds.ref(CONFIG_MAP, "a"), create=b"\xff\xff"))
    with refused(Reason.INVALID, "an operation must say what to do"):
        await w.run(pb.Operation(ref=worlds.ref(CONFIG_MAP, "a")))


# Patches and applies go through the same checks.


async def test_a_merge_changes_the_named_fields(w: World) -> None:
    await w.create(DEPLOYMENT, deployment())
    merge = pb.Merge(object=deployment(replicas=4, paused=True).SerializeToString())
    merge.mask.paths.append("spec.replicas")
    operation = pb.Operation(ref=worlds.ref(DEPLOYMENT, "web"), patch=pb.Patch(merge=merge))
    await w.run(operation)
    stored = w.get(DEPLOYMENT, "web")
    assert (stored.spec.replicas, stored.spec.paused) == (4, False)
    merge.mask.paths[:] = ["spec.selector"]
    bad = deployment()
    bad.spec.selector.match_labels["app"] = "other"
    merge.object = bad.SerializeToString()
    operation.patch.merge.CopyFrom(merge)
    with refused(Reason.INVALID, "spec.selector: field is immutable"):
        await w.run(operation)


async def test_apply_makes_and_changes(w: World) -> None:
    made = await w.apply(DEPLOYMENT, deployment(replicas=2), manager="kcore")
    assert made.metadata.generation == 1 and made.spec.progress_deadline_seconds == 600
    again = await w.run(worlds.apply(DEPLOYMENT, deployment(replicas=2)), manager="kcore")
    assert not again.operations[0].changed
    with refused(Reason.CONFLICT, 'conflict with "kcore"'):
        await w.apply(DEPLOYMENT, deployment(replicas=5), manager="other")
    forced = await w.apply(DEPLOYMENT, deployment(replicas=5), force=True, manager="other")
    assert forced.spec.replicas == 5 and forced.metadata.generation == 2
    status = deployment()
    status.status.replicas = 5
    operation = worlds.apply(DEPLOYMENT, status)
    operation.subresource = "status"
    await w.run(operation, manager="deployment-controller")
    assert w.get(DEPLOYMENT, "web").status.replicas == 5
    nameless = deployment("")
    nameless.metadata.ClearField("name")
    nameless.metadata.generate_name = "x-"
    with refused(Reason.INVALID, "cannot use generate name with apply"):
        await w.apply(DEPLOYMENT, nameless)


async def test_owners_of_fields_are_recorded(w: World) -> None:
    made = await w.create(CONFIG_MAP, config_map("a", k="v"), manager="kcore")
    entry = made.metadata.managed_fields[0]
    assert (entry.manager, entry.operation) == ("kcore", "Update")
    assert json.loads(entry.fields_v1.raw)["f:data"] == {"f:k": {}}
    updated = await w.update(CONFIG_MAP, config_map("a", k="v", l="w"))
    assert {one.manager for one in updated.metadata.managed_fields} == {"kcore", "me"}


# Claims.


def pool(name: str, **spec: Any) -> Any:
    return pool_pb2.Pool(metadata={"name": name}, spec=spec)


def node(name: str, **spec: Any) -> Any:
    return node_pb2.Node(metadata={"name": name}, spec=spec)


async def test_values_are_drawn_in_turn_and_come_back(w: World) -> None:
    with refused(Reason.REFUSED, 'there is no pool "pod-cidrs"'):
        await w.create(NODE, node("n"))
    await w.create(POOL, pool("pod-cidrs", cidr="10.244.0.0/22", block_size=24))
    drawn = [(await w.create(NODE, node(name))).spec.pod_cidr for name in ("a", "b")]
    bare = node_pb2.Node(metadata={"name": "c"})
    drawn.append((await w.create(NODE, bare)).spec.pod_cidr)
    assert drawn == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]
    await w.delete(NODE, "b", namespace="")
    assert (await w.create(NODE, node("d"))).spec.pod_cidr == "10.244.3.0/24"
    assert (await w.create(NODE, node("e"))).spec.pod_cidr == "10.244.1.0/24"
    with refused(Reason.EXHAUSTED, 'pool "pod-cidrs" is exhausted'):
        await w.create(NODE, node("f"))


async def test_given_values_are_unique_and_in_the_pool(w: World) -> None:
    await w.create(POOL, pool("pod-cidrs", cidr="10.244.0.0/22", block_size=24))
    await w.create(NODE, node("a", pod_cidr="10.244.2.0/24"))
    with refused(
        Reason.INVALID, 'spec.podCIDR: Invalid value: "10.244.2.0/24": is already held by'
    ):
        await w.create(NODE, node("b", pod_cidr="10.244.2.0/24"))
    with refused(Reason.INVALID, 'spec.podCIDR: Invalid value: "10.9.0.0/24": is not in the pool'):
        await w.create(NODE, node("b", pod_cidr="10.9.0.0/24"))
    result = await w.run(
        worlds.delete(NODE, "a"), worlds.create(NODE, node("b", pod_cidr="10.244.2.0/24"))
    )
    assert [one.changed for one in result.operations] == [True, True]


async def test_what_is_held_is_kept_by_an_update_that_does_not_name_it(w: World) -> None:
    await w.create(POOL, pool("pod-cidrs", cidr="10.244.0.0/16", block_size=24))
    made = await w.create(NODE, node("a"))
    updated = await w.update(NODE, node("a", unschedulable=True))
    assert updated.spec.pod_cidr == made.spec.pod_cidr == "10.244.0.0/24"
    again = await w.run(worlds.update(NODE, node("a", unschedulable=True)))
    assert not again.operations[0].changed
    with refused(Reason.INVALID, "spec.podCIDR: field is immutable"):
        await w.update(NODE, node("a", pod_cidr="10.244.9.0/24"))


async def test_one_batch_draws_different_values(w: World) -> None:
    await w.create(POOL, pool("pod-cidrs", cidr="10.244.0.0/16", block_size=24))
    request = pb.CommitRequest(want=pb.WANT_OBJECTS)
    for index in range(20):
        operation = worlds.create(NODE, node(f"n{index}"))
        request.transactions.add().operations.append(operation)
    results = (await w.kernel.commit(request, "me")).results
    parse = worlds.kinds().kind(NODE).parse
    drawn = {parse(one.operations[0].object).spec.pod_cidr for one in results}
    assert len(drawn) == 20


async def test_what_is_drawn_next_is_known_after_a_restart() -> None:
    store = MemoryStore(Chance(3))
    async with worlds.world(store) as w:
        await w.create(POOL, pool("pod-cidrs", cidr="10.244.0.0/16", block_size=24))
        for name in ("a", "b", "c"):
            await w.create(NODE, node(name))
        await w.delete(NODE, "c")
    async with worlds.world(store) as w:
        assert (await w.create(NODE, node("d"))).spec.pod_cidr == "10.244.3.0/24"


async def test_secrets_are_frozen_when_they_say_so(w: World) -> None:
    made = secret_pb2.Secret(metadata={"name": "s", "namespace": "default"}, immutable=True)
    made.data["k"] = b"v"
    await w.create(SECRET, made)
    made.metadata.labels["free"] = "yes"
    await w.update(SECRET, made)
    made.data["k"] = b"w"
    with refused(Reason.INVALID, "data: field is immutable") as caught:
        await w.update(SECRET, made)
    assert caught.error is not None and "w" not in caught.error.message.split()
    made.data["k"] = b"v"
    made.ClearField("immutable")
    with refused(Reason.INVALID, "immutable: field is immutable"):
        await w.update(SECRET, made)
