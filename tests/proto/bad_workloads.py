"""What the rules of workloads, budgets and roles refuse: class, text, path and the rule's words."""

# Braces are the text format's own: % is easier to read here.
# ruff: noqa: UP031

from typing import Any

from kcore_api.kcore.apps.v1 import daemon_set_pb2 as daemon_set
from kcore_api.kcore.apps.v1 import stateful_set_pb2 as stateful_set
from kcore_api.kcore.batch.v1 import cron_job_pb2 as cron_job
from kcore_api.kcore.batch.v1 import job_pb2 as job
from kcore_api.kcore.policy.v1 import pod_disruption_budget_pb2 as budget
from kcore_api.kcore.rbac.v1 import role_binding_pb2 as binding
from kcore_api.kcore.rbac.v1 import role_pb2 as role

TEMPLATE = """metadata { labels { key: 'app' value: 'web' } }
  spec { containers { name: 'c' image: 'a' } %s }"""
APP = "selector { match_labels { key: 'app' value: 'web' } } template { %s } " % TEMPLATE
RUNS = "template { spec { containers { name: 'c' } restart_policy: '%s' } } "
INDEXED = "completion_mode: 'Indexed' completions: 2 "
EXITS = (
    "pod_failure_policy { rules { action: '%s' "
    "on_exit_codes { container_name: '%s' operator: 'In' values: 1 } } }"
)
COUNT, PERCENT = "{ int_val: %d }", "{ type: 1 str_val: '%d%%' }"

