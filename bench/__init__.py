"""Benchmarks: each figure beside its floor or peer, measured in the same run.

`python -m bench [name …]` prints the table of bench/README.md.
"""
