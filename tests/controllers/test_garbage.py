"""Garbage: what goes with its owners, and what does not."""

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, event_pb2, node_pb2, pod_pb2

from kcore.controllers import garbage, namespace, orphan
from kcore.reconcile import owner
from tests.controllers.world import World, name_of

ConfigMap = config_map_pb2.ConfigMap
Node = node_pb2.Node
Pod = pod_pb2.Pod


def world() -> World:
    return World((garbage.CONTROLLER,))


def thing(name: str, *owners: ConfigMap, space: str = "default", block: bool = True) -> ConfigMap:
    """Something that may own and be owned."""
    made = ConfigMap()
    made.metadata.name = name
    made.metadata.namespace = space
    made.metadata.uid = f"uid-{name}"
    for each in owners:
        found = owner.reference(each)
        found.controller = False
        found.block_owner_deletion = block
        made.metadata.owner_references.append(found)
    return made


def names(here: World) -> list[str]:
    return [name.name for name in sorted(here.objects)]


def test_what_nobody_owns_any_more_goes_and_so_on() -> None:
    here = world()
    a = thing("a")
    b = thing("b", a)
    here.add(a, b, thing("c", b), thing("free"))
    here.settle()
    assert names(here) == ["a", "b", "c", "free"]
    here.delete(a)
    here.settle()
    assert names(here) == ["free"]


def test_an_owner_that_lives_keeps_it_and_the_other_is_forgotten() -> None:
    here = world()
    a, b = thing("a"), thing("b")
    here.add(a, b, thing("c", a, b))
    here.delete(a)
    here.settle()
    assert [
        each.name for each in here.get(ConfigMap, "default", "c").metadata.owner_references
    ] == ["b"]


def test_a_namesake_is_somebody_else() -> None:
    here = world()
    a = thing("a")
    here.add(a, thing("b", a))
    namesake = thing("a")
    namesake.metadata.uid = "another"
    here.delete(a)
    here.add(namesake)
    here.settle()
    assert names(here) == ["a"]


def test_an_owner_in_another_namespace_is_none() -> None:
    here = world()
    far = thing("far", space="elsewhere")
    here.add(far, thing("near", far))
    here.settle()
    assert names(here) == ["far"]


def test_an_owner_that_comes_before_the_deletion_does_saves_it() -> None:
    here = world()
    a = thing("a")
    here.add(thing("b", a))
    wanted = here.ask(0, name_of(thing("b")))
    assert len(wanted.transactions) == 1
    here.add(a)
    here.carry_out(wanted, 0, name_of(thing("b")))
    here.settle()
    assert names(here) == ["a", "b"]


def test_owners_of_kinds_that_are_not_served_keep() -> None:
    here = world()
    b = thing("b")
    b.metadata.owner_references.add(
        api_version="example.com/v1", kind="Widget", name="w", uid="uid-w"
    )
    here.add(b)
    here.settle()
    assert names(here) == ["b"]


def test_what_lives_in_no_namespace_is_not_owned_from_within_one() -> None:
    here = world()
    node = Node()
    node.metadata.name = "n1"
    node.metadata.owner_references.append(owner.reference(thing("a")))
    here.add(node)
    here.settle()
    assert names(here) == ["n1"]


def test_in_the_foreground_children_go_first_and_those_that_block_hold_it() -> None:
    here = world()
    a = thing("a")
    held = thing("held", a)
    held.metadata.finalizers.append("example.com/wait")
    loose = thing("loose", a, block=False)
    loose.metadata.finalizers.append("example.com/wait")
    here.add(a, held, loose)
    here.delete(a, pb.PROPAGATION_FOREGROUND)
    here.settle()
    assert names(here) == ["a", "held", "loose"]
    freed = here.get(ConfigMap, "default", "held")
    del freed.metadata.finalizers[:]
    here.change(freed)
    here.settle()
    assert names(here) == ["loose"]


def test_orphans_stay_and_forget() -> None:
    here = world()
    a = thing("a")
    here.add(a, thing("b", a))
    here.delete(a, pb.PROPAGATION_ORPHAN)
    here.settle()
    assert names(here) == ["b"]
    assert not here.get(ConfigMap, "default", "b").metadata.owner_references


def test_circles_do_not_hang() -> None:
    for propagation in (pb.PROPAGATION_BACKGROUND, pb.PROPAGATION_FOREGROUND):
        here = world()
        a, b = thing("a"), thing("b")
        a.metadata.owner_references.append(owner.reference(b))
        b.metadata.owner_references.append(owner.reference(a))
        here.add(a)
        here.add(b)
        here.objects[name_of(a)].metadata.owner_references[0].uid = "uid-b"
        here.settle()
        for each in list(here.all(ConfigMap)):
            if name_of(each) in here.objects:
                here.delete(each, propagation)
        here.settle()
        assert names(here) == []


