"""Who may do what: the built-in table, and that no face, batch, guard or "*" is a way around it."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import auth_pb2
from kcore_api.kcore.core.v1 import secret_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.apiserver import authorize
from kcore.apiserver.authorize import Decision
from kcore.apiserver.identity import ADMIN, AUTHENTICATED, NODES, User
from kcore.apiserver.session import Session
from kcore.kernel import frame
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import (
    CONFIG_MAP,
    NODE,
    POD,
    SECRET,
    config_map,
    create,
    node,
    pod,
    ref,
    world,
)

EVENT = "kcore.core.v1.Event"
LEASE = "kcore.coordination.v1.Lease"
DEPLOYMENT = "kcore.apps.v1.Deployment"
SERVICE = "kcore.core.v1.Service"
SLICE = "kcore.discovery.v1.EndpointSlice"

ALICE = User("alice", (AUTHENTICATED,))
KUBELET = User("system:node:n1", (NODES, AUTHENTICATED))
# The name alone, or the group alone, makes no kubelet.
IMPOSTOR = User("system:node:n1", (AUTHENTICATED,))
NAMELESS = User("n1", (NODES, AUTHENTICATED))
MANAGER = User("system:kube-controller-manager", (AUTHENTICATED,))
SCHEDULER = User("system:kube-scheduler", (AUTHENTICATED,))
PROXY = User("system:kube-proxy", (AUTHENTICATED,))

YES: tuple[tuple[User, str, str, str, str, str], ...] = (
    (ADMIN, "delete", SECRET, "kube-system", "x", ""),
    (ADMIN, "create", POD, "default", "p", "exec"),
    (ADMIN, "nonsense", "kcore.none.v1.None", "", "", "nonsense"),
    (ADMIN, authorize.IMPERSONATE, authorize.USERS, "", "alice", ""),
    (MANAGER, "list", SECRET, "", "", ""),
    (MANAGER, "create", POD, "default", "", ""),
    (MANAGER, "patch", DEPLOYMENT, "default", "web", "status"),
    (MANAGER, authorize.CAUSE, "", "", "", ""),
    (SCHEDULER, "watch", POD, "", "", ""),
    (SCHEDULER, "patch", POD, "default", "p", "binding"),
    (SCHEDULER, "patch", POD, "default", "p", "status"),
    (SCHEDULER, "create", EVENT, "default", "e", ""),
    (SCHEDULER, authorize.CAUSE, "", "", "", ""),
    (PROXY, "watch", SERVICE, "", "", ""),
    (PROXY, "watch", SLICE, "", "", ""),
    (ADMIN, "update", SERVICE, "default", "s", "externalips"),
    (KUBELET, "watch", POD, "", "", ""),
    (KUBELET, "create", NODE, "", "n1", ""),
    (KUBELET, "patch", NODE, "", "n1", "status"),
    (KUBELET, "create", NODE, "", "n1", "link"),
    (KUBELET, "update", LEASE, "kube-node-lease", "n1", ""),
    (KUBELET, "get", EVENT, "default", "e", ""),
)
# Only of its own node: whoever has the object must look.
BOUND: tuple[tuple[User, str, str, str, str, str], ...] = (
    (KUBELET, "get", SECRET, "default", "s", ""),
    (KUBELET, "watch", CONFIG_MAP, "default", "c", ""),
    (KUBELET, "patch", POD, "default", "p", "status"),
    (KUBELET, "delete", POD, "default", "p", ""),
    (KUBELET, "create", POD, "default", "p-n1", ""),
)
NO: tuple[tuple[User, str, str, str, str, str], ...] = (
    (ALICE, "get", POD, "default", "p", ""),
    (ALICE, authorize.IMPERSONATE, authorize.USERS, "", "bob", ""),
    (ALICE, authorize.CAUSE, "", "", "", ""),
    (MANAGER, "create", POD, "default", "p", "exec"),
    (MANAGER, "get", POD, "default", "p", "log"),
    (MANAGER, "create", POD, "default", "p", "binding"),
    (MANAGER, "create", NODE, "", "n1", "link"),
    (MANAGER, authorize.IMPERSONATE, authorize.GROUPS, "", "system:masters", ""),
    (SCHEDULER, "get", SECRET, "default", "s", ""),
    (PROXY, "get", SECRET, "default", "s", ""),
    (PROXY, "list", POD, "", "", ""),
    (PROXY, "update", SERVICE, "default", "s", ""),
    (PROXY, "update", SLICE, "default", "s", ""),
    (MANAGER, "update", SERVICE, "default", "s", "externalips"),
    (ALICE, "update", SERVICE, "default", "s", "status"),
    (KUBELET, "update", SLICE, "default", "s", ""),
    (SCHEDULER, "create", POD, "default", "p", ""),
    (SCHEDULER, "patch", POD, "default", "p", ""),
    (SCHEDULER, "patch", NODE, "", "n1", ""),
    (KUBELET, "list", SECRET, "", "", ""),
    (KUBELET, "watch", SECRET, "default", "", ""),
    (KUBELET, "create", SECRET, "default", "s", ""),
    (KUBELET, "create", NODE, "", "n2", ""),
    (KUBELET, "patch", NODE, "", "n2", "status"),
    (KUBELET, "delete", NODE, "", "n1", ""),
    (KUBELET, "create", NODE, "", "n2", "link"),
    (KUBELET, "update", LEASE, "kube-node-lease", "n2", ""),
    (KUBELET, "update", LEASE, "default", "n1", ""),
    (KUBELET, "list", LEASE, "", "", ""),
    (KUBELET, "patch", POD, "default", "p", ""),
    (KUBELET, "patch", POD, "default", "p", "binding"),
    (KUBELET, "create", POD, "default", "p", "exec"),
    (IMPOSTOR, "patch", NODE, "", "n1", "status"),
    (NAMELESS, "patch", NODE, "", "n1", "status"),
    (User("", ()), "get", POD, "default", "p", ""),
)


@pytest.mark.parametrize("asked", YES)
def test_allowed(asked: tuple[User, str, str, str, str, str]) -> None:
    decision = authorize.decide(*asked)
    assert decision.allowed
    assert not decision.bound_to


@pytest.mark.parametrize("asked", BOUND)
def test_allowed_on_the_own_node(asked: tuple[User, str, str, str, str, str]) -> None:
    decision = authorize.decide(*asked)
    assert decision.allowed
    assert decision.bound_to == "n1"


@pytest.mark.parametrize("asked", NO)
def test_denied(asked: tuple[User, str, str, str, str, str]) -> None:
    assert not authorize.decide(*asked).allowed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("list", POD, "n", "", ""),
            'pods is forbidden: User "alice" cannot list resource "pods" in API group ""'
            ' in the namespace "n"',
        ),
        (
            ("delete", DEPLOYMENT, "n", "web", ""),
            'deployments.apps "web" is forbidden: User "alice" cannot delete resource'
            ' "deployments" in API group "apps" in the namespace "n"',
        ),
        (
            ("list", NODE, "ignored", "", ""),
            'nodes is forbidden: User "alice" cannot list resource "nodes" in API group ""'
            " at the cluster scope",
        ),
        (
            ("update", POD, "n", "p", "status"),
            'pods "p" is forbidden: User "alice" cannot update resource "pods/status"'
            ' in API group "" in the namespace "n"',
        ),
    ],
)
async def test_the_words_are_those_of_kubernetes(
    tmp_path: Path, arguments: tuple[str, str, str, str, str], said: str
) -> None:
    async with world(tmp_path) as there:
        with pytest.raises(ApiError) as raised:
            there.session(ALICE).check(*arguments)
        assert raised.value.reason is Reason.FORBIDDEN
        assert raised.value.message == said


def reads_config_maps(
    user: User, verb: str, kind: str, namespace: str, name: str, subresource: str
) -> Decision:
    """One may read and change ConfigMaps, and nothing else."""
    allowed = kind == CONFIG_MAP and verb in ("get", "list", "watch", "patch", "update")
    return Decision(allowed, "")


async def refused(session: Session, request: pb.CommitRequest) -> str:
    with pytest.raises(ApiError) as raised:
        await session.commit(request)
    assert raised.value.reason is Reason.FORBIDDEN, raised.value
    return raised.value.message


async def test_each_operation_of_a_transaction_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        session = Session(there.kernel, ALICE, reads_config_maps)
        await there.session().commit(create(CONFIG_MAP, config_map("a")))
        request = pb.CommitRequest()
        transaction = request.transactions.add()
        merge = pb.Merge(object=config_map("a", k="v").SerializeToString())
        merge.mask.paths.append("data")
        transaction.operations.add(ref=ref(CONFIG_MAP, "a"), patch=pb.Patch(merge=merge))
        for dry_run in (True, False):
            request.dry_run = dry_run
            await session.commit(request)
            twice = pb.CommitRequest()
            twice.CopyFrom(request)
            twice.transactions[0].operations.add(ref=ref(SECRET, "s"), delete=pb.Delete())
            assert 'cannot delete resource "secrets"' in await refused(session, twice)


async def test_a_name_within_the_object_is_asked_for(tmp_path: Path) -> None:
    def only_a(
        user: User, verb: str, kind: str, namespace: str, name: str, subresource: str
    ) -> Decision:
        return Decision((namespace, name) == ("default", "a"), "")

    async with world(tmp_path) as there:
        session = Session(there.kernel, ALICE, only_a)
        await session.commit(create(CONFIG_MAP, config_map("a")))
        said = await refused(session, create(CONFIG_MAP, config_map("b")))
        assert 'configmaps "b" is forbidden' in said
        # Who says one name and means another is not served at all.
        lying = create(CONFIG_MAP, config_map("b"))
        lying.transactions[0].operations[0].ref.CopyFrom(ref(CONFIG_MAP, "a"))
        with pytest.raises(ApiError) as raised:
            await session.commit(lying)
        assert raised.value.reason is Reason.INVALID
        generated = config_map("")
        generated.metadata.generate_name = "a"
        await refused(session, create(CONFIG_MAP, generated))
        # Twice the same field on the wire: what is merged is what is asked for.
        spliced = create(CONFIG_MAP, config_map("a"))
        operation = spliced.transactions[0].operations[0]
        operation.create = config_map("a").SerializeToString() + config_map("b").SerializeToString()
        assert 'configmaps "b" is forbidden' in await refused(session, spliced)


async def test_guards_are_reads(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        session = Session(there.kernel, ALICE, reads_config_maps)
        request = pb.CommitRequest(dry_run=True)
        transaction = request.transactions.add()
        transaction.guards.add(ref=ref(SECRET, "s"), absent=True)
        assert 'cannot get resource "secrets"' in await refused(session, request)


async def test_a_cause_is_for_those_who_may_say_one(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        session = Session(there.kernel, ALICE, reads_config_maps)
        request = pb.CommitRequest()
        request.transactions.add(because=1)
        assert "because" in await refused(session, request)
        request = create(CONFIG_MAP, config_map("a"))
        request.transactions[0].because = 1
        await there.session(MANAGER).commit(request)


async def test_an_apply_that_makes_the_object_needs_create_as_well(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        session = Session(there.kernel, ALICE, reads_config_maps)
        request = pb.CommitRequest()
        operation = request.transactions.add(manager="alice").operations.add(
            ref=ref(CONFIG_MAP, "a")
        )
        operation.apply.object = config_map("a", k="v").SerializeToString()
        assert 'cannot create resource "configmaps"' in await refused(session, request)
        await there.session().commit(create(CONFIG_MAP, config_map("a")))
        await session.commit(request)


async def test_of_several_transactions_only_the_forbidden_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await there.session().commit(create(CONFIG_MAP, config_map("a")))
        session = Session(there.kernel, ALICE, reads_config_maps)
        request = pb.CommitRequest()
        for name, kind in (("a", CONFIG_MAP), ("s", SECRET), ("b", CONFIG_MAP), ("t", SECRET)):
            operation = request.transactions.add().operations.add(ref=ref(kind, name))
            operation.update = config_map(name, k="v").SerializeToString()
        response = await session.commit(request)
        codes = [result.error.code for result in response.results]
        assert codes == [0, 7, 5, 7]
        response = await session.commit(pb.CommitRequest(transactions=request.transactions[1::2]))
        assert [result.error.code for result in response.results] == [7, 7]
        response = await session.commit(pb.CommitRequest(transactions=request.transactions[1:3]))
        assert [result.error.code for result in response.results] == [7, 5]


async def test_the_past_needs_todays_permission(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        session = Session(there.kernel, ALICE, reads_config_maps)
        secret = secret_pb2.Secret()
        secret.metadata.name, secret.metadata.namespace = "s", "default"
        await there.session().commit(create(SECRET, secret))
        past = pb.At(revision=there.kernel.head)
        with pytest.raises(ApiError, match='cannot get resource "secrets"'):
            await session.get(pb.GetRequest(ref=ref(SECRET, "s"), at=past))
        with pytest.raises(ApiError, match='cannot list resource "secrets"'):
            await session.list(pb.ListRequest(selection=pb.Selection(kind=SECRET), at=past))


async def test_a_watch_of_everything_shows_what_one_may_see(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        secret = secret_pb2.Secret()
        secret.metadata.name, secret.metadata.namespace = "s", "default"
        await there.session().commit(create(SECRET, secret))
        await there.session().commit(create(CONFIG_MAP, config_map("a")))
        session = Session(there.kernel, ALICE, reads_config_maps)
        request = pb.WatchRequest(selections=[pb.Selection(kind="*")], progress_ms=10)
        async with aclosing(session.watch(request)) as responses:
            first = await anext(responses)
            assert [name(event.object) for event in first.events] == ["a"]
            secret.metadata.name = "t"
            await there.session().commit(create(SECRET, secret))
            await there.session().commit(create(CONFIG_MAP, config_map("b")))
            seen: list[str] = []
            async with asyncio.timeout(5):
                while not seen:
                    seen = [name(event.object) for event in (await anext(responses)).events]
            assert seen == ["b"]
        explicit = pb.WatchRequest(selections=[pb.Selection(kind="*"), pb.Selection(kind=SECRET)])
        with pytest.raises(ApiError, match='cannot watch resource "secrets"'):
            await anext(session.watch(explicit))


async def test_a_kubelets_watch_of_everything_has_no_secrets(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        secret = secret_pb2.Secret()
        secret.metadata.name, secret.metadata.namespace = "s", "default"
        await there.session().commit(create(SECRET, secret))
        secret.metadata.name = "t"
        await there.session().commit(create(SECRET, secret))
        await there.session().commit(create(NODE, node("n1")))
        reads = pod("reads", "n1")
        reads.spec.containers[0].env_from.add().secret_ref.local_object_reference.name = "s"
        await there.session().commit(create(POD, reads))
        request = pb.WatchRequest(
            selections=[
                pb.Selection(kind="*"),
                pb.Selection(kind=SECRET, namespace="default", names=["s"]),
            ]
        )
        async with aclosing(there.session(KUBELET).watch(request)) as responses:
            events = (await anext(responses)).events
            by_selection = [(event.selection, name(event.object)) for event in events]
            assert (0, "n1") in by_selection
            assert (1, "s") in by_selection
            assert "t" not in {name for _, name in by_selection}


async def test_a_kubelet_writes_the_pods_of_its_own_node(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await there.session().commit(create(NODE, node("n1"), node("n2")))
        await there.session().commit(
            create(POD, pod("mine", "n1"), pod("yours", "n2"), pod("nobodys"))
        )
        kubelet = there.session(KUBELET)
        for target in ("yours", "nobodys"):
            said = await refused(kubelet, _status(target))
            assert f'pods "{target}" is forbidden' in said
            deletion = pb.CommitRequest()
            deletion.transactions.add().operations.add(ref=ref(POD, target), delete=pb.Delete())
            await refused(kubelet, deletion)
        await kubelet.commit(_status("mine"))
        await refused(kubelet, create(POD, pod("mirror-n2", "n2")))
        await refused(kubelet, create(POD, pod("unbound")))
        await kubelet.commit(create(POD, pod("mirror-n1", "n1")))
        with pytest.raises(ApiError) as raised:
            await kubelet.commit(_status("absent"))
        assert raised.value.reason is Reason.NOT_FOUND


async def test_a_kubelet_whose_pod_has_a_namesake_elsewhere_learns_that_its_own_is_gone(
    tmp_path: Path,
) -> None:
    """It was deleted by force and made again; FORBIDDEN would be asked for again, for ever."""
    async with world(tmp_path) as there:
        await there.session().commit(create(NODE, node("n1"), node("n2")))
        await there.session().commit(create(POD, pod("db-0", "n2")))
        kubelet = there.session(KUBELET)
        status = _status("db-0")
        status.transactions[0].guards.add(ref=ref(POD, "db-0"), uid="what was mine")
        deletion = pb.CommitRequest()
        gone = pb.Delete(uid="what was mine")
        deletion.transactions.add().operations.add(ref=ref(POD, "db-0"), delete=gone)
        for request in (status, deletion):
            with pytest.raises(ApiError) as raised:
                await kubelet.commit(request)
            assert raised.value.reason is Reason.CONFLICT


async def test_what_one_may_can_be_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        ask = auth_pb2.CanIRequest(verb="delete", kind=POD, namespace="default")
        assert (await there.channel.can_i(ask)).allowed
        assert not there.session(ALICE).can_i(ask).allowed
        answer = there.session(KUBELET).can_i(ask)
        assert answer.allowed
        assert "node n1 only" in answer.reason
        who = await there.channel.who_am_i()
        assert (who.user, list(who.groups)) == (ADMIN.name, list(ADMIN.groups))


def _status(target: str) -> pb.CommitRequest:
    told = pod(target)
    told.status.phase = "Running"
    merge = pb.Merge(object=told.SerializeToString())
    merge.mask.paths.append("status.phase")
    request = pb.CommitRequest()
    request.transactions.add().operations.add(
        ref=ref(POD, target), subresource="status", patch=pb.Patch(merge=merge)
    )
    return request


def name(body: bytes) -> str:
    """Of any object: what stands before the rest is the same for all."""
    _, start, end = frame.metadata_of(body)
    return meta_pb2.ObjectMeta.FromString(body[start:end]).name
