"""The Dockerfile language: text to stages of instructions."""

from wherry.build.dockerfile.parse import Dockerfile, Stage, parse
from wherry.build.dockerfile.source import DockerfileError, Source

__all__ = ["Dockerfile", "DockerfileError", "Source", "Stage", "parse"]
