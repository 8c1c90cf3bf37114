"""Programs of our own, assembled: what must run where no interpreter can be (PID 1 of a container, a probe's start).

Each is written once in the few instructions of assembly.py and becomes an ELF file in memory, never one on disk.
"""
