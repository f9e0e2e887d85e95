"""Schemas: kinds that come to a running kernel, change, and go."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pool_pb2
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.chance import Chance
from kcore.kernel import upload
from kcore.kernel.replica import Replica
from kcore.kernel.store.memory import MemoryStore
from kcore.wire.errors import ApiError, Reason
from tests.kernel import uploads
from tests.kernel import world as worlds
from tests.kernel.test_kernel import TickingClock
from tests.kernel.uploads import HEAD, KIND, PROTO_TEXT, SCHEMA, SPEC, STATUS, WIDGET, widget
from tests.kernel.world import NAMESPACE, POOL, World, refused

_FIELD: Any = options_pb2.field
_KIND: Any = options_pb2.kind


def but(old: str, new: str) -> str:
    """The widgets' proto with one thing changed."""
    assert old in PROTO_TEXT
    return PROTO_TEXT.replace(old, new)


async def serials(w: World) -> None:
    """The pool that widgets draw from."""
    pool = pool_pb2.Pool(metadata={"name": "serials"}, spec={"first": 10, "last": 99})
    await w.create(POOL, pool)


async def bring(w: World, text: bytes | str = PROTO_TEXT, name: str = "acme") -> Any:
    """Commits a Schema, and the pool that widgets draw from."""
    if not w.there(POOL, "serials"):
        await serials(w)
    return await w.create(SCHEMA, uploads.schema(text, name))


def kinds(w: World, digest: str = "") -> pb.KindsResponse:
    return w.kernel.kinds(pb.KindsRequest(digest=digest))


async def watched(w: World, **selection: Any) -> list[tuple[str, int, str]]:
    """What a watch tells until it is synced: (kind, type, name)."""
    request = pb.WatchRequest(selections=[pb.Selection(**selection)], progress_ms=10)
    events: list[tuple[str, int, str]] = []
    stream = w.kernel.watch(request)
    async for data in stream:
        response = pb.WatchResponse.FromString(data)
        for event in response.events:
            kind = event.kind or selection["kind"]
            made = w.kernel.schema.kind(kind).parse(event.object)
            events.append((kind, event.type, made.metadata.name))
        if response.synced:
            await stream.aclose()
            break
    return events


async def test_a_schema_brings_kinds_that_are_served_at_once() -> None:
    async with worlds.world() as w:
        before = kinds(w)
        assert before.revision == 0
        made = await bring(w)
        after = kinds(w, before.digest)
        assert after.digest != before.digest
        assert after.revision == int(made.metadata.resource_version) == w.head
        assert "acme/v1/widget.proto" in {file.name for file in after.descriptors.file}
        assert not kinds(w, after.digest).descriptors.file
        assert [one.name for one in made.status.kinds] == [WIDGET]
        assert made.status.kinds[0].api_version == "acme.dev/v1"
        assert made.status.kinds[0].since == after.revision
        assert [(one.type, one.status) for one in made.status.conditions] == [("Accepted", "True")]

        first = await w.create(WIDGET, widget())
        # Defaults, each on what those before it gave; and the first of the pool.
        assert (first.spec.size, first.spec.limit, first.spec.serial) == (3, 13, 10)
        assert first.metadata.generation == 1
        second = await w.apply(WIDGET, widget("v", size=5), manager="kcore")
        assert (second.spec.limit, second.spec.serial) == (15, 11)
        assert second.metadata.managed_fields[0].manager == "kcore"
        listed = pb.ListResponse.FromString(
            await w.kernel.list(
                pb.ListRequest(selection=pb.Selection(kind=WIDGET, fields="spec.color=red"))
            )
        )
        assert len(listed.items) == 2
        assert await watched(w, kind=WIDGET, fields="spec.color!=red") == []
        assert ("acme.v1.Widget", 1, "v") in await watched(w, kind="*")


