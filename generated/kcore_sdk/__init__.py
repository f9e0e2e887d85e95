"""The API as dataclasses: kcore_sdk.kcore.core.v1.Pod, …. Generated, never edited.

Their to_json does not know Kubernetes' names (podIP): for YAML and JSON pass their bytes through
kcore.client.codec.
"""
