"""What the protos say of kinds and fields holds: every expression compiles, means what it should,
and every path names something.

Objects are written in protobuf's text format. A small evaluator stands in for the kernel: rules
and defaults of a message are looked at wherever the message is embedded.
"""

# Braces are the text format's own: % is easier to read here.
# ruff: noqa: UP031

import datetime
import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kcore_api
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from kcore_api.kcore.apps.v1 import deployment_pb2 as deployment
from kcore_api.kcore.apps.v1 import replica_set_pb2 as replica_set
from kcore_api.kcore.batch.v1 import job_pb2 as job
from kcore_api.kcore.coordination.v1 import lease_pb2 as lease
from kcore_api.kcore.core.v1 import affinity_pb2 as affinity
from kcore_api.kcore.core.v1 import config_map_pb2 as config_map
from kcore_api.kcore.core.v1 import container_pb2 as container
from kcore_api.kcore.core.v1 import event_pb2 as event
from kcore_api.kcore.core.v1 import namespace_pb2 as namespace
from kcore_api.kcore.core.v1 import node_pb2 as node
from kcore_api.kcore.core.v1 import pod_pb2 as pod
from kcore_api.kcore.core.v1 import pod_spec_pb2 as pod_spec
from kcore_api.kcore.core.v1 import pool_pb2 as pool
from kcore_api.kcore.core.v1 import secret_pb2 as secret
from kcore_api.kcore.core.v1 import service_account_pb2 as service_account
from kcore_api.kcore.core.v1 import service_pb2 as service
from kcore_api.kcore.core.v1 import volume_pb2 as volume
from kcore_api.kcore.meta.v1 import meta_pb2 as meta
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.wire import cel
from tests.proto import bad_workloads

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SECONDS = int(NOW.timestamp())
FORMATS = {
    "label", "annotation", "dns-subdomain", "path-segment", "dns-label", "dns-1035", "port-name",
    "qualified-name", "label-value", "ip", "cidr", "env-name", "absolute-path", "relative-path",
    "config-key", "quantity", "quantity-nonnegative", "image", "sysctl", "percent-or-count",
    "port", "port-or-name",
}  # fmt: skip
_OPTIONS = "kcore/meta/v1/options.proto"
STRING, INT, BOOL = "STRING", "INT", "BOOL"


def _messages() -> dict[str, Descriptor]:
    files = descriptor_pb2.FileDescriptorSet.FromString(kcore_api.KINDS.read_bytes())
    found = {}
    for file in files.file:
        if file.name.startswith("kcore/"):
            module = importlib.import_module(f"kcore_api.{file.name[:-6].replace('/', '.')}_pb2")
            for message in module.DESCRIPTOR.message_types_by_name.values():
                found[message.full_name] = message
    return found


MESSAGES = _messages()


def kind_of(message: Descriptor) -> options_pb2.Kind | None:
    options: Any = message.GetOptions()
    return options.Extensions[options_pb2.kind] if options.HasExtension(options_pb2.kind) else None


def rules_of(message: Descriptor) -> list[options_pb2.Rule]:
    options: Any = message.GetOptions()
    return list(options.Extensions[options_pb2.rules])


def field_of(field: FieldDescriptor) -> options_pb2.Field:
    options: Any = field.GetOptions()
    said: options_pb2.Field = options.Extensions[options_pb2.field]
    return said


KINDS = {name: message for name, message in MESSAGES.items() if kind_of(message) is not None}


@functools.cache
def compiled(message: str, expression: str, timed: bool = False) -> cel.Expression:
    """As the kernel does it; `timed`: as the client does it with columns."""
    return cel.Engine(descriptor_pool.Default(), timed=timed).compile(expression, message)


def value(message: Message, expression: str, old: Message | None = None, now: Any = None) -> Any:
    one = compiled(message.DESCRIPTOR.full_name, expression, now is not None)
    found = one.evaluate(one.bind(message, old, now))
    assert not isinstance(found, cel.Failed), (expression, found)
    return found


@dataclass(frozen=True)
class Said:
    """An expression in the protos."""

    message: str
    where: str
    text: str
    type: str = ""
    timed: bool = False


def _said() -> Iterator[Said]:
    for name, message in MESSAGES.items():
        for rule in rules_of(message):
            yield Said(name, f"rule {rule.path}: {rule.message}", rule.expression, BOOL)
        for field in message.fields:
            if field_of(field).default:
                yield Said(name, f"default of {field.name}", field_of(field).default)
        kind = kind_of(message)
        if kind is None:
            continue
        for column in kind.columns:
            wanted = INT if column.format == "age" else STRING
            yield Said(name, f"column {column.name}", column.value, wanted, timed=True)
        for rule in kind.rules:
            yield Said(name, f"rule {rule.path}: {rule.message}", rule.expression, BOOL)
        for frozen in kind.immutable:
            if frozen.when:
                yield Said(name, f"{frozen.path} frozen", frozen.when, BOOL)
        for claim in kind.claims:
            if claim.when:
                yield Said(name, f"{claim.path} claimed", claim.when, BOOL)
        if kind.HasField("graceful"):
            yield Said(name, "grace", kind.graceful.seconds, INT)
            yield Said(name, "at once", kind.graceful.immediate, BOOL)


SAID = list(_said())


@pytest.mark.parametrize("said", SAID, ids=lambda one: f"{one.message}: {one.where}")
def test_every_expression_compiles_to_its_type(said: Said) -> None:
    made = compiled(said.message, said.text, said.timed)
    assert made.text == said.text, "protos are written in proto names"
    if said.type:
        assert made.type == said.type


# Paths, names and words.


def at(message: Descriptor, path: str) -> FieldDescriptor | None:
    """The field that a JSON path leads to, through lists and messages shown in place."""
    name, _, rest = path.partition(".")
    for field in message.fields:
        if field_of(field).inline:
            found = at(field.message_type, path)
            if found is not None:
                return found
        elif field.json_name == name:
            if not rest:
                return field
            return at(field.message_type, rest) if field.message_type is not None else None
    return None


