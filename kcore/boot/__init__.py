"""boot: what has to be on a machine before kcore's rooms can run, and how it is taken away.

Certificates, images, a container runtime, directories, the parent of kcore's processes. It makes
files and starts processes; it knows no object and speaks to no apiserver.
"""