async def test_what_an_uploaded_kind_says_is_checked() -> None:
    async with worlds.world() as w:
        await bring(w)
        with refused(Reason.INVALID, 'Widget.acme.dev "w" is invalid') as caught:
            await w.create(WIDGET, widget(color="pink", size=0, limit=-1))
        assert caught.error is not None
        assert {one.path for one in caught.error.violations} == {"spec.color", "spec.size"}
        made = await w.create(WIDGET, widget(size=9))
        made.spec.size = 30
        with refused(Reason.INVALID, "spec.size: too big"):
            await w.update(WIDGET, made)
        made.spec.size, made.spec.serial = 9, 55
        with refused(Reason.INVALID, "spec.serial: field is immutable"):
            await w.update(WIDGET, made)
        made.spec.serial, made.spec.color, made.spec.size = 10, "blue", 8
        scaled = await w.update(WIDGET, made, through="scale")
        assert (scaled.spec.size, scaled.spec.color) == (8, "red")
        scaled.status.phase = "Ready"
        done = await w.update(WIDGET, scaled, through="status")
        assert done.status.phase == "Ready" and done.metadata.generation == 2
        with refused(Reason.INVALID, "serial"):
            await w.create(WIDGET, widget("thief", serial=10))
        await w.delete(WIDGET, "w")
        assert (await w.create(WIDGET, widget("heir", serial=10))).spec.serial == 10


async def test_a_schema_takes_effect_for_the_transactions_after_it() -> None:
    async with worlds.world() as w:
        await serials(w)
        ref = pb.Ref(kind=WIDGET, namespace="default", name="w")
        make = pb.Operation(ref=ref, create=widget().SerializeToString())
        bring_it = worlds.create(SCHEMA, uploads.schema())
        with refused(Reason.NOT_FOUND, f'no matches for kind "{WIDGET}"'):
            await w.run(bring_it, make)
        assert not w.there(SCHEMA, "acme")
        request = pb.CommitRequest(
            transactions=[pb.Transaction(operations=[one]) for one in (bring_it, make)]
        )
        response = await w.kernel.commit(request, "me")
        assert [one.HasField("error") for one in response.results] == [False, False]
        assert w.get(WIDGET, "w").spec.size == 3


async def test_a_dry_run_of_a_schema_serves_nothing() -> None:
    async with worlds.world() as w:
        digest = kinds(w).digest
        await w.create(SCHEMA, uploads.schema(), dry_run=True)
        assert kinds(w).digest == digest
        with refused(Reason.INVALID, "package"):
            text = but("package acme.v1", "package kcore.acme.v1")
            await w.create(SCHEMA, uploads.schema(text), dry_run=True)


async def test_after_a_restart_the_kinds_are_there_again_whatever_was_compacted() -> None:
    store = MemoryStore(Chance(7))
    async with worlds.world(store) as w:
        await bring(w)
        await w.create(NAMESPACE, worlds.namespace("shop"))
        for name, namespace in (("a", "default"), ("b", "shop"), ("c", "default")):
            await w.create(WIDGET, widget(name, namespace))
        schema = w.get(SCHEMA, "acme")
        # The record that the widgets were written under is gone, and a later one says their kind.
        text = but(
            "optional string phase = 1", "optional string phase = 1; optional string color = 2"
        )
        text = text.replace(
            'selectable: "spec.color"', 'selectable: "spec.color" selectable: "spec.size"'
        )
        schema.spec.descriptors = uploads.compiled(text)
        await w.update(SCHEMA, schema)
        await w.kernel.compact(w.head)
        await w.delete(WIDGET, "c")
        before = kinds(w)
        assert len(await watched(w, kind=WIDGET, fields="spec.size=3")) == 2
    async with worlds.world(store, seed=2) as w:
        after = kinds(w)
        assert (after.digest, after.revision) == (before.digest, before.revision)
        assert len(await watched(w, kind=WIDGET, fields="spec.size=3")) == 2
        # Also what was drawn last is known.
        assert (await w.create(WIDGET, widget("d"))).spec.serial == 13
        # And whoever lives in a namespace keeps it.
        await w.delete(NAMESPACE, "shop")
        assert w.there(NAMESPACE, "shop")
        await w.delete(WIDGET, "b", "shop")
        assert not w.there(NAMESPACE, "shop")