@pytest.mark.parametrize("name", KINDS)
def test_every_path_of_a_kind_leads_somewhere(name: str) -> None:
    message = KINDS[name]
    kind = kind_of(message)
    assert kind is not None
    selectable = [path.rpartition("=")[2] for path in kind.selectable]
    paths = [*selectable, *(one.path for one in kind.claims)]
    paths += [one.also for one in kind.claims if one.also]
    for frozen in kind.immutable:
        paths += [frozen.path, *(f"{frozen.path}.{one}" for one in getattr(frozen, "except"))]
    paths += [path for door in kind.subresources for path in door.paths]
    paths += [rule.path for rule in kind.rules if rule.path]
    for path in paths:
        if path != "spec.template.metadata.labels":
            assert at(message, path) is not None, path
    for path in selectable:
        field = at(message, path)
        assert field is not None and field.message_type is None, f"{path} is no plain value"


@pytest.mark.parametrize("name", MESSAGES)
def test_the_path_of_every_rule_leads_somewhere(name: str) -> None:
    for rule in rules_of(MESSAGES[name]):
        if rule.path and rule.path != "name":
            assert at(MESSAGES[name], rule.path) is not None, rule.path


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_can_be_named(name: str) -> None:
    kind = kind_of(KINDS[name])
    assert kind is not None
    assert kind.plural and kind.singular
    assert kind.plural == kind.plural.lower()
    words = [word for one in KINDS.values() for word in _words(kind_of(one))]
    for word in _words(kind):
        assert words.count(word) == 1, word


def _words(kind: options_pb2.Kind | None) -> list[str]:
    assert kind is not None
    return [kind.plural, kind.singular, *kind.short_names]


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_said_of_a_field_fits_the_field(name: str) -> None:
    for field in MESSAGES[name].fields:
        said = field_of(field)
        many = field.is_repeated
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        assert not said.format or said.format in FORMATS, field.full_name
        for key in said.merge_key:
            assert key in field.message_type.fields_by_name, f"{field.full_name}: {key}"
        assert not said.merge_key or (many and not said.atomic), field.full_name
        assert not said.set or (many and field.message_type is None), field.full_name
        assert not said.enum or field.type == field.TYPE_STRING, field.full_name
        assert not said.inline or (field.message_type is not None and not many), field.full_name
        if said.HasField("min") and said.HasField("max"):
            assert said.min <= said.max, field.full_name
        stored = not name.startswith("kcore.api.") and field.file.name != _OPTIONS
        if stored and many and not is_map and field.message_type is not None:
            assert said.merge_key or said.atomic, f"{field.full_name}: how is it applied?"


@pytest.mark.parametrize("name", MESSAGES)
def test_a_default_is_itself_allowed(name: str) -> None:
    message = message_factory.GetMessageClass(MESSAGES[name])()
    for field in message.DESCRIPTOR.fields:
        said = field_of(field)
        if not said.default or field.message_type is not None:
            continue
        found = value(message, said.default)
        if found is None:
            continue
        for one in found if field.is_repeated else (found,):
            assert not said.enum or one in said.enum, field.full_name
        if said.HasField("min"):
            assert found >= said.min, field.full_name
        if said.HasField("max"):
            assert found <= said.max, field.full_name


# Defaults.


def filled(message: Message) -> Message:
    """The message with its defaults, outer ones first."""
    for field in message.DESCRIPTOR.fields:
        said = field_of(field)
        if said.default:
            absent = not (
                getattr(message, field.name) if field.is_repeated else message.HasField(field.name)
            )
            if said.zero_absent and not absent:
                absent = not getattr(message, field.name)
            if absent:
                found = value(message, said.default)
                if isinstance(found, Message):
                    getattr(message, field.name).CopyFrom(found)
                elif field.is_repeated:
                    getattr(message, field.name).extend(found or ())
                elif found is not None:
                    setattr(message, field.name, found)
    for _, below in _below(message):
        filled(below)
    return message


def _below(message: Message) -> Iterator[tuple[str, Message]]:
    for field, held in message.ListFields():
        kind = field.message_type
        if kind is None or kind.full_name.startswith("google."):
            continue
        if kind.GetOptions().map_entry:
            if kind.fields_by_name["value"].message_type is not None:
                yield from ((field.name, one) for one in held.values())
        elif field.is_repeated:
            yield from ((field.name, one) for one in held)
        else:
            yield field.name, held


def made(kind: Any, text: str) -> Any:
    """A message of the class, from text."""
    return text_format.Parse(text, kind())


