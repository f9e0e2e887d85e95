"""No privilege is gained: every decision against a model that shares no code with it (P21), and
the attacks of RELIABILITY's table on authorisation, by their ids (S50, S51, S53–S60).
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import node_pb2 as node_api
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps
from kcore_api.kcore.api.v1 import typed_pb2
from kcore_api.kcore.core.v1 import config_map_pb2, namespace_pb2, pod_pb2, secret_pb2
from kcore_api.kcore.meta.v1 import meta_pb2
from kcore_api.kcore.rbac.v1 import role_binding_pb2 as bindings
from kcore_api.kcore.rbac.v1 import role_pb2 as roles

from kcore.apiserver import authorize, reference
from kcore.apiserver.identity import ADMIN, AUTHENTICATED, MASTERS, NODES, User
from kcore.apiserver.serve import Gate
from kcore.apiserver.session import Session
from kcore.controllers import roles as defaults
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import (
    CONFIG_MAP,
    NAMESPACE,
    NODE,
    POD,
    SECRET,
    World,
    compiled,
    config_map,
    create,
    node,
    pod,
    ref,
    world,
)

ROLE, CLUSTER_ROLE = "kcore.rbac.v1.Role", "kcore.rbac.v1.ClusterRole"
BINDING, CLUSTER_BINDING = "kcore.rbac.v1.RoleBinding", "kcore.rbac.v1.ClusterRoleBinding"
EVENT, DEPLOYMENT = "kcore.core.v1.Event", "kcore.apps.v1.Deployment"
GROUP = "rbac.authorization.k8s.io"
KUBELET = User("system:node:n1", (NODES, AUTHENTICATED))

# What the roles of these tests say: verbs, groups, resources, names.
Said = tuple[str, str, str, str]
READ = "get list watch"
RULES: Mapping[str, Sequence[Said]] = {
    "a/reader": [(READ, "core", "pods pods/log configmaps", "")],
    "a/all": [("*", "*", "*", "")],
    "nodes": [(READ, "core", "nodes", "")],
    "scaler": [("get patch", "*", "*/scale deployments", "")],
    "named": [("get update patch delete", "core", "configmaps secrets", "x")],
    "status": [("*", "core", "pods/status", ""), ("create", "core", "pods", "")],
}
# Who has which, and where: "" is everywhere.
HAS: Sequence[tuple[str, str, str]] = [
    ("alice", "a/reader", "a"),
    ("alice", "nodes", "a"),
    ("bob", "nodes", ""),
    ("carol", "scaler", "b"),
    ("dave", "named", ""),
    ("team", "status", ""),
    ("system:serviceaccount:a:robot", "a/all", "a"),
]
IDENTITIES = [
    ADMIN,
    User("alice", (AUTHENTICATED,)),
    User("bob", (AUTHENTICATED,)),
    User("carol", (AUTHENTICATED,)),
    User("dave", (AUTHENTICATED,)),
    User("erin", ("team", AUTHENTICATED)),
    User("system:serviceaccount:a:robot", ("system:serviceaccounts", AUTHENTICATED)),
    User("nobody", (AUTHENTICATED,)),
]


def model(
    user: User, verb: str, group: str, resource: str, sub: str, namespace: str, name: str
) -> bool:
    """What Kubernetes' documentation says of RBAC, of the tables above, and no more."""
    if MASTERS in user.groups:
        return True
    for who, role, where in HAS:
        if who != user.name and who not in user.groups:
            continue
        if where and where != namespace:
            continue
        for verbs, groups, resources, names in RULES[role]:
            wanted = f"{resource}/{sub}" if sub else resource
            listed = resources.split()
            if verbs != "*" and verb not in verbs.split():
                continue
            if groups != "*" and group not in groups.replace("core", "").split(","):
                continue
            if "*" not in listed and wanted not in listed and not (sub and f"*/{sub}" in listed):
                continue
            if names and name not in names.split():
                continue
            return True
    return False


def role_rules(said: Sequence[Said]) -> list[roles.PolicyRule]:
    return [
        roles.PolicyRule(
            verbs=verbs.split(),
            api_groups=["" if groups == "core" else groups],
            resources=resources.split(),
            resource_names=names.split(),
        )
        for verbs, groups, resources, names in said
    ]