async def test_a_schema_can_go_only_when_its_objects_have_gone() -> None:
    async with worlds.world() as w:
        await bring(w)
        await w.create(WIDGET, widget("a"))
        await w.create(WIDGET, widget("b"))
        with refused(Reason.REFUSED, "2 widgets.acme.dev"):
            await w.delete(SCHEMA, "acme")
        with refused(Reason.REFUSED, "2 widgets.acme.dev"):
            # Not even together with them: nobody could be told of their deletion.
            await w.run(
                worlds.delete(WIDGET, "a"),
                worlds.delete(WIDGET, "b"),
                worlds.delete(SCHEMA, "acme"),
            )
        await w.delete(WIDGET, "a")
        await w.delete(WIDGET, "b")
        await w.delete(SCHEMA, "acme")
        with refused(Reason.NOT_FOUND, f'no matches for kind "{WIDGET}"'):
            await w.kernel.get(pb.GetRequest(ref=worlds.ref(WIDGET, "a")))
        assert kinds(w).revision == w.head
        # It may come back as something else, and has no past of before.
        text = but("optional int32 size = 2", "optional int64 size = 2")
        await bring(w, text)
        since = w.head
        await w.kernel.commit(
            pb.CommitRequest(
                transactions=[pb.Transaction(operations=[worlds.create(WIDGET, widget("a"))])]
            ),
            "me",
        )
        request = pb.ListRequest(selection=pb.Selection(kind=WIDGET), at=pb.At(revision=since - 1))
        with refused(Reason.GONE, f"served since revision {since}"):
            await w.kernel.list(request)
        told = await watched(w, kind="*", from_revision=1)
        assert [one for one in told if one[0] == WIDGET] == [
            (WIDGET, 1, "a"),
            (WIDGET, 1, "b"),
            (WIDGET, 3, "a"),
            (WIDGET, 3, "b"),
            (WIDGET, 1, "a"),
        ]


async def test_a_watch_of_a_kind_ends_with_it_and_after_its_last_event() -> None:
    async with worlds.world() as w:
        await bring(w)
        await w.create(WIDGET, widget("a"))
        stream = w.kernel.watch(pb.WatchRequest(selections=[pb.Selection(kind=WIDGET)]))
        assert pb.WatchResponse.FromString(await anext(stream)).synced
        await w.delete(WIDGET, "a")
        await w.delete(SCHEMA, "acme")
        response = pb.WatchResponse.FromString(await anext(stream))
        assert [one.type for one in response.events] == [pb.Event.DELETED]
        with refused(Reason.NOT_FOUND, f'no matches for kind "{WIDGET}"'):
            await anext(stream)


def _without(number: int, reserve: bool = False) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        spec = next(one for one in file.message_type if one.name == "WidgetSpec")
        field = next(one for one in spec.field if one.number == number)
        if reserve:
            spec.reserved_range.add(start=number, end=number + 1)
            spec.reserved_name.append(field.name)
        spec.field.remove(field)

    return change


BREAKING = {
    "type": (
        but("int32 size = 2", "int64 size = 2"),
        "WidgetSpec.size: the type of field 2",
    ),
    "cardinality": (
        but("optional int32 serial", "repeated int32 serial").replace(
            'claims: {path: "spec.serial" pool: "serials"}', ""
        ),
        'WidgetSpec.serial: the type of field 4 was "int32", and is "repeated int32"',
    ),
    "json name": (
        but("secret = 7 [", 'secret = 7 [json_name = "geheim", '),
        'WidgetSpec.secret: the JSON name of field 7 was "secret", and is "geheim"',
    ),
    "number": (
        but("notes = 6", "notes = 8"),
        "WidgetSpec.notes: was removed, but its number 6 is not reserved",
    ),
    "sensitive": (
        but("{sensitive: true}", "{}"),
        "WidgetSpec.secret: was sensitive",
    ),
    "merge key": (
        but('{merge_key: "name"}', "{atomic: true}"),
        "WidgetSpec.parts: its option merge_key",
    ),
    "scope": (
        but('plural: "widgets"', 'plural: "widgets" scope: SCOPE_CLUSTER'),
        'acme.v1.Widget: its scope was "SCOPE_NAMESPACED", and is "SCOPE_CLUSTER"',
    ),
    "group": (but('"acme.dev"', '"acme.org"'), 'its group was "acme.dev"'),
    "kind": (
        but("Widget", "Gadget").replace("widget", "gadget"),
        "acme.v1.Widget: the kind was removed",
    ),
    "option": (
        HEAD
        + KIND.partition("option")[0]
        + KIND[KIND.index("  // What every") :]
        + SPEC
        + STATUS
        + KIND.replace("Widget {", "Other {").replace("widget", "other").replace('"wd"', '"od"'),
        "acme.v1.Widget: it was a kind",
    ),
}