def policy(image: str) -> str:
    made_policy: str = filled(container.Container(name="c", image=image)).image_pull_policy
    return made_policy


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/team/web", "Always"),
        ("localhost:5000/team/web:latest", "Always"),
        ("localhost:5000/team/web:v2", "IfNotPresent"),
        ("nginx:latest-alpine", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
        ("localhost:5000/web:latest@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_the_image_pull_policy_follows_the_tag(image: str, expected: str) -> None:
    assert policy(image) == expected


def test_a_given_policy_stays_and_an_empty_one_does_not() -> None:
    assert filled(made(container.Container, "image: 'a' image_pull_policy: 'Never'")) == made(
        container.Container,
        """image: 'a' image_pull_policy: 'Never' termination_message_policy: 'File'
        termination_message_path: '/dev/termination-log'""",
    )
    emptied = made(container.Container, "image: 'a:1' image_pull_policy: ''")
    assert filled(emptied).image_pull_policy == "IfNotPresent"


def test_defaults_of_a_pod() -> None:
    found = filled(
        made(
            pod.Pod,
            """spec {
              containers {
                name: 'c' image: 'a:1' ports { container_port: 80 }
                liveness_probe { handler { http_get { port { int_val: 80 } } } period_seconds: 0 }
              }
              volumes { name: 'scratch' }
              volumes { name: 's' volume_source { secret { secret_name: 's' } } }
              termination_grace_period_seconds: 0
            }""",
        )
    )
    assert found == made(
        pod.Pod,
        """spec {
          containers {
            name: 'c' image: 'a:1' ports { container_port: 80 protocol: 'TCP' }
            image_pull_policy: 'IfNotPresent'
            termination_message_path: '/dev/termination-log' termination_message_policy: 'File'
            liveness_probe {
              handler { http_get { port { int_val: 80 } path: '/' scheme: 'HTTP' } }
              period_seconds: 10 timeout_seconds: 1 success_threshold: 1 failure_threshold: 3
            }
          }
          volumes { name: 'scratch' volume_source { empty_dir {} } }
          volumes { name: 's' volume_source { secret { secret_name: 's' default_mode: 420 } } }
          restart_policy: 'Always' dns_policy: 'ClusterFirst' security_context {}
          scheduler_name: 'default-scheduler' termination_grace_period_seconds: 0
        }
        status { phase: 'Pending' }""",
    )


def test_defaults_of_a_deployment() -> None:
    found = filled(made(deployment.Deployment, "spec {}"))
    assert found == made(
        deployment.Deployment,
        """spec {
          replicas: 1 revision_history_limit: 10 progress_deadline_seconds: 600
          strategy {
            type: 'RollingUpdate'
            rolling_update {
              max_unavailable { type: 1 str_val: '25%' } max_surge { type: 1 str_val: '25%' }
            }
          }
        }""",
    )
    none = filled(made(deployment.Deployment, "spec { replicas: 0 strategy { type: 'Recreate' } }"))
    assert none.spec.replicas == 0
    assert not none.spec.strategy.HasField("rolling_update")


def test_other_defaults() -> None:
    assert filled(secret.Secret()).type == "Opaque"
    assert filled(namespace.Namespace()).status.phase == "Active"
    assert filled(made(replica_set.ReplicaSet, "spec {}")).spec.replicas == 1
    assert filled(container.GRPCAction(port=1)).HasField("service")
    assert filled(container.ObjectFieldSelector()).api_version == "v1"
    assert filled(volume.ServiceAccountTokenProjection()).expiration_seconds == 3600


# Rules.


def violations(message: Message, old: Message | None = None) -> set[tuple[str, str, str]]:
    """The rules that do not hold of the message and of what is in it."""
    name = message.DESCRIPTOR.full_name
    rules = rules_of(message.DESCRIPTOR)
    kind = kind_of(message.DESCRIPTOR)
    if kind is not None:
        rules += [
            one
            for one in kind.rules
            if not one.on_delete and ("old_self" not in one.expression or old is not None)
        ]
    found = {
        (name, rule.path, rule.message)
        for rule in rules
        if not value(message, rule.expression, old)
    }
    for _, below in _below(message):
        found |= violations(below)
    return found


POD = "spec { containers { name: 'c' image: 'a' } %s }"
TEMPLATE = """metadata { labels { key: 'app' value: 'web' } }
  spec { containers { name: 'c' image: 'a' } }"""
APP = "selector { match_labels { key: 'app' value: 'web' } } template { %s }" % TEMPLATE
GOOD = [
    (pod.Pod, POD % ""),
    (
        pod.Pod,
        """metadata { labels { key: 'app' value: 'web' } }
        spec {
          containers {
            name: 'web' image: 'a:1'
            env { name: 'A' value: 'x' }
            env { name: 'B' value_from { field_ref { field_path: 'metadata.name' } } }
            env { name: 'C' value_from { config_map_key_ref {
              local_object_reference { name: 'cm' } key: 'k' } } }
            env_from { secret_ref { local_object_reference { name: 's' } } }
            ports { name: 'http' container_port: 80 host_port: 80 }
            ports { container_port: 81 } ports { container_port: 82 }
            volume_mounts { name: 'tmp' mount_path: '/tmp' }
            volume_mounts { name: 'cm' mount_path: '/etc/cm' sub_path: 'k' }
            resources {
              requests { key: 'cpu' value { string: '100m' } }
              requests { key: 'memory' value { string: '64Mi' } }
              limits { key: 'cpu' value { string: '0.1' } }
            }
            liveness_probe { handler { exec { command: 'true' } } }
            lifecycle { pre_stop { sleep { seconds: 1 } } }
            security_context { privileged: true seccomp_profile { type: 'Unconfined' } }
          }
          init_containers { name: 'once' image: 'a' }
          init_containers {
            name: 'side' image: 'a' restart_policy: 'Always'
            readiness_probe { handler { tcp_socket { port { int_val: 1 } } } }
          }
          volumes { name: 'tmp' volume_source { empty_dir {} } }
          volumes { name: 'cm' volume_source { config_map {
            local_object_reference { name: 'cm' } } } }
          volumes { name: 'all' volume_source { projected { sources { downward_api { items {
            path: 'labels' field_ref { field_path: 'metadata.labels' } } } } } } }
          tolerations { operator: 'Exists' }
          tolerations { key: 'a' value: 'b' effect: 'NoExecute' toleration_seconds: 5 }
          host_network: true node_name: 'n1'
          affinity { node_affinity { required_during_scheduling_ignored_during_execution {
            node_selector_terms { match_expressions { key: 'a' operator: 'Gt' values: '5' } }
            node_selector_terms { match_expressions { key: 'a' operator: 'Exists' } } } } }
        }""",
    ),
    (deployment.Deployment, "spec { %s }" % APP),
    (
        deployment.Deployment,
        "spec { %s strategy { rolling_update { max_unavailable { type: 1 str_val: '0%%' } "
        "max_surge { int_val: 1 } } } }" % APP,
    ),
    (replica_set.ReplicaSet, "spec { %s }" % APP),
    (
        node.Node,
        "spec { taints { key: 'a' effect: 'NoSchedule' } taints { key: 'a' effect: 'x' } }",
    ),
    (config_map.ConfigMap, "data { key: 'a' value: 'b' } binary_data { key: 'c' value: 'd' }"),
    (secret.Secret, "type: 'Opaque'"),
    (
        secret.Secret,
        "type: 'kubernetes.io/tls' data { key: 'tls.crt' value: '' } data { key: 'tls.key' }",
    ),
    (pool.Pool, "spec { cidr: '10.244.0.0/16' block_size: 24 }"),
    (pool.Pool, "spec { first: 30000 last: 32767 }"),
    (namespace.Namespace, "metadata { name: 'default' }"),
    (service_account.ServiceAccount, ""),
    (lease.Lease, "spec { holder_identity: 'a' }"),
    (event.Event, "reason: 'Pulled'"),
]


@pytest.mark.parametrize(("kind", "text"), GOOD)
def test_what_is_right_is_let_through(kind: Any, text: str) -> None:
    assert violations(filled(made(kind, text))) == set()


UNIQUE = "names must be unique"
SOURCE = "exactly one source"
DEPLOYMENT = "spec { selector { %s } template { %s } %s }"
APP_IS_WEB = "match_labels { key: 'app' value: 'web' }"
BAD: list[tuple[Any, str, str, str]] = [
    # pods
    (pod_spec.PodSpec, "containers { name: 'c' } init_containers { name: 'c' }",
     "containers", "names must be unique over all of the pod's containers"),
    (pod_spec.PodSpec,
     "containers { name: 'c' } ephemeral_containers { ephemeral_container_common { name: 'c' } }",
     "containers", "names must be unique over all of the pod's containers"),
    (pod_spec.PodSpec, "volumes { name: 'v' } volumes { name: 'v' }", "volumes", UNIQUE),
    (pod_spec.PodSpec, "containers { volume_mounts { name: 'v' mount_path: '/v' } }",
     "containers", "volumeMounts and volumeDevices must name one of the pod's volumes"),
    (pod_spec.PodSpec, "init_containers { volume_mounts { name: 'v' mount_path: '/v' } }",
     "containers", "volumeMounts and volumeDevices must name one of the pod's volumes"),
    (pod_spec.PodSpec,
     "host_network: true containers { ports { container_port: 80 host_port: 81 } }",
     "containers", "hostPort must equal containerPort with hostNetwork"),
    (pod_spec.PodSpec, "containers { restart_policy: 'Always' }",
     "containers", "restartPolicy is for init containers"),
    (pod_spec.PodSpec, "init_containers { lifecycle {} }",
     "initContainers", "probes and lifecycle need restartPolicy Always"),
    (pod_spec.PodSpec,
     "ephemeral_containers { ephemeral_container_common { ports { container_port: 1 } } }",
     "ephemeralContainers", "no ports, probes, lifecycle, resources or restartPolicy here"),
    (pod_spec.PodSpec, "dns_policy: 'None'", "dnsConfig", "dnsPolicy None needs a nameserver"),
    (pod_spec.PodSpec, "share_process_namespace: true host_pid: true",
     "shareProcessNamespace", "not together with hostPID"),
    (pod_spec.PodSpec, "node_name: 'n' scheduling_gates { name: 'g' }",
     "nodeName", "not before all schedulingGates are gone"),
    (pod_spec.PodTemplateSpec, "spec { ephemeral_containers {} }",
     "spec.ephemeralContainers", "not in a template"),
    # containers
    (container.Container,
     "volume_mounts { name: 'v' mount_path: '/a' } volume_mounts { name: 'w' mount_path: '/a' }",
     "volumeMounts", "mountPath must be unique and without ':'; subPath excludes subPathExpr"),
    (container.Container, "volume_mounts { name: 'v' mount_path: '/a:b' }",
     "volumeMounts", "mountPath must be unique and without ':'; subPath excludes subPathExpr"),
    (container.Container,
     "volume_mounts { name: 'v' mount_path: '/a' sub_path: 'a' sub_path_expr: 'b' }",
     "volumeMounts", "mountPath must be unique and without ':'; subPath excludes subPathExpr"),
    (container.Container,
     "ports { name: 'http' container_port: 1 } ports { name: 'http' container_port: 2 }",
     "ports", UNIQUE),
    (container.Container, "env { name: 'A' value: 'x' value_from {} }",
     "env", "either value or valueFrom"),
    (container.Container, "liveness_probe { success_threshold: 2 }",
     "livenessProbe.successThreshold", "must be 1"),
    (container.Container, "startup_probe { success_threshold: 2 }",
     "startupProbe.successThreshold", "must be 1"),
    (container.Container, "readiness_probe { termination_grace_period_seconds: 2 }",
     "readinessProbe.terminationGracePeriodSeconds", "not for readiness"),
    (container.EnvVarSource, "", "", SOURCE),
    (container.EnvVarSource, "field_ref {} secret_key_ref {}", "", SOURCE),
    (container.EnvFromSource, "", "", SOURCE),
    (container.Probe, "", "", "exactly one of exec, httpGet, tcpSocket, grpc"),
    (container.Probe, "handler { exec {} grpc {} }", "",
     "exactly one of exec, httpGet, tcpSocket, grpc"),
    (container.LifecycleHandler, "", "", "exactly one of exec, httpGet, tcpSocket, sleep"),
    (container.ConfigMapKeySelector, "key: 'k'", "name", "required"),
    (container.SecretKeySelector, "key: 'k'", "name", "required"),
    (container.ConfigMapEnvSource, "", "name", "required"),
    (container.SecretEnvSource, "", "name", "required"),
    (container.ResourceRequirements, "limits { key: 'cpu' value { string: '-1' } }",
     "limits", "must not be negative"),
    (container.ResourceRequirements, "requests { key: 'cpu' value { string: '-1' } }",
     "requests", "must not be negative, nor exceed limits"),
    (container.ResourceRequirements,
     "limits { key: 'memory' value { string: '1G' } } "
     "requests { key: 'memory' value { string: '1Gi' } }",
     "requests", "must not be negative, nor exceed limits"),
    (container.SecurityContext, "allow_privilege_escalation: false privileged: true",
     "allowPrivilegeEscalation",
     "can't be false for a privileged container or one with SYS_ADMIN"),
    (container.SeccompProfile, "type: 'Localhost'",
     "localhostProfile", "needed with type Localhost, and only there"),
    (container.AppArmorProfile, "type: 'Unconfined' localhost_profile: 'a'",
     "localhostProfile", "needed with type Localhost, and only there"),
    # volumes
    (volume.VolumeSource, "", "", SOURCE),
    (volume.VolumeSource, "empty_dir {} secret {}", "", SOURCE),
    (volume.VolumeProjection, "", "", SOURCE),
    (volume.ConfigMapVolumeSource, "", "name", "required"),
    (volume.SecretProjection, "", "name", "required"),
    (volume.ConfigMapProjection, "", "name", "required"),
    (volume.DownwardAPIVolumeFile, "path: 'a'", "", "exactly one of fieldRef, resourceFieldRef"),
    # nodes and what keeps pods from them
    (affinity.Toleration, "value: 'v'", "operator", "without a key it must be Exists"),
    (affinity.Toleration, "key: 'k' operator: 'Exists' value: 'v'",
     "value", "must be empty with operator Exists"),
    (affinity.Toleration, "key: 'k' toleration_seconds: 1",
     "effect", "must be NoExecute with tolerationSeconds"),
    (affinity.NodeSelectorRequirement, "key: 'k' operator: 'In'", "values",
     "In and NotIn need some, Gt and Lt one number, Exists and DoesNotExist none"),
    (affinity.NodeSelectorRequirement, "key: 'k' operator: 'Gt' values: 'x'", "values",
     "In and NotIn need some, Gt and Lt one number, Exists and DoesNotExist none"),
    (node.Node,
     "spec { taints { key: 'a' effect: 'x' } taints { key: 'a' effect: 'x' value: '1' } }",
     "spec.taints", "no two of the same key and effect"),
    # deployments and their like
    (deployment.Deployment, DEPLOYMENT % ("", TEMPLATE, ""), "spec.selector", "must not be empty"),
    (deployment.Deployment, DEPLOYMENT % ("match_labels { key: 'app' value: 'x' }", TEMPLATE, ""),
     "spec.template.metadata.labels", "must match the selector"),
    (deployment.Deployment, DEPLOYMENT % (APP_IS_WEB, "spec { restart_policy: 'Never' }", ""),
     "spec.template.spec.restartPolicy", "must be Always"),
    (deployment.Deployment,
     DEPLOYMENT % (APP_IS_WEB, "spec { active_deadline_seconds: 1 }", ""),
     "spec.template.spec.activeDeadlineSeconds", "not here"),
    (deployment.Deployment,
     DEPLOYMENT % (APP_IS_WEB, TEMPLATE, "progress_deadline_seconds: 5 min_ready_seconds: 5"),
     "spec.progressDeadlineSeconds", "must be greater than minReadySeconds"),
    (deployment.DeploymentStrategy, "type: 'Recreate' rolling_update {}",
     "rollingUpdate", "not with type Recreate"),
    (deployment.RollingUpdateDeployment, "max_unavailable { int_val: 0 } max_surge { int_val: 0 }",
     "maxUnavailable", "may not be 0 when maxSurge is 0"),
    (deployment.RollingUpdateDeployment,
     "max_unavailable { type: 1 str_val: '0%' } max_surge { int_val: 0 }",
     "maxUnavailable", "may not be 0 when maxSurge is 0"),
    (deployment.RollingUpdateDeployment, "max_unavailable { type: 1 str_val: '101%' }",
     "maxUnavailable", "at most 100%"),
    (replica_set.ReplicaSet, DEPLOYMENT % ("", TEMPLATE, ""), "spec.selector", "must not be empty"),
    (replica_set.ReplicaSet, DEPLOYMENT % ("match_labels { key: 'a' value: 'x' }", TEMPLATE, ""),
     "spec.template.metadata.labels", "must match the selector"),
    (replica_set.ReplicaSet, DEPLOYMENT % (APP_IS_WEB, "spec { restart_policy: 'Never' }", ""),
     "spec.template.spec.restartPolicy", "must be Always"),
    (replica_set.ReplicaSet,
     DEPLOYMENT % (APP_IS_WEB, "spec { active_deadline_seconds: 1 }", ""),
     "spec.template.spec.activeDeadlineSeconds", "not here"),
    # settings
    (config_map.ConfigMap, "data { key: 'a' value: 'b' } binary_data { key: 'a' value: 'b' }",
     "binaryData", "no key may be in data, too"),
    (secret.Secret, "type: 'kubernetes.io/tls' data { key: 'tls.crt' value: 'a' }",
     "data", "this type needs its keys"),
    (secret.Secret, "type: 'kubernetes.io/basic-auth'", "data", "this type needs its keys"),
    (pool.PoolSpec, "", "", "either cidr, or first and last"),
    (pool.PoolSpec, "cidr: '10.0.0.0/8' first: 1", "", "either cidr, or first and last"),
    (pool.PoolSpec, "first: 5 last: 4", "last", "must not be less than first"),
    (pool.PoolSpec, "cidr: '10.0.0.0/16' block_size: 8",
     "blockSize", "only with cidr, and not shorter than its prefix"),
    # services
    (service.ServiceSpec, "type: 'ClusterIP'",
     "ports", "needed, but by headless and ExternalName services"),
    (service.ServiceSpec, "ports { port: 1 } ports { name: 'b' port: 2 }",
     "ports", "where there are several, each needs a name, and no two the same"),
    (service.ServiceSpec, "ports { name: 'b' port: 1 } ports { name: 'b' port: 2 }",
     "ports", "where there are several, each needs a name, and no two the same"),
    (service.ServiceSpec,
     "ports { name: 'a' port: 1 protocol: 'TCP' } ports { name: 'b' port: 1 protocol: 'TCP' }",
     "ports", "no two of the same port and protocol"),
    (service.ServiceSpec,
     "ports { port: 1 node_port: 30000 } ports { port: 2 node_port: 30000 }",
     "ports", "no two of the same nodePort and protocol"),
    (service.ServiceSpec, "type: 'ClusterIP' ports { port: 1 node_port: 30000 }",
     "ports", "nodePort: only services of type NodePort or LoadBalancer have one"),
    (service.ServiceSpec, "type: 'ExternalName' external_name: 'a' cluster_ip: 'None'",
     "clusterIP", "must be absent from a service of type ExternalName"),
    (service.ServiceSpec, "type: 'NodePort' cluster_ip: 'None'",
     "clusterIP", "only services of type ClusterIP may be headless (None)"),
    (service.ServiceSpec, "cluster_ip: '10.96.0.7' cluster_ips: '10.96.0.8'",
     "clusterIPs", "must be clusterIP alone: there is one family of addresses"),
    (service.ServiceSpec, "type: 'ExternalName'",
     "externalName", "needed by type ExternalName"),
    (service.ServiceSpec, "session_affinity: 'None' session_affinity_config {}",
     "sessionAffinityConfig", "only with sessionAffinity ClientIP"),
    (service.ServiceSpec, "type: 'ClusterIP' external_traffic_policy: 'Local'",
     "externalTrafficPolicy", "only where there are node ports or external addresses"),
    (service.ServiceSpec, "ip_families: 'IPv6'",
     "ipFamilies", "pods have IPv4 addresses only"),
    (service.ServiceSpec, "ip_family_policy: 'RequireDualStack'",
     "ipFamilyPolicy", "RequireDualStack: pods have IPv4 addresses only"),
    (meta.LabelSelectorRequirement, "key: 'a' operator: 'In'",
     "values", "In and NotIn need some, Exists and DoesNotExist none"),
    (meta.LabelSelectorRequirement, "key: 'a' operator: 'Exists' values: 'x'",
     "values", "In and NotIn need some, Exists and DoesNotExist none"),
    *bad_workloads.BAD,
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "path", "message"), BAD)
def test_what_is_wrong_is_refused(kind: Any, text: str, path: str, message: str) -> None:
    assert (kind.DESCRIPTOR.full_name, path, message) in violations(made(kind, text))


CHANGES = [
    ("active_deadline_seconds: 9", "active_deadline_seconds: 10", "activeDeadlineSeconds"),
    ("active_deadline_seconds: 9", "", "activeDeadlineSeconds"),
    ("tolerations { key: 'a' }", "tolerations { key: 'b' }", "tolerations"),
    ("", "scheduling_gates { name: 'g' }", "schedulingGates"),
    ("termination_grace_period_seconds: 5", "termination_grace_period_seconds: 4",
     "terminationGracePeriodSeconds"),
    ("ephemeral_containers { target_container_name: 'c' }", "", "ephemeralContainers"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "path"), CHANGES)
def test_a_pod_may_not_change_so(before: str, after: str, path: str) -> None:
    found = violations(made(pod.Pod, POD % after), made(pod.Pod, POD % before))
    assert [one[1] for one in found] == [f"spec.{path}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("", "active_deadline_seconds: 10"),
        ("active_deadline_seconds: 10", "active_deadline_seconds: 9"),
        ("tolerations { key: 'a' }", "tolerations { key: 'b' } tolerations { key: 'a' }"),
        ("tolerations { key: 'a' effect: 'NoExecute' toleration_seconds: 5 }",
         "tolerations { key: 'a' effect: 'NoExecute' toleration_seconds: 9 }"),
        ("scheduling_gates { name: 'a' } scheduling_gates { name: 'b' }",
         "scheduling_gates { name: 'b' }"),
        ("termination_grace_period_seconds: -5", "termination_grace_period_seconds: 1"),
        ("", "ephemeral_containers { ephemeral_container_common { name: 'debug' } }"),
    ],
)  # fmt: skip
def test_a_pod_may_change_so(before: str, after: str) -> None:
    assert violations(made(pod.Pod, POD % after), made(pod.Pod, POD % before)) == set()


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pods_end_is_final(phase: str) -> None:
    before = made(pod.Pod, f"status {{ phase: '{phase}' }}")
    assert violations(made(pod.Pod, "status { phase: 'Running' }"), before) == {
        ("kcore.core.v1.Pod", "status.phase", "Succeeded and Failed are final")
    }
    assert violations(before, before) == set()
    running = made(pod.Pod, "status { phase: 'Running' }")
    assert violations(before, running) == set()


