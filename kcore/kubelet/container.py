"""What the runtime is told of a pod's sandbox and containers. Pure: objects in, CRI configs out.

Log files are `<logs>/<namespace>_<name>_<uid>/<container>/<attempt>.log`, in the runtime's format.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import env, hosts, observed, sync
from kcore.kubelet.resolver import Resolver
from kcore.wire import quantity

PERIOD_MICROSECONDS = 100_000
LEAST_QUOTA_MICROSECONDS = 1_000
LEAST_SHARES, MOST_SHARES = 2, 262_144
# Hidden from containers that are not privileged, or shown read-only.
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROTOCOLS = {"TCP": pb.TCP, "UDP": pb.UDP, "SCTP": pb.SCTP}


def log_directory(logs: Path, pod: pod_pb2.Pod) -> Path:
    """Where a pod's logs are."""
    meta = pod.metadata
    return logs / f"{meta.namespace}_{meta.name}_{meta.uid}"


def uid_of_log_directory(name: str) -> str:
    """Whose logs are in a directory of this name."""
    return name.rpartition("_")[2]


def log_path(name: str, attempt: int) -> str:
    """A container instance's log, below the pod's directory."""
    return f"{name}/{attempt}.log"


def labels(pod: pod_pb2.Pod, container: str = "") -> dict[str, str]:
    """How the runtime's things are found again; nothing a user wrote goes in but names."""
    found = {
        observed.POD_NAME: pod.metadata.name,
        observed.POD_NAMESPACE: pod.metadata.namespace,
        observed.POD_UID: pod.metadata.uid,
    }
    if container:
        found[observed.CONTAINER_NAME] = container
    return found


def namespaces(pod: pod_pb2.Pod) -> pb.NamespaceOption:
    """Which namespaces containers share with each other or with the node."""
    spec = pod.spec
    pid = pb.CONTAINER
    if spec.host_pid:
        pid = pb.NODE
    elif spec.share_process_namespace:
        pid = pb.POD
    return pb.NamespaceOption(
        network=pb.NODE if spec.host_network else pb.POD,
        pid=pid,
        ipc=pb.NODE if spec.host_ipc else pb.POD,
    )


def sandbox(pod: pod_pb2.Pod, attempt: int, logs: Path, dns: Resolver) -> pb.PodSandboxConfig:
    """The sandbox's config. ValueError for what can't be rendered."""
    meta, spec = pod.metadata, pod.spec
    context = spec.security_context
    made = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(
            name=meta.name, uid=meta.uid, namespace=meta.namespace, attempt=attempt
        ),
        hostname="" if spec.host_network else hosts.hostname(pod),
        log_directory=str(log_directory(logs, pod)),
        dns_config=dns.config(pod),
        labels=labels(pod),
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=f"/kcore/{qos(pod).lower()}/pod{meta.uid}",
            security_context=pb.LinuxSandboxSecurityContext(
                namespace_options=namespaces(pod),
                privileged=any(c.security_context.privileged for c in sync.every(pod)),
                seccomp=pb.SecurityProfile(profile_type=pb.SecurityProfile.RuntimeDefault),
            ),
            sysctls={one.name: one.value for one in context.sysctls},
        ),
    )
    if not spec.host_network:
        sidecars = [one for one in spec.init_containers if sync.is_sidecar(one)]
        for container in (*sidecars, *spec.containers):
            for port in container.ports:
                if port.host_port:
                    made.port_mappings.add(
                        protocol=_PROTOCOLS[port.protocol or "TCP"],
                        container_port=port.container_port,
                        host_port=port.host_port,
                        host_ip=port.host_ip,
                    )
    return made


def config(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    *,
    attempt: int,
    delay: float,
    image: pb.Image,
    variables: Mapping[str, str],
    mounts: Sequence[pb.Mount],
    capacity_bytes: int,
    target: str = "",
) -> pb.ContainerConfig:
    """A container's config. `image` is what the runtime has under the container's image name.

    `target`: the instance whose processes it sees.
    """
    made = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=container.name, attempt=attempt),
        image=pb.ImageSpec(image=image.id, user_specified_image=container.image),
        command=[env.expand(word, variables) for word in container.command],
        args=[env.expand(word, variables) for word in container.args],
        working_dir=container.working_dir,
        envs=[
            pb.KeyValue(key=key, value=value.encode("utf-8", "surrogateescape"))
            for key, value in variables.items()
        ],
        mounts=mounts,
        labels=labels(pod, container.name),
        annotations={
            observed.DELAY: f"{delay:g}",
            observed.HASH: sync.fingerprint(container),
        },
        log_path=log_path(container.name, attempt),
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        linux=pb.LinuxContainerConfig(
            resources=resources(pod, container, capacity_bytes),
            security_context=security(pod, container, image),
        ),
    )
    if target:
        seen = made.linux.security_context.namespace_options
        seen.pid, seen.target_id = pb.TARGET, target
    return made


