"""The view is what the log says, however it came to know of it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.reconcile import name, view
from kcore.reconcile.view import Bare, Batch, Name, View

Pod = pod_pb2.Pod
ConfigMap = config_map_pb2.ConfigMap
POD = Pod.DESCRIPTOR.full_name
CONFIG_MAP = ConfigMap.DESCRIPTOR.full_name
KINDS = (view.Kind(POD, "v1", "Pod", True), view.Kind(CONFIG_MAP, "v1", "ConfigMap", True))


def by_node(pod: Any) -> list[str]:
    return [pod.spec.node_name] if pod.spec.node_name else []


def empty() -> View:
    made = View([Pod], {Pod: {"node": by_node}})
    made.apply(Batch(1, fresh=True, synced=True, kinds=KINDS))
    return made


def event(obj: Any, revision: int, type_: Any = pb.Event.ADDED) -> tuple[str, pb.Event]:
    obj.metadata.resource_version = str(revision)
    return obj.DESCRIPTOR.full_name, pb.Event(
        type=type_, object=obj.SerializeToString(), revision=revision
    )


def pod(
    named: str, space: str = "a", node: str = "", owner: str = "", uid: str = "", app: str = ""
) -> Any:
    made = Pod()
    made.metadata.name, made.metadata.namespace = named, space
    made.metadata.uid = uid or f"uid-{space}-{named}"
    if app:
        made.metadata.labels["app"] = app
    if owner:
        made.metadata.owner_references.add(uid=owner, name="o", kind="X", api_version="v1")
    if node:
        made.spec.node_name = node
    return made


def test_objects_are_found_by_name_namespace_owner_label_and_index() -> None:
    here = empty()
    here.apply(
        Batch(
            9,
            [
                event(pod("p2", node="n1", owner="o1"), 2),
                event(pod("p1", node="n1", app="web"), 3),
                event(pod("p1", space="b", node="n2", owner="o1", app="web"), 4),
            ],
        )
    )
    assert here.revision == 9
    found = here.get(Pod, "a", "p1")
    assert found is not None and found.spec.node_name == "n1"
    assert here.get(Pod, "c", "p1") is None

    def names(pods: Any) -> list[tuple[str, str]]:
        return [(each.metadata.namespace, each.metadata.name) for each in pods]

    assert names(here.list(Pod)) == [("a", "p1"), ("a", "p2"), ("b", "p1")]
    assert names(here.list(Pod, "a")) == [("a", "p1"), ("a", "p2")]
    assert names(here.list(Pod, owner="o1")) == [("a", "p2"), ("b", "p1")]
    assert names(here.list(Pod, "b", owner="o1")) == [("b", "p1")]
    assert names(here.list(Pod, labels={"app": "web"})) == [("a", "p1"), ("b", "p1")]
    assert names(here.list(Pod, index=("node", "n1"))) == [("a", "p1"), ("a", "p2")]
    assert names(here.list(Pod, index=("node", "n1"), owner="o1")) == [("a", "p2")]
    assert here.holder("uid-a-p1") == Name(POD, "a", "p1")
    assert [each.name for each in here.within("a")] == ["p1", "p2"]


def test_of_other_kinds_only_the_metadata_is_kept() -> None:
    here = empty()
    made = ConfigMap(data={"k": "x" * 300})
    made.metadata.name, made.metadata.namespace, made.metadata.uid = "c", "a", "u"
    made.metadata.managed_fields.add(manager="somebody")
    made.metadata.finalizers.append("f")
    here.apply(Batch(2, [event(made, 2)]))
    found = here.object(Name(CONFIG_MAP, "a", "c"))
    assert isinstance(found, Bare)
    assert found.metadata.finalizers == ["f"]
    assert not found.metadata.managed_fields


def test_what_cannot_be_read_hides_nothing_else() -> None:
    here = empty()
    broken = (POD, pb.Event(type=pb.Event.ADDED, object=b"\xff\xff\xff", revision=2))
    changes = here.apply(Batch(3, [broken, event(pod("p"), 3)]))
    assert [change.name.name for change in changes] == ["p"]


def test_a_fresh_state_shows_what_has_gone_meanwhile() -> None:
    here = empty()
    here.apply(Batch(3, [event(pod("stays"), 2), event(pod("goes", node="n1"), 3)]))
    assert here.apply(Batch(0, [event(pod("stays"), 2)], fresh=True)) == []
    # Until it is complete the old state stands.
    assert here.revision == 3 and len(here.list(Pod)) == 2
    changes = here.apply(Batch(7, [event(pod("new"), 6)], synced=True))
    assert [(c.name.name, c.old is None, c.new is None) for c in changes] == [
        ("goes", False, True),
        ("new", True, False),
    ]
    assert here.revision == 7
    assert here.list(Pod, index=("node", "n1")) == []


def test_a_namesake_that_came_at_once_is_another() -> None:
    here = empty()
    here.apply(Batch(2, [event(pod("p", uid="first"), 2)]))
    changes = here.apply(
        Batch(
            4,
            [
                event(pod("p", uid="first"), 3, pb.Event.DELETED),
                event(pod("p", uid="second"), 4),
            ],
        )
    )
    assert len(changes) == 2
    assert here.holder("first") is None
    assert here.holder("second") == Name(POD, "a", "p")


def test_facts_are_of_one_version() -> None:
    here = empty()
    asked = []

    def fact(obj: Any) -> str:
        asked.append(obj.metadata.resource_version)
        return str(obj.spec.node_name)

    here.apply(Batch(2, [event(pod("p", node="n1"), 2)]))
    for _ in range(2):
        assert here.fact(fact, here.list(Pod)[0]) == "n1"
    here.apply(Batch(3, [event(pod("p", node="n2"), 3, pb.Event.MODIFIED)]))
    assert here.fact(fact, here.list(Pod)[0]) == "n2"
    assert asked == ["2", "3"]


changes = st.lists(
    st.tuples(
        st.sampled_from("pqr"),
        st.sampled_from("ab"),
        st.sampled_from(["", "n1", "n2"]),
        st.sampled_from(["", "o1", "o2"]),
        st.booleans(),
        st.integers(0, 9),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(changes)
def test_indexes_say_what_looking_at_everything_says(story: list[Any]) -> None:
    here = empty()
    truth: dict[tuple[str, str], Any] = {}
    revision = 1
    for named, space, node, owner, gone, fresh in story:
        revision += 1
        each = pod(named, space, node, owner)
        if gone:
            if (space, named) in truth:
                last = truth.pop((space, named))
                here.apply(Batch(revision, [event(last, revision, pb.Event.DELETED)]))
        else:
            body = event(each, revision)
            truth[space, named] = each
            if fresh == 0:
                # The watch was lost: all of it again.
                state = [
                    (POD, pb.Event(type=1, object=o.SerializeToString())) for o in truth.values()
                ]
                here.apply(Batch(revision, state, fresh=True, synced=True, kinds=KINDS))
            else:
                here.apply(Batch(revision, [body]))
    everything = [truth[key] for key in sorted(truth)]
    assert list(here.list(Pod)) == everything
    for value in ("n1", "n2"):
        assert list(here.list(Pod, index=("node", value))) == [
            each for each in everything if each.spec.node_name == value
        ]
    for value in ("o1", "o2"):
        expected = [
            each
            for each in everything
            if [o.uid for o in each.metadata.owner_references] == [value]
        ]
        assert list(here.list(Pod, owner=value)) == expected
        assert [each.name for each in here.owned(value)] == [e.metadata.name for e in expected]
    for space in ("a", "b"):
        assert list(here.list(Pod, space)) == [
            each for each in everything if each.metadata.namespace == space
        ]


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_metadata_is_found_wherever_it_stands(before: bytes, after: bytes) -> None:
    made = ConfigMap(data={"b": before.hex(), "a": after.hex()})
    made.metadata.name = "c"
    body = made.SerializeToString()
    assert view._bare(body).metadata == meta_pb2.ObjectMeta(name="c")
    # An encoder may write it last.
    meta = ConfigMap(metadata=made.metadata).SerializeToString()
    made.ClearField("metadata")
    assert view._bare(made.SerializeToString() + meta).metadata == meta_pb2.ObjectMeta(name="c")


def test_derived_names_are_like_generated_ones() -> None:
    first = name.child("web-" + "x" * 80 + "-", "uid", 7, 0)
    assert len(first) == 63
    assert first == name.child("web-" + "x" * 80 + "-", "uid", 7, 0)
    others = {name.child("web-", "uid", revision, n) for revision in range(10) for n in range(100)}
    assert len(others) == 1000
    assert set("".join(each.removeprefix("web-") for each in others)) <= set(
        "bcdfghjklmnpqrstvwxz2456789"
    )
    assert name.letters("ab", "c") != name.letters("a", "bc")
