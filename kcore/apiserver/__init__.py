"""apiserver: the kernel's gRPC face.

Who calls (`identity`), what they may (`authorize`), the five verbs for one caller (`session`), the
typed services (`typed`), streams to pods (`broker`, `streams`), reflection, health, metrics, and
the listeners that all of it stands behind (`serve`, `run`). It knows the few kinds that permission
and streams are about; it stores nothing and decides nothing about objects.
"""