def resources(
    pod: pod_pb2.Pod, container: container_pb2.Container, capacity_bytes: int
) -> pb.LinuxContainerResources:
    """Requests and limits, as cgroups have them."""
    requests, limits = container.resources.requests, container.resources.limits
    made = pb.LinuxContainerResources(cpu_shares=LEAST_SHARES)
    asked = requests if "cpu" in requests else limits
    if "cpu" in asked:
        shares = quantity.milli(asked["cpu"].string) * 1024 // 1000
        made.cpu_shares = min(MOST_SHARES, max(LEAST_SHARES, shares))
    if "cpu" in limits and (milli := quantity.milli(limits["cpu"].string)):
        made.cpu_period = PERIOD_MICROSECONDS
        made.cpu_quota = max(LEAST_QUOTA_MICROSECONDS, milli * PERIOD_MICROSECONDS // 1000)
    if "memory" in limits:
        made.memory_limit_in_bytes = quantity.value(limits["memory"].string)
    made.oom_score_adj = oom_score(pod, container, capacity_bytes)
    return made


def oom_score(pod: pod_pb2.Pod, container: container_pb2.Container, capacity_bytes: int) -> int:
    """How soon the machine kills it when memory runs out."""
    match qos(pod):
        case "Guaranteed":
            return -997
        case "BestEffort":
            return 1000
    asked = container.resources.requests
    wanted = quantity.value(asked["memory"].string) if "memory" in asked else 0
    return min(999, max(2, 1000 - 1000 * wanted // max(1, capacity_bytes)))


def qos(pod: pod_pb2.Pod) -> str:
    """Guaranteed, Burstable or BestEffort."""
    if pod.status.qos_class:
        return str(pod.status.qos_class)
    any_set, all_equal = False, True
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        for name in ("cpu", "memory"):
            limit = container.resources.limits[name].string if (
                name in container.resources.limits) else ""  # fmt: skip
            request = container.resources.requests[name].string if (
                name in container.resources.requests) else limit  # fmt: skip
            any_set = any_set or bool(limit or request)
            if not limit or quantity.parse(limit) != quantity.parse(request):
                all_equal = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if all_equal else "Burstable"


def security(
    pod: pod_pb2.Pod, container: container_pb2.Container, image: pb.Image
) -> pb.LinuxContainerSecurityContext:
    """Users, capabilities and what is hidden; the container's own word before the pod's."""
    mine, shared = container.security_context, pod.spec.security_context
    made = pb.LinuxContainerSecurityContext(
        namespace_options=namespaces(pod),
        privileged=mine.privileged,
        readonly_rootfs=mine.read_only_root_filesystem,
        no_new_privs=mine.HasField("allow_privilege_escalation")
        and not mine.allow_privilege_escalation,
        supplemental_groups=[*shared.supplemental_groups],
        capabilities=pb.Capability(
            add_capabilities=mine.capabilities.add, drop_capabilities=mine.capabilities.drop
        ),
    )
    if shared.HasField("fs_group"):
        made.supplemental_groups.append(shared.fs_group)
    for name in ("run_as_user", "run_as_group"):
        for source in (mine, shared):
            if source.HasField(name):
                getattr(made, name).value = getattr(source, name)
                break
    if not made.HasField("run_as_user"):
        # Said outright, so that no later start finds another user in the image.
        if image.HasField("uid"):
            made.run_as_user.value = image.uid.value
        elif image.username:
            made.run_as_username = image.username
        elif made.HasField("run_as_group"):
            made.run_as_user.value = 0
    if not mine.privileged:
        made.masked_paths.extend(MASKED)
        made.readonly_paths.extend(READONLY)
        made.seccomp.CopyFrom(_seccomp(pod, container))
    return made


def _seccomp(pod: pod_pb2.Pod, container: container_pb2.Container) -> pb.SecurityProfile:
    profile = (
        container.security_context.seccomp_profile
        if container.security_context.HasField("seccomp_profile")
        else pod.spec.security_context.seccomp_profile
    )
    match profile.type:
        case "Unconfined":
            return pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)
        case "Localhost":
            return pb.SecurityProfile(
                profile_type=pb.SecurityProfile.Localhost, localhost_ref=profile.localhost_profile
            )
    return pb.SecurityProfile(profile_type=pb.SecurityProfile.RuntimeDefault)
