"""Controllers: what keeps the world as its objects say it should be, one file per behaviour.

Each is a pure function from a view of the objects to transactions; reconcile/ gives them life.
`run` runs all of them. They know kinds and the rules between them, not how pods are run.
"""