def test_every_rule_refuses_something() -> None:
    refused = {found for kind, text, *_ in BAD for found in violations(made(kind, text))}
    for before, after, _ in CHANGES:
        refused |= violations(made(pod.Pod, POD % after), made(pod.Pod, POD % before))
    refused.add(("kcore.core.v1.Pod", "status.phase", "Succeeded and Failed are final"))
    for before, after, rule in bad_workloads.JOBS:
        jobs = [made(job.Job, f"spec {{ {text} }}") for text in (after, before)]
        assert rule in violations(*jobs)
        refused.add(rule)
    said = {
        (name, rule.path, rule.message)
        for name, message in MESSAGES.items()
        for rule in [*rules_of(message), *getattr(kind_of(message), "rules", [])]
        if not rule.on_delete
    }
    assert said - refused == set()


def test_namespaces_that_kcore_needs_may_not_be_deleted() -> None:
    kind = kind_of(KINDS["kcore.core.v1.Namespace"])
    assert kind is not None
    (rule,) = [one for one in kind.rules if one.on_delete]
    for name, allowed in (("default", False), ("kube-system", False), ("kube-public", False),
                          ("kube-node-lease", True), ("team", True)):  # fmt: skip
        one = made(namespace.Namespace, f"metadata {{ name: '{name}' }}")
        assert value(one, rule.expression) is allowed


