"""The Api for one caller, in process: decode, ask for permission, hand on to the kernel.

    api: Api = Session(kernel, user)

Components that share a process with the kernel are given one; the gRPC face holds one for each
caller, and takes the methods in `…_bytes`, which answer with bytes ready to be sent. Permission is
asked for each operation after decoding, so no face, batch, guard, dry run or reading of the past is
a way around it. What an operation leaves to its object (namespace, name) is read off it by the
kernel and written into the reference, and the kernel refuses an object that says otherwise: what is
checked is what is stored. What hangs on the whole object (which permissions a role gives away, who
is said to own it) is judged on what a dry run says will be stored, and a guard holds the object
still until it is.

It must not know how a caller came in, nor how the kernel keeps anything.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Protocol

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import auth_pb2
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

import kcore
from kcore.apiserver import authorize, escalation, policy, reference
from kcore.apiserver.authorize import Decision
from kcore.apiserver.identity import MASTERS, User
from kcore.apiserver.token import DEFAULT_SECONDS, LEAST_SECONDS, MOST_SECONDS
from kcore.kernel import frame
from kcore.kernel.record import Key, Stored
from kcore.kernel.schema import Schema
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason, Violation

Decide = Callable[[User, str, str, str, str, str], Decision]

ANY_KIND = "*"
# What asks for which permission; an apply that makes the object needs "create" as well.
_VERBS = {
    "create": "create",
    "update": "update",
    "apply": "patch",
    "patch": "patch",
    "delete": "delete",
}


class Kernel(Protocol):
    """What is needed of the kernel: the five verbs, without permission."""

    @property
    def schema(self) -> Schema:
        """The kinds, now."""
        ...

    @property
    def head(self) -> int:
        """The last revision."""
        ...

    @property
    def cluster_id(self) -> str:
        """The cluster's identity."""
        ...

    @property
    def epoch(self) -> int:
        """Grows with each deliberate restore."""
        ...

    @property
    def waiting_seconds(self) -> float:
        """For how long the store has not answered; 0: nothing is asked of it."""
        ...

    def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        """The kinds that are served."""
        ...

    async def get(self, request: pb.GetRequest) -> bytes:
        """A GetResponse."""
        ...

    def shown(self, key: Key) -> Stored | None:
        """One object as it is seen here, maybe a moment late."""
        ...

    def shown_all(self, kind: str, path: str = "", value: str = "") -> Iterable[Stored]:
        """The objects of a kind, or those with this value of a selectable path."""
        ...

    def changed(self, kind: str) -> int:
        """The last revision that changed an object of the kind."""
        ...

    async def list(self, request: pb.ListRequest, user: str = "") -> bytes:
        """A ListResponse."""
        ...

    def watch(
        self, request: pb.WatchRequest, allowed: Callable[[str, str, str], bool] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """WatchResponses."""
        ...

    async def commit(self, request: pb.CommitRequest, actor: str) -> pb.CommitResponse:
        """Transactions. One alone raises its error; of several each result has its own."""
        ...

    def key_of(self, operation: pb.Operation) -> Key:
        """Which object an operation is about."""
        ...


class Session:
    """One caller's Api."""

    def __init__(self, kernel: Kernel, user: User, decide: Decide = authorize.decide) -> None:
        """`user`: whom the caller was found to be."""
        self.user = user
        self._kernel = kernel
        self._decide = decide

    async def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        """The kinds that are served; everybody may know."""
        response = self._kernel.kinds(request)
        response.version = kcore.__version__
        return response

    async def get(self, request: pb.GetRequest) -> pb.GetResponse:
        """One object."""
        return pb.GetResponse.FromString(await self.get_bytes(request))

    async def get_bytes(self, request: pb.GetRequest) -> bytes:
        """One object, as a GetResponse."""
        ref = request.ref
        self.check("get", ref.kind, ref.namespace, ref.name)
        return await self._kernel.get(request)

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        """A page of objects."""
        return pb.ListResponse.FromString(await self.list_bytes(request))

    async def list_bytes(self, request: pb.ListRequest) -> bytes:
        """A page of objects, as a ListResponse."""
        selection = request.selection
        for name in selection.names or ("",):
            self.check("list", selection.kind, selection.namespace, name)
        return await self._kernel.list(request, self.user.name)

    async def watch(self, request: pb.WatchRequest) -> AsyncGenerator[pb.WatchResponse, None]:
        """Objects, then their changes."""
        async with aclosing(self.watch_bytes(request)) as responses:
            async for response in responses:
                yield pb.WatchResponse.FromString(response)

    def watch_bytes(self, request: pb.WatchRequest) -> AsyncGenerator[bytes, None]:
        """Objects, then their changes, as WatchResponses. A selection of "*" shows what it may."""
        named: set[tuple[str, str]] = set()
        for selection in request.selections:
            if selection.kind == ANY_KIND:
                continue
            for name in selection.names or ("",):
                self.check("watch", selection.kind, selection.namespace, name)
                named.add((selection.kind, name))

        def allowed(kind: str, namespace: str, name: str) -> bool:
            # That one may watch an object by its name is no leave to watch all by theirs.
            name = name if (kind, name) in named else ""
            return self._decided("watch", kind, namespace, name).allowed

        return self._kernel.watch(request, allowed)

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        """Transactions. One alone raises its error; of several each result has its own."""
        if any(self._needs_judgement(one) for one in request.transactions):
            return await self._commit_judged(request)
        refused: dict[int, ApiError] = {}
        permitted = pb.CommitRequest(dry_run=request.dry_run, want=request.want)
        for index, transaction in enumerate(request.transactions):
            one = permitted.transactions.add()
            one.CopyFrom(transaction)
            try:
                self._permit(one)
            except ApiError as error:
                if len(request.transactions) == 1:
                    raise
                refused[index] = error
                del permitted.transactions[-1]
        if not refused:
            return await self._kernel.commit(permitted, self.user.name)
        results = iter(await self._results(permitted))
        whole = pb.CommitResponse()
        for index in range(len(request.transactions)):
            if index in refused:
                whole.results.add(error=errors.to_status(refused[index]))
            else:
                whole.results.append(next(results))
        return whole

    def who_am_i(self) -> auth_pb2.WhoAmIResponse:
        """The caller."""
        return auth_pb2.WhoAmIResponse(user=self.user.name, groups=self.user.groups)

    def can_i(self, request: auth_pb2.CanIRequest) -> auth_pb2.CanIResponse:
        """Whether the caller may do something."""
        decision = self._decide(
            self.user,
            request.verb,
            request.kind,
            self._namespace(request.kind, request.namespace),
            request.name,
            request.subresource,
        )
        reason = decision.reason
        if decision.bound_to:
            reason += f", for objects of node {decision.bound_to} only"
        return auth_pb2.CanIResponse(allowed=decision.allowed, reason=reason)

    def permissions(
        self, request: auth_pb2.ListPermissionsRequest
    ) -> auth_pb2.ListPermissionsResponse:
        """All that the caller may do in a namespace."""
        found = list(authorize.built_in(self.user, self._kernel.schema))
        found += authorize.policy_of(self._kernel).rules(self.user, request.namespace)
        response = auth_pb2.ListPermissionsResponse()
        for rule in dict.fromkeys(found):
            response.permissions.add(
                verbs=sorted(rule.verbs),
                api_groups=sorted(rule.groups),
                resources=sorted(rule.resources),
                resource_names=sorted(rule.names),
            )
        if self.user.node:
            response.incomplete = "a node may also do what is about its own pods"
        return response

    def token_of(self, request: auth_pb2.CreateTokenRequest) -> tuple[Stored, Stored | None]:
        """The account that the caller may have a token of, and the pod that it is bound to."""
        faults = [
            Violation(field, "is required")
            for field in ("namespace", "name")
            if not getattr(request, field)
        ]
        seconds = request.expiration_seconds
        if seconds and not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            said = f"must be {LEAST_SECONDS} to {MOST_SECONDS}, or 0 for {DEFAULT_SECONDS}"
            faults.append(Violation("expirationSeconds", said))
        if request.pod_uid and not request.pod:
            faults.append(Violation("podUid", "only with pod"))
        if faults:
            said = "; ".join(f"{one.path}: {one.message}" for one in faults)
            raise ApiError(Reason.INVALID, said, faults)
        namespace, name = request.namespace, request.name
        kind = authorize.SERVICE_ACCOUNT
        decision = self.check("create", kind, namespace, name, authorize.TOKEN)
        account = self._kernel.shown(Key(kind, namespace, name))
        pod = None
        if request.pod:
            pod = self._kernel.shown(Key(authorize.POD, namespace, request.pod))
        # A node learns nothing of pods that are not its own.
        if decision.bound_to and (
            pod is None or pod.fields.get("spec.nodeName") != decision.bound_to
        ):
            raise self.forbidden("create", kind, namespace, name, authorize.TOKEN)
        if account is None:
            raise ApiError(Reason.NOT_FOUND, f'serviceaccounts "{name}" not found')
        if request.pod and pod is None:
            raise ApiError(Reason.NOT_FOUND, f'pods "{request.pod}" not found')
        if pod is not None:
            _check_binding(request, pod)
        return account, pod

    def check(
        self, verb: str, kind: str, namespace: str, name: str, subresource: str = ""
    ) -> Decision:
        """Raises FORBIDDEN unless the caller may."""
        namespace = self._namespace(kind, namespace)
        decision = self._decided(verb, kind, namespace, name, subresource)
        if decision.allowed:
            return decision
        raise self.forbidden(verb, kind, namespace, name, subresource)

    def forbidden(
        self, verb: str, kind: str, namespace: str, name: str, subresource: str = ""
    ) -> ApiError:
        """The error for what the caller may not."""
        known = self._kernel.schema.kinds.get(kind)
        plural, group = (known.plural, known.group) if known is not None else (kind, "")
        said = authorize.denial(self.user, verb, plural, group, namespace, name, subresource)
        return ApiError(Reason.FORBIDDEN, said)

    def pod(self, namespace: str, name: str) -> pod_pb2.Pod | None:
        """A pod as it is, whatever the caller may; None where there is none."""
        found = self._kernel.shown(Key(authorize.POD, namespace, name))
        return pod_pb2.Pod.FromString(found.body) if found is not None else None

    def _decided(
        self, verb: str, kind: str, namespace: str, name: str, subresource: str = ""
    ) -> Decision:
        """Whether the caller may, and for reading also what hangs on what his node's pods say."""
        decision = self._decide(self.user, verb, kind, namespace, name, subresource)
        if decision.bound_to and verb in authorize.READ:
            pods = self._kernel.shown_all(authorize.POD, "spec.nodeName", decision.bound_to)
            if not any(
                one.key.namespace == namespace and (kind, name) in reference.referred(one.body)
                for one in pods
            ):
                said = f"no pod of node {decision.bound_to} refers to it"
                return Decision(False, said)
        return decision

    async def _commit_judged(self, request: pb.CommitRequest) -> pb.CommitResponse:
        """One transaction after another: what each may do hangs on what those before have done."""
        whole = pb.CommitResponse()
        for transaction in request.transactions:
            try:
                one = pb.CommitRequest(dry_run=request.dry_run, want=request.want)
                one.transactions.add().CopyFrom(transaction)
                self._permit(one.transactions[0])
                await self._judge(one.transactions[0])
                whole.results.extend((await self._kernel.commit(one, self.user.name)).results)
            except ApiError as error:
                if len(request.transactions) == 1:
                    raise
                whole.results.add(error=errors.to_status(error))
        return whole

    def _needs_judgement(self, transaction: pb.Transaction) -> bool:
        return any(
            self._is_policy(operation) or self._may_change_owners(operation)
            for operation in transaction.operations
        )

    def _is_policy(self, operation: pb.Operation) -> bool:
        """Whether it may give permissions away, by somebody who does not have them all."""
        if operation.ref.kind not in policy.KINDS or MASTERS in self.user.groups:
            return False
        return str(operation.WhichOneof("do")) != "delete"

    def _may_change_owners(self, operation: pb.Operation) -> bool:
        """Whether it may say who owns the object, by somebody who may not delete it himself.

        The garbage collector deletes for whoever can write that. Who makes an object may; but a
        node says nothing of that kind of itself.
        """
        ref = operation.ref
        do = operation.WhichOneof("do")
        if operation.subresource or do in (None, "delete"):
            return False
        if do == "create" and not (self.user.node and ref.kind == authorize.NODE):
            return False
        if do == "patch" and operation.patch.WhichOneof("patch") == "merge":
            paths = operation.patch.merge.mask.paths
            if paths and not any(path.partition(".")[0] == "metadata" for path in paths):
                return False
        name, namespace = ref.name, self._namespace(ref.kind, ref.namespace)
        return not self._decide(self.user, "delete", ref.kind, namespace, name, "").allowed

    async def _judge(self, whole: pb.Transaction) -> None:
        """Refuses what would be stored where the caller may not store just that."""
        before: list[Stored | None] = []
        for operation in whole.operations:
            key = Key(operation.ref.kind, operation.ref.namespace, operation.ref.name)
            before.append(self._kernel.shown(key) if key.name else None)
        tried = pb.CommitRequest(dry_run=True, want=pb.WANT_OBJECTS)
        tried.transactions.add().CopyFrom(whole)
        response = await self._kernel.commit(tried, self.user.name)
        current = authorize.policy_of(self._kernel)
        results = response.results[0].operations
        for operation, old, result in zip(tuple(whole.operations), before, results, strict=True):
            ref = operation.ref
            judged = False
            if self._is_policy(operation):
                escalation.check(self.user, current, ref.kind, result.object)
                judged = True
            if self._may_change_owners(operation):
                self._check_owners(operation, old, result.object)
                judged = True
            if judged and operation.WhichOneof("do") != "create":
                guard = whole.guards.add(ref=ref)
                if old is None:
                    guard.absent = True
                else:
                    guard.revision = old.revision

    def _check_owners(self, operation: pb.Operation, old: Stored | None, body: bytes) -> None:
        ref = operation.ref
        is_node = bool(self.user.node) and ref.kind == authorize.NODE
        if old is None and not is_node:
            return
        known = _owners(old.body) if old is not None else []
        if _owners(body) != known:
            error = self.forbidden("delete", ref.kind, ref.namespace, ref.name)
            said = f"cannot set metadata.ownerReferences of what you can't delete: {error.message}"
            raise ApiError(Reason.FORBIDDEN, said)

    async def _results(self, permitted: pb.CommitRequest) -> Sequence[pb.TransactionResult]:
        """One for each permitted transaction, even if it is the only one."""
        if not permitted.transactions:
            return ()
        try:
            response = await self._kernel.commit(permitted, self.user.name)
        except ApiError as error:
            if len(permitted.transactions) > 1:
                raise
            return (pb.TransactionResult(error=errors.to_status(error)),)
        return tuple(response.results)

    def _permit(self, whole: pb.Transaction) -> None:
        """Makes the transaction's references whole, if the caller may do all of it."""
        if whole.because and not self._decide(self.user, authorize.CAUSE, "", "", "", "").allowed:
            said = f'User "{self.user.name}" cannot say what its writes are because of'
            raise ApiError(Reason.FORBIDDEN, said)
        for guard in whole.guards:
            self.check("get", guard.ref.kind, guard.ref.namespace, guard.ref.name)
        for index, operation in enumerate(whole.operations):
            self._permit_operation(whole, operation, f"operations[{index}]")

    def _permit_operation(self, whole: pb.Transaction, operation: pb.Operation, path: str) -> None:
        ref = operation.ref
        do = operation.WhichOneof("do")
        if do is None:
            raise _invalid(path, "says nothing to do")
        if not ref.name or not ref.namespace:
            # The object says the rest, and the kernel refuses one that says otherwise.
            _, ref.namespace, ref.name = self._kernel.key_of(operation)
        # As in Kubernetes: who deletes through a door of its own makes an eviction.
        verb = "create" if do == "delete" and operation.subresource else _VERBS[do]
        decision = self.check(verb, ref.kind, ref.namespace, ref.name, operation.subresource)
        if decision.bound_to:
            self._check_bound(whole, operation, decision.bound_to)
        if do == "apply" and not operation.subresource:
            self._check_creation(whole, ref)

    def _check_bound(
        self,
        whole: pb.Transaction,
        operation: pb.Operation,
        node: str,
    ) -> None:
        """Refuses what is not about the node's own pods, here and, by a guard, in the kernel."""
        ref = operation.ref
        do = operation.WhichOneof("do") or ""
        if do == "create":
            pod: pod_pb2.Pod | None = pod_pb2.Pod.FromString(operation.create)
        else:
            pod = self.pod(ref.namespace, ref.name)
            if pod is None:
                # The kernel says so.
                return
            guard = whole.guards.add(ref=ref)
            guard.field.path, guard.field.value = "spec.nodeName", node
            if pod.metadata.uid not in _meant(whole, operation, pod.metadata.uid):
                # A namesake of one that has gone, maybe elsewhere: the kernel says so, too.
                return
        if pod is not None and pod.spec.node_name != node:
            raise self.forbidden(
                _VERBS[do], ref.kind, ref.namespace, ref.name, operation.subresource
            )

    def _check_creation(self, whole: pb.Transaction, ref: pb.Ref) -> None:
        """Refuses an apply that would make an object, to those who may only change it."""
        namespace = self._namespace(ref.kind, ref.namespace)
        if self._decide(self.user, "create", ref.kind, namespace, ref.name, "").allowed:
            return
        if self._kernel.shown(Key(ref.kind, ref.namespace, ref.name)) is None:
            raise self.forbidden("create", ref.kind, namespace, ref.name)
        guard = whole.guards.add(ref=ref)
        guard.field.path, guard.field.value = "metadata.name", ref.name

    def _namespace(self, kind: str, namespace: str) -> str:
        """The namespace that permission is asked for: none for kinds of the cluster."""
        known = self._kernel.schema.kinds.get(kind)
        return namespace if known is None or known.namespaced else ""


def _check_binding(request: auth_pb2.CreateTokenRequest, pod: Stored) -> None:
    if request.pod_uid and request.pod_uid != pod.uid:
        said = f'pod "{request.pod}" has uid {pod.uid}, not {request.pod_uid}'
        raise ApiError(Reason.CONFLICT, said)
    runs_as = pod.fields.get("spec.serviceAccountName", "")
    if runs_as != request.name:
        said = f'pod "{request.pod}" runs as service account "{runs_as}"'
        raise ApiError(Reason.INVALID, f"pod: {said}", [Violation("pod", said)])


def _owners(body: bytes) -> list[meta_pb2.OwnerReference]:
    _, inner, end = frame.metadata_of(body)
    return list(meta_pb2.ObjectMeta.FromString(body[inner:end]).owner_references)


def _meant(whole: pb.Transaction, operation: pb.Operation, uid: str) -> set[str]:
    """Uids that the caller says the operation's object has; `uid` where nothing is said."""
    said = {guard.uid for guard in whole.guards if guard.ref == operation.ref and guard.uid}
    if operation.delete.uid:
        said.add(operation.delete.uid)
    return said or {uid}


def _invalid(path: str, said: str) -> ApiError:
    return ApiError(Reason.INVALID, f"{path}: {said}", [Violation(path, said)])
