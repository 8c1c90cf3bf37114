"""Tar streams to and from directory trees, through directory descriptors, never leaving the root they are given."""

from wherry.archive._blocks import Readable
from wherry.archive._options import UnpackOptions, UnpackResult, Whiteouts
from wherry.archive._removal import remove_tree
from wherry.archive._unpack import unpack

__all__ = ["Readable", "UnpackOptions", "UnpackResult", "Whiteouts", "remove_tree", "unpack"]