def role(name: str, *said: Said, namespace: str = "a", **labels: str) -> roles.Role:
    made = roles.Role(rules=role_rules(said))
    made.metadata.name, made.metadata.namespace = name, namespace
    made.metadata.labels.update(labels)
    return made


def cluster_role(name: str, *said: Said, **labels: str) -> roles.ClusterRole:
    made = roles.ClusterRole(rules=role_rules(said))
    made.metadata.name = name
    made.metadata.labels.update(labels)
    return made


def binding(name: str, kind: str, of: str, *who: str, namespace: str = "") -> Any:
    made: Any = bindings.RoleBinding() if namespace else bindings.ClusterRoleBinding()
    made.metadata.name, made.metadata.namespace = name, namespace
    made.role_ref.kind, made.role_ref.name = kind, of
    for one in who:
        if one.startswith("system:serviceaccount:"):
            _, _, where, account = one.split(":")
            made.subjects.add(kind="ServiceAccount", namespace=where, name=account)
        else:
            made.subjects.add(kind="Group" if one == "team" else "User", name=one)
    return made


def kind_of(message: Any) -> str:
    name: str = message.DESCRIPTOR.full_name
    return name


async def make(session: Session, *objects: Any) -> None:
    for one in objects:
        await session.commit(create(kind_of(one), one))


def named(kind: Any, name: str, namespace: str = "") -> Any:
    made = kind()
    made.metadata.name, made.metadata.namespace = name, namespace
    return made


@asynccontextmanager
async def ruled(directory: Path) -> AsyncIterator[World]:
    """A server with namespaces a and b, and all of the tables' roles."""
    async with world(directory) as there:
        await make(there.session(), *(named(namespace_pb2.Namespace, name) for name in ("a", "b")))
        for full, said in RULES.items():
            where, _, name = full.rpartition("/")
            made: Any = role(name, *said, namespace=where) if where else cluster_role(name, *said)
            await make(there.session(), made)
        for index, (who, full, where) in enumerate(HAS):
            within, _, name = full.rpartition("/")
            kind = "Role" if within else "ClusterRole"
            await make(there.session(), binding(f"b{index}", kind, name, who, namespace=where))
        yield there


async def forbidden(what: Any) -> str:
    with pytest.raises(ApiError) as raised:
        await what
    assert raised.value.reason is Reason.FORBIDDEN, raised.value
    return raised.value.message


# P21.

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "bind")


async def test_p21_every_decision_is_the_models(tmp_path: Path) -> None:
    async with ruled(tmp_path) as there:
        asked = 0
        for user, kind, verb in itertools.product(IDENTITIES, compiled().kinds.values(), VERBS):
            session = there.session(user)
            subresources = ("", "status", "log", "exec", *kind.subresources)
            for sub, namespace, name in itertools.product(
                dict.fromkeys(subresources), ("", "a", "b"), ("", "x")
            ):
                where = namespace if kind.namespaced else ""
                expected = model(user, verb, kind.group, kind.plural, sub, where, name)
                case = user.name, verb, kind.name, sub, namespace, name
                found = there.apiserver.authorizer(user, verb, kind.name, namespace, name, sub)
                assert found.allowed is expected, case
                if asked % 7 == 0:
                    try:
                        session.check(verb, kind.name, namespace, name, sub)
                    except ApiError:
                        assert not expected, case
                    else:
                        assert expected, case
                asked += 1
        assert asked > 10_000


