"""The machinery that controllers stand on: see, decide, commit, wait.

`view` is what is known at one revision, `stream` the watch that feeds it and never ends,
`transaction` builds what a controller wants done, `loop` runs all controllers of a process over one
view, `recorder` tells people what happened, `owner` and `name` say who belongs to whom and what
children are called. It knows how to follow and change objects; what they mean it must not know.
"""