@pytest.mark.parametrize("why", BREAKING)
async def test_an_update_that_breaks_what_was_is_refused_by_name(why: str) -> None:
    text, said = BREAKING[why]
    async with worlds.world() as w:
        made = await bring(w)
        made.spec.descriptors = uploads.compiled(text)
        with refused(Reason.INVALID, said) as caught:
            await w.update(SCHEMA, made)
        assert caught.error is not None
        assert all(one.path == "spec.descriptors" for one in caught.error.violations)
        assert "acme/v1/widget.proto: acme.v1.Widget" in caught.error.message
        # Nothing of it is served.
        assert (await w.create(WIDGET, widget())).spec.size == 3


async def test_all_that_an_update_breaks_is_said_at_once() -> None:
    text = but("int32 size = 2", "int64 size = 2").replace("{sensitive: true}", "{}")
    text = text.replace("map<string, string> notes = 6", "")
    async with worlds.world() as w:
        made = await bring(w)
        made.spec.descriptors = uploads.compiled(text.replace(";\n  ;", ";"))
        with refused(Reason.INVALID, "") as caught:
            await w.update(SCHEMA, made)
        assert caught.error is not None
        fields = [str(one).split(": ")[2].rpartition(".")[2] for one in caught.error.violations]
        assert fields == ["notes", "notes", "secret", "size"] or sorted(fields) == [
            "notes",
            "notes",
            "secret",
            "size",
        ]


async def test_what_an_update_may_do() -> None:
    async with worlds.world() as w:
        made = await bring(w)
        await w.create(WIDGET, widget(notes={"a": "b"}))
        text = but(
            "optional string secret = 7", "optional string motto = 8;\n  optional string secret = 7"
        )
        text = text.replace("min: 1", "min: 2").replace('short_names: "wd"', 'short_names: "wdg"')
        reserved = uploads.changed(_without(6, reserve=True), text)
        made.spec.descriptors = reserved
        updated = await w.update(SCHEMA, made)
        assert updated.metadata.generation == 2
        assert updated.status.kinds[0].since == made.status.kinds[0].since
        # What was stored under the old one stays, also what is unknown to the new.
        stored = w.get(WIDGET, "w")
        assert stored.spec.size == 3
        stored.spec.motto = "on"
        again = await w.update(WIDGET, stored)
        assert again.spec.motto == "on"
        with refused(Reason.INVALID, "spec.size"):
            await w.create(WIDGET, widget("x", size=1))


async def test_claims_change_only_while_there_are_none() -> None:
    text = but('claims: {path: "spec.serial" pool: "serials"}', "")
    async with worlds.world() as w:
        made = await bring(w)
        await w.create(WIDGET, widget())
        made.spec.descriptors = uploads.compiled(text)
        with refused(Reason.INVALID, "its claims can't change while there are widgets"):
            await w.update(SCHEMA, made)
        await w.delete(WIDGET, "w")
        await w.update(SCHEMA, made)