async def test_p21_both_faces_refuse_the_same(tmp_path: Path) -> None:
    """Over gRPC, as verbs and as typed services: what is refused is what the model refuses."""
    async with (
        ruled(tmp_path) as there,
        grpc.aio.insecure_channel(f"unix:{there.socket}") as dialled,
    ):
        for user, kind in itertools.product(
            IDENTITIES[1:], (CONFIG_MAP, POD, NODE, DEPLOYMENT, ROLE)
        ):
            known = compiled().kinds[kind]
            pairs = [("kcore-impersonate-user", user.name)]
            pairs += [("kcore-impersonate-group", group) for group in user.groups]
            for namespace, name, verb in itertools.product(
                ("a", "b") if known.namespaced else ("",),
                ("x", "y"),
                ("get", "list", "create", "update", "patch", "delete"),
            ):
                for path, request in _faces(kind, verb, namespace, name):
                    asked_name = "" if verb == "list" else name
                    expected = model(
                        user, verb, known.group, known.plural, "", namespace, asked_name
                    )
                    if verb == "patch":
                        # The apply would make it.
                        expected = expected and model(
                            user, "create", known.group, known.plural, "", namespace, name
                        )
                    code = await _code(dialled, path, request, pairs)
                    refused = code == grpc.StatusCode.PERMISSION_DENIED
                    assert refused is not expected, (user.name, path, verb, namespace, name, code)


def _faces(kind: str, verb: str, namespace: str, name: str) -> list[tuple[str, bytes]]:
    """The same asked of both."""
    api = "/kcore.api.v1.ApiService/"
    typed = f"/{kind}Service/"
    target = pb.Ref(kind=kind, namespace=namespace, name=name)
    obj: Any = compiled().kinds[kind].message()
    obj.metadata.name, obj.metadata.namespace = name, namespace
    body = obj.SerializeToString()
    if verb == "get":
        short: Any = typed_pb2.TypedGetRequest(namespace=namespace, name=name)
        long: Any = pb.GetRequest(ref=target)
        names = "Get", "Get"
    elif verb == "list":
        short = typed_pb2.TypedListRequest(namespace=namespace)
        long = pb.ListRequest(selection=pb.Selection(kind=kind, namespace=namespace))
        names = "List", "List"
    else:
        operation = pb.Operation(ref=target)
        short = typed_pb2.TypedWriteRequest(
            namespace=namespace, name=name, object=body, dry_run=True
        )
        if verb == "create":
            operation.create = body
        elif verb == "update":
            operation.update = body
        elif verb == "patch":
            operation.apply.object = body
        else:
            operation.delete.SetInParent()
            short = typed_pb2.TypedDeleteRequest(namespace=namespace, name=name, dry_run=True)
        long = pb.CommitRequest(dry_run=True)
        long.transactions.add(manager="m").operations.append(operation)
        names = {"patch": "Apply"}.get(verb, verb.capitalize()), "Commit"
    return [
        (typed + names[0], short.SerializeToString()),
        (api + names[1], long.SerializeToString()),
    ]


async def _code(
    dialled: grpc.aio.Channel, path: str, request: bytes, pairs: list[tuple[str, str]]
) -> grpc.StatusCode:
    try:
        await dialled.unary_unary(path)(request, metadata=tuple(pairs))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


# S50: what belongs to the cluster is not reached through a namespace.


@pytest.mark.parametrize("kind", [NODE, NAMESPACE, CLUSTER_ROLE, "kcore.api.v1.Schema"])
async def test_s50_a_role_in_a_namespace_is_not_about_the_cluster(
    tmp_path: Path, kind: str
) -> None:
    async with ruled(tmp_path) as there:
        robot = there.session(IDENTITIES[6])
        await robot.get(pb.GetRequest(ref=ref(ROLE, "reader", "a")))
        await forbidden(robot.get(pb.GetRequest(ref=ref(kind, "n1", "a"))))
        await forbidden(
            robot.list(pb.ListRequest(selection=pb.Selection(kind=kind, namespace="a")))
        )
        request = pb.CommitRequest()
        request.transactions.add().operations.add(ref=ref(kind, "n1", "a"), delete=pb.Delete())
        await forbidden(robot.commit(request))


# S51: one kind's list gives no other's.


