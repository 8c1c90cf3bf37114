"""The image builder: a Dockerfile becomes a graph of steps, the graph is solved, the result is an image.

dockerfile/   the language: text to stages of instructions; expansion, checks
ignore        .dockerignore
plan          stages, arguments and a target to a graph of steps
solver        the graph to snapshots: cache, concurrency
"""