def test_what_is_marked_immutable_is_frozen() -> None:
    for module, name in ((secret, "Secret"), (config_map, "ConfigMap")):
        kind = kind_of(KINDS[f"kcore.core.v1.{name}"])
        assert kind is not None
        frozen = {one.path: one for one in kind.immutable}
        assert {"data", "immutable"} <= frozen.keys()
        for path in ("data", "immutable"):
            for flag in (True, False):
                one = getattr(module, name)(immutable=flag)
                assert value(one, frozen[path].when, one) is flag


@pytest.mark.parametrize(
    ("text", "seconds", "at_once"),
    [
        ("", 30, True),
        ("spec { node_name: 'n' }", 30, False),
        ("spec { node_name: 'n' termination_grace_period_seconds: 0 }", 0, False),
        ("spec { node_name: 'n' termination_grace_period_seconds: -3 }", 1, False),
        ("spec { node_name: 'n' } status { phase: 'Succeeded' }", 30, True),
        ("spec { node_name: 'n' } status { phase: 'Running' }", 30, False),
    ],
)
def test_a_pods_grace(text: str, seconds: int, at_once: bool) -> None:
    kind = kind_of(KINDS["kcore.core.v1.Pod"])
    assert kind is not None
    one = made(pod.Pod, text)
    assert value(one, kind.graceful.seconds) == seconds
    assert value(one, kind.graceful.immediate) is at_once