async def test_s51_a_page_token_is_for_its_kind_and_user(tmp_path: Path) -> None:
    async with ruled(tmp_path) as there:
        await make(there.session(), *(_config(f"c{n}", "a") for n in range(3)))
        alice = there.session(IDENTITIES[1])
        page = pb.ListRequest(selection=pb.Selection(kind=CONFIG_MAP, namespace="a"), page_size=1)
        token = getattr((await alice.list(page)).metadata, "continue")
        assert token
        for session, kind, namespace in (
            (alice, POD, "a"),
            (there.session(IDENTITIES[6]), CONFIG_MAP, "a"),
            (there.session(), CONFIG_MAP, ""),
        ):
            other = pb.ListRequest(
                selection=pb.Selection(kind=kind, namespace=namespace),
                page_size=1,
                page_token=token,
            )
            with pytest.raises(ApiError) as raised:
                await session.list(other)
            assert raised.value.reason is Reason.INVALID
        for trick in ("kcore.core.v1.ConfigMap/../Secret", "kcore.core.v1.Sec", "", "*"):
            with pytest.raises(ApiError):
                await alice.list(pb.ListRequest(selection=pb.Selection(kind=trick, namespace="a")))


def _config(name: str, namespace: str, **data: str) -> Any:
    made = config_map(name, **data)
    made.metadata.namespace = namespace
    return made


# S53: nothing wider than the grant.


async def test_s53_a_role_in_one_namespace_is_not_for_all(tmp_path: Path) -> None:
    async with ruled(tmp_path) as there:
        await make(there.session(), _config("mine", "a"), _config("theirs", "b"))
        alice = there.session(IDENTITIES[1])
        past = pb.At(revision=there.kernel.head)
        for namespace in ("", "b"):
            selection = pb.Selection(kind=CONFIG_MAP, namespace=namespace)
            said = [
                await forbidden(alice.list(pb.ListRequest(selection=selection))),
                await forbidden(alice.list(pb.ListRequest(selection=selection, at=past))),
                await forbidden(anext(alice.watch(pb.WatchRequest(selections=[selection])))),
            ]
            assert not any("theirs" in one for one in said)
        everything = pb.WatchRequest(selections=[pb.Selection(kind="*")], progress_ms=10)
        async with aclosing(alice.watch(everything)) as responses:
            first = await anext(responses)
            seen = [config_map_pb2.ConfigMap.FromString(one.object) for one in first.events]
            assert [one.metadata.name for one in seen] == ["mine"]


# S54: nothing outlives its permission.


async def test_s54_a_watch_ends_with_its_permission(tmp_path: Path) -> None:
    async with ruled(tmp_path) as there:
        alice = there.session(IDENTITIES[1])
        selection = pb.Selection(kind=CONFIG_MAP, namespace="a")
        request = pb.WatchRequest(selections=[selection], progress_ms=50)
        async with aclosing(alice.watch(request)) as responses:
            await anext(responses)
            await delete(there.session(), BINDING, "b0", "a")
            with pytest.raises(ApiError) as raised:
                async with asyncio.timeout(5):
                    while True:
                        await anext(responses)
            assert raised.value.reason is Reason.FORBIDDEN
        # The very next question is refused.
        await forbidden(alice.get(pb.GetRequest(ref=ref(CONFIG_MAP, "c", "a"))))


async def test_s54_a_followed_log_ends_with_its_permission(tmp_path: Path) -> None:
    async with ruled(tmp_path) as there:
        one = pod("p", "n1")
        one.metadata.namespace = "a"
        await make(there.session(), node("n1"), one)
        kubelet = there.apiserver.streams(KUBELET)
        link = kubelet.link("n1")
        wanted = asyncio.ensure_future(anext(link))
        await asyncio.sleep(0)
        logs = there.apiserver.streams(IDENTITIES[1]).logs(
            ps.LogsRequest(target=ps.Target(namespace="a", pod="p"), follow=True)
        )
        reading = asyncio.ensure_future(anext(logs))
        opened = await wanted
        never = asyncio.Event()

        async def frames() -> AsyncGenerator[node_api.SessionRequest, None]:
            line = node_api.SessionRequest(session=opened.session)
            line.logs.SetInParent()
            yield line
            await never.wait()

        end = kubelet.session(frames())
        serving = asyncio.ensure_future(anext(end))
        await reading
        await delete(there.session(), BINDING, "b0", "a")
        with pytest.raises(ApiError) as raised:
            async with asyncio.timeout(5):
                await anext(logs)
        assert raised.value.reason is Reason.FORBIDDEN
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await link.aclose()