def test_a_circle_deleted_at_one_point_goes() -> None:
    here = world()
    a, c = thing("a"), thing("c")
    b = thing("b", a)
    c = thing("c", b)
    a = thing("a", c)
    # A circle can't be made at once, as uids come with creation: a learns of c later.
    here.add(thing("a"), b, c)
    live = here.get(ConfigMap, "default", "a")
    live.metadata.owner_references.extend(a.metadata.owner_references)
    here.change(live)
    here.settle()
    assert names(here) == ["a", "b", "c"]
    here.delete(live, pb.PROPAGATION_FOREGROUND)
    here.settle()
    assert names(here) == []


def test_events_and_all_else_are_seen_by_metadata_alone() -> None:
    here = world()
    a = thing("a")
    event = event_pb2.Event(reason="Odd", message="x" * 100)
    event.metadata.name, event.metadata.namespace = "e", "default"
    event.metadata.owner_references.append(owner.reference(a))
    here.add(a, event)
    assert type(here.view.object(name_of(event))).__name__ == "Bare"
    here.delete(a)
    here.settle()
    assert names(here) == []


# Namespaces.


def rooms() -> World:
    here = World((namespace.controller("-----CA-----"), garbage.CONTROLLER))
    here.add(space("shop"))
    here.settle()
    return here


def space(name: str) -> namespace.Namespace:
    made = namespace.Namespace()
    made.metadata.name = name
    made.status.phase = "Active"
    return made


def test_every_namespace_has_an_account_and_a_certificate_and_gets_them_back() -> None:
    here = rooms()
    assert names(here) == ["kube-root-ca.crt", "shop", "default"]
    found = here.get(ConfigMap, "shop", "kube-root-ca.crt")
    assert dict(found.data) == {"ca.crt": "-----CA-----"}
    found.data["ca.crt"] = "forged"
    here.change(found)
    here.delete(here.all(namespace.ServiceAccount)[0])
    here.settle()
    assert here.get(ConfigMap, "shop", "kube-root-ca.crt").data["ca.crt"] == "-----CA-----"
    assert len(here.all(namespace.ServiceAccount)) == 1


def test_a_namespace_goes_when_what_is_in_it_has_gone() -> None:
    here = rooms()
    held = thing("held", space="shop")
    held.metadata.finalizers.append("example.com/wait")
    here.add(held, thing("plain", space="shop"), thing("elsewhere", space="default"))
    here.delete(here.get(namespace.Namespace, "", "shop"))
    here.settle()
    live = here.get(namespace.Namespace, "", "shop")
    assert live.status.phase == "Terminating"
    said = {each.type: each.message for each in live.status.conditions}
    assert said["NamespaceContentRemaining"] == (
        "Some resources are remaining: ConfigMap in 1 objects"
    )
    assert "example.com/wait in 1 objects" in said["NamespaceFinalizersRemaining"]
    assert names(here) == ["elsewhere", "held", "shop"]
    freed = here.get(ConfigMap, "shop", "held")
    del freed.metadata.finalizers[:]
    here.change(freed)
    here.settle()
    assert names(here) == ["elsewhere"]


def test_first_namespaces() -> None:
    here = World()
    for transaction in namespace.first():
        here.commit(transaction)
    assert names(here) == ["default", "kube-node-lease", "kube-public", "kube-system"]


# Pods of nodes that are gone.


def bound(name: str, node: str) -> Pod:
    made = Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.metadata.finalizers.append("example.com/see")
    made.spec.node_name = node
    return made


def test_pods_of_a_deleted_node_go_at_once() -> None:
    here = World((orphan.CONTROLLER,))
    node = Node()
    node.metadata.name = "n1"
    here.add(node, bound("a", "n1"), bound("free", ""))
    here.now += 60
    here.settle()
    assert not here.get(Pod, "default", "a").metadata.HasField("deletion_timestamp")
    here.delete(node)
    here.settle()
    gone = here.get(Pod, "default", "a").metadata
    assert gone.HasField("deletion_timestamp")
    assert gone.deletion_grace_period_seconds == 0
    assert not here.get(Pod, "default", "free").metadata.HasField("deletion_timestamp")


def test_a_node_that_is_only_coming_is_waited_for() -> None:
    here = World((orphan.CONTROLLER,))
    here.add(bound("a", "n1"))
    here.settle()
    here.now += 39
    here.settle()
    assert not here.get(Pod, "default", "a").metadata.HasField("deletion_timestamp")
    here.now += 2
    here.settle()
    assert here.get(Pod, "default", "a").metadata.HasField("deletion_timestamp")
