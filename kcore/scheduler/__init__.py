"""The scheduler: pods x nodes -> node names, with reasons.

`demand` reads off a pod what it asks of a node, `node` reads off a node what a scheduler must know
of it, `model` keeps all nodes as arrays and what the pods on them take, `fit` says where a pod may
run and why not elsewhere, `score` where it would run best, `plan` decides for all pending pods at
once and is pure, `pending` keeps the pods that wait and knows what each waits for, `run` follows
the API, plans and binds. It sees only pods and nodes; how pods come to be it must not know.
"""
