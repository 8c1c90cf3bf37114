"""Log drivers that deliver to somewhere else, run by the shipper (wherry.logs.shipper), a thread for each container.

A driver is made from a container's `info` and options, already checked; its modules are imported when it is first used.
"""
