"""Containers' output: the logger process that takes it, its client, and the readers of what it wrote.

`wherry.logs.client`: Logger, Streams, spawn.   `wherry.logs.target`: LogTarget, check_options.
`wherry.logs.reader`: read_log, LogRecord.      `wherry.logs.frame`: frame.
Nothing is imported here: the logger process itself must stay small.
"""