# Columns.


def row(message: Message) -> dict[str, Any]:
    """The cells of an object, wide ones too."""
    kind = kind_of(message.DESCRIPTOR)
    assert kind is not None
    return {column.name: value(message, column.value, now=NOW) for column in kind.columns}


def running(name: str = "c", ready: bool = True, restarts: int = 0) -> str:
    return (
        f"container_statuses {{ name: '{name}' ready: {str(ready).lower()} "
        f"restart_count: {restarts} state {{ running {{}} }} }} "
    )


def ended(reason: str = "Completed", code: int = 0) -> str:
    return (
        "container_statuses { state { terminated { "
        f"reason: '{reason}' exit_code: {code} }} }} }} "
    )


def waiting(reason: str) -> str:
    return f"container_statuses {{ state {{ waiting {{ reason: '{reason}' }} }} }} "


INIT = "init_containers { name: 'i' } init_containers { name: 'j' } containers { name: 'c' }"
READY = "conditions { type: 'Ready' status: 'True' } "
DONE = "conditions { type: 'Initialized' status: 'True' } "


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("phase: 'Pending'", "Pending"),
        ("phase: 'Running' " + running(), "Running"),
        ("phase: 'Pending' " + waiting("ContainerCreating"), "ContainerCreating"),
        ("phase: 'Running' " + waiting("CrashLoopBackOff"), "CrashLoopBackOff"),
        ("phase: 'Pending' " + waiting("ImagePullBackOff") + running("d"), "ImagePullBackOff"),
        ("phase: 'Running' " + running() + waiting("ErrImagePull"), "ErrImagePull"),
        ("phase: 'Succeeded' " + ended(), "Completed"),
        ("phase: 'Failed' " + ended("Error", 1), "Error"),
        ("phase: 'Failed' " + ended("OOMKilled", 137), "OOMKilled"),
        ("phase: 'Failed' " + ended("", 3), "ExitCode:3"),
        ("phase: 'Failed' container_statuses { state { terminated { signal: 9 } } }", "Signal:9"),
        ("phase: 'Running' " + ended() + running("d") + READY, "Running"),
        ("phase: 'Running' " + ended() + running("d"), "NotReady"),
        ("phase: 'Failed' reason: 'Evicted'", "Evicted"),
        (
            "phase: 'Pending' conditions { type: 'PodScheduled' reason: 'SchedulingGated' }",
            "SchedulingGated",
        ),
        # init containers
        ("init_container_statuses { name: 'i' state { waiting {} } } "
         "init_container_statuses { name: 'j' state { waiting {} } }", "Init:0/2"),
        ("init_container_statuses { name: 'i' state { terminated { exit_code: 0 } } } "
         "init_container_statuses { name: 'j' state { running {} } }", "Init:1/2"),
        ("init_container_statuses { name: 'i' state { terminated { "
         "exit_code: 1 reason: 'Error' } } }", "Init:Error"),
        ("init_container_statuses { name: 'i' state { terminated { exit_code: 7 } } }",
         "Init:ExitCode:7"),
        ("init_container_statuses { name: 'i' state { waiting { reason: 'CrashLoopBackOff' } } }",
         "Init:CrashLoopBackOff"),
        ("init_container_statuses { name: 'i' state { waiting { reason: 'PodInitializing' } } }",
         "Init:0/2"),
        ("phase: 'Running' " + DONE + running()
         + "init_container_statuses { name: 'i' state { running {} } }", "Running"),
    ],
)  # fmt: skip
def test_the_status_of_a_pod(status: str, expected: str) -> None:
    one = made(pod.Pod, f"spec {{ {INIT} }} status {{ {status} }}")
    assert row(one)["STATUS"] == expected


