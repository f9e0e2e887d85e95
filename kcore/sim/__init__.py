"""A whole cluster in one process, under virtual time and seeded faults.

`loop` is an event loop on which nothing ever waits, `runtime` a CRI made of data, `link` what lies
between a component and the apiserver, `faults` what goes wrong and how often, `cluster` puts the
real rooms together, `story` is what its user does, `invariants` what must hold at every revision,
`transcript` what happened. One seed decides everything: the same seed gives the same transcript.
`python -m kcore.sim --seed 7` runs one, `make sim` many.
"""
