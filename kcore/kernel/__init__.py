"""The kernel: objects of unknown kind, revisioned.

It learns kinds from descriptors, checks and stores their objects in one log with one writer, and
streams the log's tail. kernel.py is the way in. It knows no kind, no transport and no permission.
"""
