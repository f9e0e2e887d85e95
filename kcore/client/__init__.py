"""Talking to an API: channels, kinds, the codec between messages and plain values, manifests.

Knows descriptors and the five verbs; no kind by name, no server's inside, no command line.
"""
