"""The daemon process: flags, configuration file, listening sockets, signals."""