async def delete(session: Session, kind: str, name: str, namespace: str = "") -> None:
    request = pb.CommitRequest()
    request.transactions.add().operations.add(ref=ref(kind, name, namespace), delete=pb.Delete())
    await session.commit(request)


# S55: who may write an object's owners may let it be deleted.


@pytest.mark.parametrize("way", ["update", "merge", "json", "json_merge", "apply"])
async def test_s55_owners_are_for_those_who_may_delete(tmp_path: Path, way: str) -> None:
    async with world(tmp_path) as there:
        changer = cluster_role("changer", ("get update patch", "core", "configmaps", ""))
        who = binding("changer", "ClusterRole", "changer", "eve")
        await make(there.session(), changer, who, config_map("victim"))
        eve = there.session(User("eve", (AUTHENTICATED,)))
        owner = meta_pb2.OwnerReference(api_version="v1", kind="Pod", name="gone", uid="u")
        for owned in (False, True):
            obj = config_map("victim", k=way)
            if owned:
                obj.metadata.owner_references.append(owner)
            body = obj.SerializeToString()
            request = pb.CommitRequest()
            operation = request.transactions.add(manager="eve").operations.add(
                ref=ref(CONFIG_MAP, "victim")
            )
            plain = '[{"apiVersion":"v1","kind":"Pod","name":"gone","uid":"u"}]'
            if way == "update":
                operation.update = body
            elif way == "merge":
                merge = operation.patch.merge
                merge.object = body
                merge.mask.paths.extend(["metadata.ownerReferences"] if owned else ["data"])
            elif way == "apply":
                operation.apply.object, operation.apply.force = body, True
            elif way == "json":
                operation.patch.json = (
                    f'[{{"op":"add","path":"/metadata/ownerReferences","value":{plain}}}]'
                    if owned
                    else '[{"op":"add","path":"/data","value":{"k":"v"}}]'
                )
            else:
                operation.patch.json_merge = (
                    f'{{"metadata":{{"ownerReferences":{plain}}}}}'
                    if owned
                    else '{"data":{"k":"v"}}'
                )
            if not owned:
                try:
                    await eve.commit(request)
                except ApiError as error:
                    # This kernel has no JSON.
                    assert error.reason is Reason.UNIMPLEMENTED
                    return
            else:
                assert "ownerReferences" in await forbidden(eve.commit(request))