BAD: list[tuple[Any, str, str, str]] = [
    *(
        row
        for kind in (stateful_set.StatefulSet, daemon_set.DaemonSet)
        for row in [
            (kind, "spec { selector {} template { %s } }" % TEMPLATE % "",
             "spec.selector", "must not be empty"),
            (kind, "spec { selector { match_labels { key: 'a' value: 'b' } } template { %s } }"
             % TEMPLATE % "", "spec.template.metadata.labels", "must match the selector"),
            (kind, "spec { %s }" % APP % "restart_policy: 'Never'",
             "spec.template.spec.restartPolicy", "must be Always"),
            (kind, "spec { %s }" % APP % "active_deadline_seconds: 1",
             "spec.template.spec.activeDeadlineSeconds", "not here"),
        ]
    ),
    (stateful_set.StatefulSet, "spec { %s volume_claim_templates {} }" % APP % "",
     "spec.volumeClaimTemplates", "each needs a name of its own"),
    (stateful_set.StatefulSet, "spec { %s %s }" % (
        APP % "", "volume_claim_templates { metadata { name: 'a' } } " * 2),
     "spec.volumeClaimTemplates", "each needs a name of its own"),
    (stateful_set.StatefulSetUpdateStrategy, "type: 'OnDelete' rolling_update {}",
     "rollingUpdate", "only with type RollingUpdate"),
    *(
        (stateful_set.RollingUpdateStatefulSetStrategy, f"max_unavailable {zero}",
         "maxUnavailable", "may not be 0")
        for zero in (COUNT % 0, PERCENT % 0)
    ),
    (daemon_set.DaemonSetUpdateStrategy, "type: 'OnDelete' rolling_update {}",
     "rollingUpdate", "only with type RollingUpdate"),
    *(
        (daemon_set.RollingUpdateDaemonSet, f"max_unavailable {zero} max_surge {zero}",
         "maxUnavailable", "either maxUnavailable or maxSurge must be more than 0")
        for zero in (COUNT % 0, PERCENT % 0)
    ),
    *(
        (daemon_set.RollingUpdateDaemonSet, f"max_unavailable {one} max_surge {one}",
         "maxSurge", "may not be set when maxUnavailable is not 0")
        for one in (COUNT % 1, PERCENT % 10)
    ),
    (job.Job, "spec { %s manual_selector: true selector { match_labels { key: 'a' value: 'b' } } }"
     % RUNS % "Never", "spec.template.metadata.labels", "must match the selector"),
    (job.JobSpec, RUNS % "Always", "template.spec.restartPolicy", "must be OnFailure or Never"),
    (job.JobSpec, RUNS % "Never" + "completion_mode: 'Indexed'",
     "completions", "required where completionMode is Indexed"),
    *(
        (job.JobSpec, RUNS % "Never" + f"{field}: 1",
         "backoffLimitPerIndex", "only where completionMode is Indexed")
        for field in ("backoff_limit_per_index", "max_failed_indexes")
    ),
    (job.JobSpec, RUNS % "Never" + INDEXED + "max_failed_indexes: 1",
     "maxFailedIndexes", "only with backoffLimitPerIndex"),
    (job.JobSpec, RUNS % "Never" + "success_policy { rules { succeeded_count: 1 } }",
     "successPolicy", "only where completionMode is Indexed"),
    (job.JobSpec, RUNS % "OnFailure" + EXITS % ("Ignore", ""),
     "podFailurePolicy", "only where the template's restartPolicy is Never"),
    (job.JobSpec, RUNS % "Never" + EXITS % ("FailIndex", ""),
     "podFailurePolicy.rules", "action FailIndex needs backoffLimitPerIndex"),
    (job.JobSpec, RUNS % "Never" + EXITS % ("Count", "other"), "podFailurePolicy.rules",
     "onExitCodes.containerName must be one of the template's containers"),
    (job.JobSpec, RUNS % "Never" + EXITS % ("Count", "c")
     + " pod_replacement_policy: 'TerminatingOrFailed'",
     "podReplacementPolicy", "must be Failed with podFailurePolicy"),
    *(
        (job.PodFailurePolicyRule, text, "", "needs either onExitCodes or onPodConditions")
        for text in ("action: 'Count'", "on_exit_codes {} on_pod_conditions {}")
    ),
    (job.PodFailurePolicyOnExitCodesRequirement, "operator: 'In' values: 1 values: 0",
     "values", "0 is no failure"),
    (job.SuccessPolicyRule, "", "", "needs succeededIndexes or succeededCount"),
    (cron_job.CronJob, "metadata { name: '%s' } spec { job_template { spec { %s } } }"
     % ("a" * 53, RUNS % "Never"), "metadata.name", "must be no more than 52 characters"),
    (budget.PodDisruptionBudgetSpec, "min_available { int_val: 1 } max_unavailable { int_val: 1 }",
     "minAvailable", "not together with maxUnavailable"),
    (role.Role, "rules { verbs: 'get' non_resource_urls: '/healthz' }",
     "rules", "nonResourceURLs are for ClusterRoles only"),
    (role.PolicyRule, "verbs: 'get' resources: 'pods'",
     "apiGroups", "resource rules must supply at least one api group"),
    (role.PolicyRule, "verbs: 'get' api_groups: ''",
     "resources", "resource rules must supply at least one resource"),
    (role.PolicyRule, "verbs: 'get' non_resource_urls: '*' resource_names: 'a'",
     "nonResourceURLs", "rules cannot apply to both regular resources and non-resource URLs"),
    *(
        (kind, "subjects { kind: 'ServiceAccount' name: 'a' } role_ref { kind: 'ClusterRole' }",
         "subjects", "a ServiceAccount needs a namespace")
        for kind in (binding.RoleBinding, binding.ClusterRoleBinding)
    ),
    (binding.ClusterRoleBinding, "role_ref { kind: 'Role' name: 'a' }",
     "roleRef.kind", "must be ClusterRole"),
]  # fmt: skip

# Of one job and what it must not become.
JOBS: list[tuple[str, str, tuple[str, str, str]]] = [
    ("completions: 2 parallelism: 2", "completions: 3 parallelism: 2",
     ("kcore.batch.v1.Job", "spec.completions",
      "of an Indexed job only together with parallelism, and to the same number")),
]  # fmt: skip