UNSOUND = {
    "reserved package": (
        but("package acme.v1", "package google.acme.v1"),
        "is reserved",
    ),
    "version": (
        but("package acme.v1", "package acme.one"),
        "does not end in a version",
    ),
    "group": (but('"acme.dev"', '"apps"'), "must be a domain"),
    "reserved group": (
        but('"acme.dev"', '"kcore.dev"'),
        'the group "kcore.dev" is reserved',
    ),
    "syntax": (uploads.changed(lambda file: file.ClearField("syntax")), "only proto3"),
    "presence": (
        but("optional int32 limit", "int32 limit"),
        "WidgetSpec.limit: must be `optional`",
    ),
    "metadata": (
        but("ObjectMeta metadata = 1", "ObjectMeta metadata = 4"),
        "acme.v1.Widget: a kind has kcore.meta.v1.ObjectMeta metadata = 1",
    ),
    "other metadata": (
        but("kcore.meta.v1.ObjectMeta metadata = 1", "Part metadata = 1"),
        "acme.v1.Widget: a kind has kcore.meta.v1.ObjectMeta metadata = 1",
    ),
    "shadows a built-in plural": (
        but('plural: "widgets"', 'plural: "secrets"'),
        '"secrets" is already what kcore.core.v1.Secret is called',
    ),
    "shadows a short name": (
        but('"wd"', '"po"'),
        '"po" is already what kcore.core.v1.Pod is called',
    ),
    "cel": (
        but("self.spec.size <= self.spec.limit", "self.spec.sise <= 1 &&\\n self.nope"),
        "1:10: undefined field 'sise'",
    ),
    "cel type": (
        but("self.spec.size <= self.spec.limit", "self.spec.size"),
        "it is INT, and a condition is true or false",
    ),
    "default": (
        but('default: "3"', "default: \"'three'\""),
        "WidgetSpec.size: default",
    ),
    "column": (
        but('value: "self.spec.color"', 'value: "self.color"'),
        "undefined field 'color'",
    ),
    "path": (
        but('immutable: {path: "spec.serial"}', 'immutable: {path: "spec.cereal"}'),
        "spec.cereal: WidgetSpec has no field 'cereal'",
    ),
    "format": (but("min: 1", 'format: "nope"'), "no format 'nope'"),
    "list": (
        PROTO_TEXT + "message WidgetList { optional string a = 1; }",
        "acme.v1.WidgetList: it is the name of",
    ),
    "parent": (
        but('plural: "widgets"', 'plural: "widgets" parent: "acme.v1.Nope"'),
        "its parent acme.v1.Nope is not a kind",
    ),
    "no kind": (HEAD + SPEC, "no message in it has the option"),
    "json names": (
        uploads.changed(
            lambda file: file.message_type[1].field[1].__setattr__("json_name", "color")
        ),
        'WidgetSpec.size: its JSON name "color" is also that of color',
    ),
    "import": (
        uploads.changed(lambda file: file.dependency.append("acme/v1/nowhere.proto")),
        "acme/v1/widget.proto: imports acme/v1/nowhere.proto, which is not there",
    ),
    "unknown type": (
        uploads.changed(
            lambda file: file.message_type[1].field[4].__setattr__("type_name", ".acme.v1.No")
        ),
        "acme/v1/widget.proto: ",
    ),
    "group field": (
        uploads.changed(lambda file: file.message_type[1].field[4].__setattr__("type", 10)),
        "groups and required fields are not understood",
    ),
    "many metadata": (
        but("kcore.meta.v1.ObjectMeta metadata", "repeated kcore.meta.v1.ObjectMeta metadata"),
        "acme.v1.Widget: a kind has kcore.meta.v1.ObjectMeta metadata = 1",
    ),
    "status of text": (
        but("WidgetStatus status", "optional string status"),
        "acme.v1.Widget: status is one message, with the number 3",
    ),
    "no map": (
        uploads.changed(
            lambda file: file.message_type[1].nested_type[0].field[1].__setattr__("number", 3)
        ),
        "acme.v1.WidgetSpec.NotesEntry: is no entry of a map",
    ),
    "twice imported": (
        uploads.changed(lambda file: file.dependency.append("kcore/meta/v1/meta.proto")),
        "acme/v1/widget.proto: imports a file twice",
    ),
    "no text": (
        uploads.compiled().replace(b"Its color.", b"Its \xffolor."),
        "a name or a comment in it is not UTF-8",
    ),
    "not a set": (b"\xff\xff\xff", "not a google.protobuf.FileDescriptorSet"),
}


@pytest.mark.parametrize("why", UNSOUND)
async def test_what_cannot_be_served_is_refused_by_name(why: str) -> None:
    descriptors, said = UNSOUND[why]
    async with worlds.world() as w:
        digest = kinds(w).digest
        with refused(Reason.INVALID, said):
            await bring(w, descriptors)
        assert kinds(w).digest == digest and not w.there(SCHEMA, "acme")


