"""The command line: verbs for people, blind to kinds.

Data goes to stdout, talk to stderr; plain lines where no terminal is; errors say what to do next.
Knows the Api and the catalogue of kinds; no server's inside.
"""