async def test_s55_a_node_does_not_say_who_owns_it(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        owned = node("n1")
        owned.metadata.owner_references.add(api_version="v1", kind="Pod", name="gone", uid="u")
        kubelet = there.session(KUBELET)
        assert "ownerReferences" in await forbidden(kubelet.commit(create(NODE, owned)))
        await kubelet.commit(create(NODE, node("n1")))
        request = pb.CommitRequest()
        request.transactions.add().operations.add(
            ref=ref(NODE, "n1", ""), update=owned.SerializeToString()
        )
        assert "ownerReferences" in await forbidden(kubelet.commit(request))


# S56: a node reads what its pods refer to.


async def test_s56_a_node_reads_the_secrets_of_its_pods(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await make(there.session(), node("n1"), node("n2"))
        for name in ("s1", "s2"):
            await make(there.session(), named(secret_pb2.Secret, name, "default"))
        for name, on in (("s1", "n1"), ("s2", "n2")):
            one = pod(f"of-{on}", on)
            one.spec.volumes.add(name="v").volume_source.secret.secret_name = name
            await make(there.session(), one)
        kubelet = there.session(KUBELET)
        await kubelet.get(pb.GetRequest(ref=ref(SECRET, "s1")))
        await forbidden(kubelet.get(pb.GetRequest(ref=ref(SECRET, "s2"))))
        await forbidden(kubelet.get(pb.GetRequest(ref=ref(SECRET, "s1", "kube-system"))))
        await forbidden(kubelet.list(pb.ListRequest(selection=pb.Selection(kind=SECRET))))
        every = pb.Selection(kind=CONFIG_MAP)
        await forbidden(anext(kubelet.watch(pb.WatchRequest(selections=[every]))))
        guard = pb.CommitRequest()
        guard.transactions.add().guards.add(ref=ref(SECRET, "s2"), absent=True)
        await forbidden(kubelet.commit(guard))
        past = pb.At(revision=there.kernel.head)
        done = pb.CommitRequest()
        over = pod_pb2.Pod.FromString(
            (await there.session().get(pb.GetRequest(ref=ref(POD, "of-n1")))).object
        )
        over.status.phase = "Succeeded"
        done.transactions.add().operations.add(
            ref=ref(POD, "of-n1"), subresource="status", update=over.SerializeToString()
        )
        await there.session().commit(done)
        await forbidden(kubelet.get(pb.GetRequest(ref=ref(SECRET, "s1"))))
        await forbidden(kubelet.get(pb.GetRequest(ref=ref(SECRET, "s1"), at=past)))


# S57 and S58: one answer for one object, by whatever way it is written.


@pytest.mark.parametrize("way", ["create", "update", "apply", "merge", "dry run"])
async def test_s58_a_role_is_judged_by_every_way_of_writing_it(tmp_path: Path, way: str) -> None:
    async with ruled(tmp_path) as there:
        await make(
            there.session(),
            cluster_role("editor", ("create update patch get", GROUP, "roles", "")),
            binding("editor", "ClusterRole", "editor", "alice", namespace="a"),
        )
        alice = there.session(IDENTITIES[1])
        await make(alice, role("mine", ("get", "core", "pods", "")))
        wider = role("mine", ("get", "core", "secrets", ""))
        request = pb.CommitRequest(dry_run=way == "dry run")
        operation = request.transactions.add(manager="m").operations.add(ref=ref(ROLE, "mine", "a"))
        if way == "create":
            operation.ref.name = wider.metadata.name = "new"
            operation.create = wider.SerializeToString()
        elif way == "apply":
            operation.apply.object, operation.apply.force = wider.SerializeToString(), True
        elif way == "merge":
            operation.patch.merge.object = wider.SerializeToString()
            operation.patch.merge.mask.paths.append("rules")
        else:
            operation.update = wider.SerializeToString()
        said = await forbidden(alice.commit(request))
        assert "attempting to grant RBAC permissions not currently held" in said
        assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in said


async def test_s57_what_was_judged_is_what_is_stored(tmp_path: Path) -> None:
    """A role that grows between the look at it and the write is not written."""
    async with ruled(tmp_path) as there:
        await make(
            there.session(),
            cluster_role("editor", ("create update patch get", GROUP, "roles", "")),
            binding("editor", "ClusterRole", "editor", "alice", namespace="a"),
        )
        alice = there.session(IDENTITIES[1])
        await make(alice, role("mine", ("get", "core", "pods", "")))
        request = pb.CommitRequest()
        operation = request.transactions.add().operations.add(ref=ref(ROLE, "mine", "a"))
        labelled = role("mine", color="blue")
        operation.patch.merge.object = labelled.SerializeToString()
        operation.patch.merge.mask.paths.append("metadata.labels")
        writing = asyncio.ensure_future(alice.commit(request))
        await asyncio.sleep(0)
        wider = role("mine", ("*", "*", "*", ""))
        grown = pb.CommitRequest()
        grown.transactions.add().operations.add(
            ref=ref(ROLE, "mine", "a"), update=wider.SerializeToString()
        )
        await there.session().commit(grown)
        with pytest.raises(ApiError) as raised:
            await writing
        assert raised.value.reason in (Reason.CONFLICT, Reason.FORBIDDEN)


# S59: no reference of a pod is missed.


def test_s59_every_field_that_refers_to_a_secret_is_known() -> None:
    missed = []
    known = reference.MESSAGES

    def walk(message: Any, path: str, seen: tuple[str, ...]) -> None:
        for field in message.fields:
            inner = field.message_type
            where = f"{path}.{field.name}"
            if inner is None:
                if field.name in ("secret_name", "config_map_name"):
                    assert message.full_name in known, where
                continue
            if inner.full_name in seen or inner.GetOptions().map_entry:
                continue
            refers = inner.name in ("LocalObjectReference", "SecretReference")
            if refers and message.full_name not in known and field.name != "image_pull_secrets":
                missed.append(where)
            walk(inner, where, (*seen, inner.full_name))

    walk(pod_pb2.Pod.DESCRIPTOR.fields_by_name["spec"].message_type, "spec", ())
    assert missed == []


@pytest.mark.parametrize("where", ["containers", "init_containers", "ephemeral_containers"])
def test_s59_in_every_container(where: str) -> None:
    one = pod_pb2.Pod()
    container: Any = getattr(one.spec, where).add()
    if where == "ephemeral_containers":
        container = container.ephemeral_container_common
    source = container.env.add(name="a").value_from
    source.secret_key_ref.local_object_reference.name = "a"
    container.env_from.add().config_map_ref.local_object_reference.name = "b"
    one.spec.image_pull_secrets.add(name="c")
    projected = one.spec.volumes.add(name="p").volume_source.projected
    projected.sources.add().secret.local_object_reference.name = "d"
    assert reference.referred(one.SerializeToString()) == {
        (SECRET, "a"),
        (CONFIG_MAP, "b"),
        (SECRET, "c"),
        (SECRET, "d"),
    }


# S60: nobody makes himself more than he is.

MASTER_OF_ROLES: Said = ("create update patch get", GROUP, "*", "")


@pytest.mark.parametrize(
    "wanted",
    [
        cluster_role("more", ("get", "core", "secrets", "")),
        cluster_role("more", ("*", "*", "*", "")),
        cluster_role("more", ("get", "core", "*", "")),
        cluster_role("more", ("get", "core", "pods/exec", "")),
        cluster_role(
            "more",
            ("get", "core", "secrets", ""),
            **{"rbac.authorization.k8s.io/aggregate-to-view": "true"},
        ),
        roles.ClusterRole(
            metadata=meta_pb2.ObjectMeta(name="more"),
            aggregation_rule=roles.AggregationRule(
                cluster_role_selectors=[meta_pb2.LabelSelector(match_labels={"a": "b"})]
            ),
        ),
        binding("more", "ClusterRole", "cluster-admin", "mallory"),
        binding("more", "ClusterRole", "view", "mallory"),
        binding("more", "ClusterRole", "cluster-admin", "mallory", namespace="a"),
        binding("more", "Role", "all", "mallory", namespace="a"),
        role("more", ("get", "core", "secrets", "")),
    ],
    ids=lambda one: f"{kind_of(one).rpartition('.')[2]}-{one.ByteSize()}",
)
async def test_s60_nobody_gives_himself_more(tmp_path: Path, wanted: Any) -> None:
    async with ruled(tmp_path) as there:
        await there.kernel.commit(pb.CommitRequest(transactions=defaults.first()), "boot")
        await make(
            there.session(),
            cluster_role("roles", MASTER_OF_ROLES, ("get", "core", "pods", "")),
            binding("roles", "ClusterRole", "roles", "mallory"),
        )
        mallory = there.session(User("mallory", (AUTHENTICATED,)))
        # What he has he may give.
        await make(mallory, cluster_role("less", ("get", "core", "pods", "x")))
        await make(mallory, binding("less", "ClusterRole", "less", "friend"))
        await forbidden(mallory.commit(create(kind_of(wanted), wanted)))


@pytest.mark.parametrize(
    ("verb", "names", "allowed"),
    [("escalate", "", True), ("escalate", "other", False), ("escalate", "more", True)],
)
async def test_s60_who_may_escalate_may(
    tmp_path: Path, verb: str, names: str, allowed: bool
) -> None:
    async with ruled(tmp_path) as there:
        await make(
            there.session(),
            cluster_role("roles", MASTER_OF_ROLES, (verb, GROUP, "clusterroles", names)),
            binding("roles", "ClusterRole", "roles", "mallory"),
        )
        mallory = there.session(User("mallory", (AUTHENTICATED,)))
        made = cluster_role("more", ("get", "core", "secrets", ""))
        if allowed:
            await make(mallory, made)
        else:
            await forbidden(mallory.commit(create(CLUSTER_ROLE, made)))


@pytest.mark.parametrize("of", ["nodes", "scaler"])
async def test_s60_who_may_bind_a_role_binds_that_one(tmp_path: Path, of: str) -> None:
    async with ruled(tmp_path) as there:
        await make(
            there.session(),
            cluster_role("roles", MASTER_OF_ROLES, ("bind", GROUP, "clusterroles", "nodes")),
            binding("roles", "ClusterRole", "roles", "mallory"),
        )
        mallory = there.session(User("mallory", (AUTHENTICATED,)))
        made = binding("more", "ClusterRole", of, "mallory")
        if of == "nodes":
            await make(mallory, made)
        else:
            await forbidden(mallory.commit(create(CLUSTER_BINDING, made)))


async def test_s60_the_role_of_a_binding_never_changes(tmp_path: Path) -> None:
    async with ruled(tmp_path) as there:
        moved = binding("b1", "ClusterRole", "named", "alice", namespace="a")
        request = pb.CommitRequest()
        request.transactions.add().operations.add(
            ref=ref(BINDING, "b1", "a"), update=moved.SerializeToString()
        )
        with pytest.raises(ApiError) as raised:
            await there.session().commit(request)
        assert raised.value.violations[0].path == "roleRef"


@pytest.mark.parametrize(
    ("name", "groups", "allowed"),
    [
        ("frank", (), True),
        ("grace", (), False),
        ("frank", ("system:masters",), False),
        ("frank", ("friends",), True),
        ("frank", ("friends", "system:masters"), False),
        ("system:node:n1", ("system:nodes",), False),
        ("system:serviceaccount:a:robot", (), False),
    ],
)
async def test_s60_one_is_another_only_by_that_very_name(
    tmp_path: Path, name: str, groups: tuple[str, ...], allowed: bool
) -> None:
    async with ruled(tmp_path) as there:
        await make(
            there.session(),
            cluster_role(
                "other",
                ("impersonate", "core", "users", "frank"),
                ("impersonate", "core", "groups", "friends"),
            ),
            binding("other", "ClusterRole", "other", "mallory"),
        )
        gate = Gate(there.kernel, there.apiserver.broker, there.apiserver.authorizer)
        mallory = User("mallory", (AUTHENTICATED,))
        if allowed:
            assert gate.impersonated(mallory, name, groups).name == name
        else:
            with pytest.raises(ApiError) as raised:
                gate.impersonated(mallory, name, groups)
            assert raised.value.reason is Reason.FORBIDDEN


# The roles that every cluster has.


@pytest.mark.parametrize(
    ("of", "verb", "kind", "sub", "allowed"),
    [
        ("view", "list", POD, "", True),
        ("view", "get", POD, "log", True),
        ("view", "get", SECRET, "", False),
        ("view", "create", POD, "exec", False),
        ("view", "patch", DEPLOYMENT, "", False),
        ("view", "get", ROLE, "", False),
        ("edit", "list", POD, "", True),
        ("edit", "get", SECRET, "", True),
        ("edit", "create", POD, "exec", True),
        ("edit", "patch", DEPLOYMENT, "scale", True),
        ("edit", "create", ROLE, "", False),
        ("admin", "get", SECRET, "", True),
        ("admin", "create", BINDING, "", True),
        ("admin", "get", NODE, "", False),
        ("cluster-admin", "delete", NODE, "", False),
    ],
)
async def test_the_default_roles_in_a_namespace(
    tmp_path: Path, of: str, verb: str, kind: str, sub: str, allowed: bool
) -> None:
    async with world(tmp_path) as there:
        await there.kernel.commit(pb.CommitRequest(transactions=defaults.first()), "boot")
        await make(there.session(), binding("b", "ClusterRole", of, "u", namespace="default"))
        user = User("u", (AUTHENTICATED,))
        decide = there.apiserver.authorizer
        assert decide(user, verb, kind, "default", "x", sub).allowed is allowed
        assert not decide(user, verb, kind, "other", "x", sub).allowed
        assert not decide(user, verb, kind, "", "", sub).allowed


async def test_a_decision_says_what_it_rests_on(tmp_path: Path) -> None:
    async with ruled(tmp_path) as there:
        decision = there.apiserver.authorizer(IDENTITIES[1], "list", POD, "a", "", "")
        assert decision == authorize.Decision(
            True, 'RBAC: allowed by RoleBinding "a/b0" of Role "reader" to User "alice"'
        )
