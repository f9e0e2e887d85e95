"""dns: names of services and of their endpoints, as zone files for CoreDNS.

It must not know how what it names is reached: that is the proxy's.
"""