def test_the_status_of_a_pod_that_is_going() -> None:
    going = "metadata { deletion_timestamp { seconds: 1 } } "
    one = made(pod.Pod, going + "status { phase: 'Running' %s }" % running())
    assert row(one)["STATUS"] == "Terminating"
    assert row(made(pod.Pod, going + "status { reason: 'NodeLost' }"))["STATUS"] == "Unknown"
    assert row(made(pod.Pod, going + "status { phase: 'Succeeded' }"))["STATUS"] == "Succeeded"


def test_a_sidecar_counts_as_a_container() -> None:
    one = made(
        pod.Pod,
        """spec {
          containers { name: 'c' } init_containers { name: 's' restart_policy: 'Always' }
          init_containers { name: 'i' }
        }
        status {
          phase: 'Running'
          init_container_statuses { name: 's' ready: true started: true state { running {} } }
          init_container_statuses {
            name: 'i' ready: true state { terminated { reason: 'Completed' } } } %s
        }"""
        % running(),
    )
    assert row(one)["READY"] == "2/2"
    assert row(one)["STATUS"] == "Running"


@pytest.mark.parametrize(
    ("ago", "text"), [(5, "5s"), (119, "119s"), (125, "2m"), (10_800, "3h"), (200_000, "2d")]
)
def test_the_restarts_of_a_pod(ago: int, text: str) -> None:
    one = made(pod.Pod, "status { %s %s }" % (running(restarts=3), running("d", restarts=1)))
    for name in "abcdefgh":
        one.status.container_statuses.add(name=name)
    one.status.container_statuses.add(name="z", restart_count=10)
    assert row(one)["RESTARTS"] == "14"
    last = one.status.container_statuses[0].last_state.terminated
    last.finished_at.seconds = SECONDS - ago
    assert row(one)["RESTARTS"] == f"14 ({text} ago)"


