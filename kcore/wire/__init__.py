"""What all rooms share of the wire: the Api, its errors, selectors and scalars.

Pure. Knows protobuf and the five verbs; no kind, no transport, no store.
"""