async def test_all_faults_are_said_at_once() -> None:
    text = but('immutable: {path: "spec.serial"}', 'immutable: {path: "spec.cereal"}')
    text = text.replace("min: 1", 'format: "nope"').replace("<= self.spec.limit", "<= self.limit")
    async with worlds.world() as w:
        with refused(Reason.INVALID, "") as caught:
            await bring(w, text)
        assert caught.error is not None
        words = " ".join(map(str, caught.error.violations))
        assert all(one in words for one in ("cereal", "'nope'", "undefined field 'limit'"))
        assert all("acme/v1/widget.proto: " in str(one) for one in caught.error.violations)


async def test_two_schemas_do_not_meet() -> None:
    async with worlds.world() as w:
        await bring(w)
        with refused(Reason.INVALID, "another file of this name is in Schema acme"):
            await bring(w, PROTO_TEXT + "message More { optional string a = 1; }", "second")
        other = uploads.compiled(PROTO_TEXT, "acme/v1/other.proto")
        with refused(
            Reason.INVALID, "acme.v1.WidgetSpec: is already in acme/v1/widget.proto of acme"
        ):
            await bring(w, other, "second")
        gadget = but("package acme.v1", "package acme.v2")
        with refused(Reason.INVALID, '"widgets" is already what acme.v1.Widget is called'):
            await bring(w, uploads.compiled(gadget, "acme/v2/widget.proto"), "second")
        # Under other names, in a group of its own, it may.
        friend = but("acme.v1", "friend.v1").replace("acme.dev", "friend.dev")
        await bring(w, uploads.compiled(friend, "friend/v1/widget.proto"), "friend")
        await w.delete(SCHEMA, "acme")
        assert w.kernel.schema.kinds.keys() >= {"friend.v1.Widget"}


async def test_what_is_too_much_is_refused() -> None:
    many = "".join(f"message M{n} {{ optional string a = 1; }}\n" for n in range(upload.MESSAGES))
    rules = "".join(
        f'option (kcore.meta.v1.rules) = {{expression: "{n} < 1000"}};'
        for n in range(upload.EXPRESSIONS)
    )
    deep = "".join(f"message D{n} {{ D{n + 1} d = 1; }}\n" for n in range(1500))
    deep += "message D1500 { optional string a = 1; }\n"
    async with worlds.world() as w:
        for text, said in (
            (PROTO_TEXT + many, "messages: at most"),
            (
                but("message WidgetSpec {", f"message WidgetSpec {{ {rules}"),
                "at most 256",
            ),
            (
                but("map<string, string> notes = 6;", "D0 d = 6;") + deep,
                "too deeply",
            ),
            (uploads.compiled() + b"\x0a\x80\x80\x40" + bytes(1 << 20), "bytes: at most"),
        ):
            with refused(Reason.INVALID, said):
                await bring(w, text)


async def test_a_message_may_hold_itself() -> None:
    text = but(
        "message Part {",
        'message Part { repeated Part parts = 3 [(kcore.meta.v1.field) = {merge_key: "name"}];',
    )
    async with worlds.world() as w:
        await bring(w, text)
        made = uploads.message_class(text)(
            metadata={"name": "w", "namespace": "default"}, spec={"color": "red"}
        )
        part = made.spec.parts.add(name="a")
        for _ in range(40):
            part = part.parts.add(name="a")
        await w.apply(WIDGET, made)
        for _ in range(60):
            part = part.parts.add(name="a")
        # Deeper than anybody could read it again.
        with pytest.raises(ApiError) as caught:
            await w.apply(WIDGET, made)
        assert caught.value.reason is Reason.INVALID


async def test_a_set_with_its_imports_is_as_good() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(uploads.compiled())
    whole = descriptor_pb2.FileDescriptorSet.FromString(worlds.kinds().descriptors)
    files.file.extend(one for one in whole.file if "meta" in one.name or "google" in one.name)
    async with worlds.world() as w:
        await bring(w, files.SerializeToString())
        assert (await w.create(WIDGET, widget())).spec.size == 3
        names = [file.name for file in kinds(w).descriptors.file]
        assert len(names) == len(set(names))