def test_the_other_columns_of_a_pod() -> None:
    one = made(
        pod.Pod,
        """spec {
          node_name: 'n1' containers { name: 'c' } containers { name: 'd' }
          readiness_gates { condition_type: 'a' } readiness_gates { condition_type: 'b' }
        }
        status {
          pod_ip: '10.0.0.1' nominated_node_name: 'n2' conditions { type: 'b' status: 'True' } %s
        }"""
        % running(),
    )
    found = row(one)
    assert found["READY"] == "1/2"
    assert (found["IP"], found["NODE"]) == ("10.0.0.1", "n1")
    assert found["NOMINATED NODE"] == "n2"
    assert found["READINESS GATES"] == "1/2"
    assert set(row(pod.Pod()).values()) == {"0/0", "", "0"}


SELECTOR = """selector {
  match_labels { key: 'tier' value: 'front' } match_labels { key: 'app' value: 'web' }
  match_expressions { key: 'env' operator: 'In' values: 'a' values: 'b' }
  match_expressions { key: 'x' operator: 'Exists' }
  match_expressions { key: 'y' operator: 'DoesNotExist' }
  match_expressions { key: 'z' operator: 'NotIn' values: 'c' }
}
template { spec { containers { name: 'a' image: 'i:1' } containers { name: 'b' image: 'j' } } }"""
WORDS = {
    "CONTAINERS": "a,b",
    "IMAGES": "i:1,j",
    "SELECTOR": "app=web,tier=front,env in (a,b),x,!y,z notin (c)",
}


def test_the_columns_of_a_deployment() -> None:
    one = made(
        deployment.Deployment,
        "spec { replicas: 3 %s } status { ready_replicas: 2 updated_replicas: 1 "
        "available_replicas: 2 }" % SELECTOR,
    )
    assert row(one) == {"READY": "2/3", "UP-TO-DATE": "1", "AVAILABLE": "2", **WORDS}


def test_the_columns_of_a_replica_set() -> None:
    one = made(
        replica_set.ReplicaSet,
        "spec { replicas: 3 %s } status { replicas: 3 ready_replicas: 2 }" % SELECTOR,
    )
    assert row(one) == {"DESIRED": "3", "CURRENT": "3", "READY": "2", **WORDS}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Unknown"),
        ("status { conditions { type: 'Ready' status: 'True' } }", "Ready"),
        ("status { conditions { type: 'Ready' status: 'Unknown' } }", "NotReady"),
        ("status { conditions { type: 'Ready' status: 'False' } } spec { unschedulable: true }",
         "NotReady,SchedulingDisabled"),
    ],
)  # fmt: skip
def test_the_status_of_a_node(text: str, expected: str) -> None:
    assert row(made(node.Node, text))["STATUS"] == expected


def test_the_other_columns_of_a_node() -> None:
    one = made(
        node.Node,
        """metadata {
          creation_timestamp { seconds: 5 }
          labels { key: 'node-role.kubernetes.io/worker' value: '' }
          labels { key: 'node-role.kubernetes.io/control-plane' value: '' }
          labels { key: 'a' value: 'b' }
        }
        status {
          addresses { type: 'Hostname' address: 'n' } addresses { type: 'InternalIP' address: 'i' }
          node_info { kubelet_version: 'v1' os_image: 'os' kernel_version: 'k'
            container_runtime_version: 'r' }
        }""",
    )
    assert row(one) == {
        "STATUS": "Unknown",
        "ROLES": "control-plane,worker",
        "AGE": 5,
        "VERSION": "v1",
        "INTERNAL-IP": "i",
        "EXTERNAL-IP": "",
        "OS-IMAGE": "os",
        "KERNEL-VERSION": "k",
        "CONTAINER-RUNTIME": "r",
    }


def test_the_columns_of_an_event() -> None:
    one = made(
        event.Event,
        """metadata { name: 'e' }
        involved_object { kind: 'Pod' name: 'web' field_path: 'spec.containers{c}' }
        type: 'Normal' reason: 'Pulled' message: 'done' count: 3
        first_timestamp { seconds: 5 } last_timestamp { seconds: 9 }
        source { component: 'kubelet' host: 'n1' }""",
    )
    assert row(one) == {
        "LAST SEEN": 9,
        "TYPE": "Normal",
        "REASON": "Pulled",
        "OBJECT": "pod/web",
        "SUBOBJECT": "spec.containers{c}",
        "SOURCE": "kubelet, n1",
        "MESSAGE": "done",
        "FIRST SEEN": 5,
        "COUNT": "3",
        "NAME": "e",
    }
    newer = made(
        event.Event,
        "event_time { seconds: 7 } reporting_component: 'x' series { count: 4 }",
    )
    found = row(newer)
    assert (found["LAST SEEN"], found["COUNT"], found["SOURCE"]) == (7, "4", "x")


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (namespace.Namespace, "status { phase: 'Active' }", {"STATUS": "Active"}),
        (
            namespace.Namespace,
            "metadata { deletion_timestamp { seconds: 1 } } status { phase: 'Active' }",
            {"STATUS": "Terminating"},
        ),
        (
            config_map.ConfigMap,
            "data { key: 'a' } data { key: 'b' } binary_data { key: 'c' }",
            {"DATA": "3"},
        ),
        (secret.Secret, "type: 'Opaque' data { key: 'a' }", {"TYPE": "Opaque", "DATA": "1"}),
        (service_account.ServiceAccount, "secrets { name: 'a' }", {"SECRETS": "1"}),
        (lease.Lease, "spec { holder_identity: 'n1' }", {"HOLDER": "n1"}),
        (pool.Pool, "spec { cidr: '10.0.0.0/8' block_size: 24 }", {"VALUES": "10.0.0.0/8 by /24"}),
        (pool.Pool, "spec { cidr: '10.0.0.0/8' }", {"VALUES": "10.0.0.0/8"}),
        (pool.Pool, "spec { first: 1 last: 9 }", {"VALUES": "1-9"}),
    ],
)
def test_the_columns_of_small_kinds(kind: Any, text: str, expected: dict[str, Any]) -> None:
    assert row(made(kind, text)) == expected