async def test_a_kind_may_hold_what_ours_are_made_of() -> None:
    text = but(
        'import "kcore/meta/v1/options.proto";',
        'import "kcore/meta/v1/options.proto";\nimport "kcore/core/v1/pod_spec.proto";\n'
        'import "google/protobuf/duration.proto";',
    ).replace(
        "optional int32 serial = 4;",
        "optional int32 serial = 4; kcore.core.v1.PodTemplateSpec template = 9;"
        "google.protobuf.Duration every = 10;",
    )
    async with worlds.world() as w:
        await bring(w, text)
        kind = w.kernel.schema.kind(WIDGET)
        made = kind.message(metadata={"name": "w", "namespace": "default"}, spec={"color": "red"})
        made.spec.template.spec.containers.add(name="C!")
        with refused(Reason.INVALID, "spec.template.spec.containers[0].name"):
            await w.create(WIDGET, made)


async def test_a_claim_may_be_only_given() -> None:
    text = but('pool: "serials"', 'pool: "serials" given_only: true')
    async with worlds.world() as w:
        await bring(w, text)
        assert not (await w.create(WIDGET, widget("a"))).spec.HasField("serial")
        await w.create(WIDGET, widget("b", serial=20))
        with refused(Reason.INVALID, "spec.serial"):
            await w.create(WIDGET, widget("c", serial=20))
        with refused(Reason.INVALID, 'is not in the pool "serials"'):
            await w.create(WIDGET, widget("c", serial=100))
        await w.delete(WIDGET, "b")
        assert (await w.create(WIDGET, widget("c", serial=20))).spec.serial == 20


async def test_a_dry_run_draws_nothing() -> None:
    async with worlds.world() as w:
        await bring(w)
        for _ in range(2):
            assert (await w.create(WIDGET, widget(), dry_run=True)).spec.serial == 10
        assert (await w.create(WIDGET, widget())).spec.serial == 10


async def test_an_uploaded_kind_lasts_as_long_as_it_says() -> None:
    text = but('plural: "widgets"', 'plural: "widgets" history: {ttl_seconds: 60}')
    store = MemoryStore(Chance(7))
    clock = TickingClock()
    async with worlds.world(store, clock=clock) as w:
        await bring(w, text)
        await w.create(WIDGET, widget("a"))
    # Also of what was there before a restart.
    async with worlds.world(store, seed=2, clock=clock) as w:
        await clock.move(90)
        assert not w.there(WIDGET, "a")
        await w.delete(SCHEMA, "acme")


async def test_nothing_is_kept_of_kinds_that_are_no_more() -> None:
    async with worlds.world() as w:
        made = await bring(w)
        await w.create(WIDGET, widget())
        old = weakref.ref(w.kernel.schema.kind(WIDGET).message)
        for number in range(12):
            text = but('"wd"', f'"wd{number}"')
            made.spec.descriptors = uploads.compiled(text)
            made = await w.update(SCHEMA, made)
            await w.apply(WIDGET, widget(size=number + 1), manager=f"m{number}", force=True)
        gc.collect()
        assert old() is None


async def test_who_follows_the_log_learns_kinds_in_order() -> None:
    store = MemoryStore(Chance(7))
    async with worlds.world(store) as w:
        follower = Replica(worlds.kinds(), store)
        await follower.replay(await store.open(), lambda record, schema: None)
        seen = follower.head
        await bring(w)
        await w.create(WIDGET, widget("a"))
        await w.delete(WIDGET, "a")
        await w.delete(SCHEMA, "acme")
        await bring(w, but("optional int32 size = 2", "optional int64 size = 2"))
        await w.create(WIDGET, widget("b"))
        follower.follow([record async for record in store.since(seen)])
        assert follower.head == w.head
        assert follower.schema.digest == w.kernel.schema.digest
        assert follower.schema.revision == w.kernel.schema.revision
        assert follower.served_since(WIDGET) == w.kernel.schema.kind(WIDGET).since > 0
        assert [stored.key.name for stored in follower.objects(WIDGET, "")] == ["b"]
