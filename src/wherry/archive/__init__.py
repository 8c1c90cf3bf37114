"""Tar streams to and from directory trees, through directory descriptors, never leaving the root they are given."""

from wherry.archive._blocks import Readable
from wherry.archive._entry import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry
from wherry.archive._options import UnpackOptions, UnpackResult, Whiteouts
from wherry.archive._reader import TarReader
from wherry.archive._removal import remove_tree
from wherry.archive._unpack import unpack
from wherry.archive._walk import Directory, open_directory, tree_size, walk

__all__ = [
    "DIRECTORY",
    "HARD_LINK",
    "REGULAR",
    "SYMLINK",
    "Directory",
    "Entry",
    "Readable",
    "TarReader",
    "UnpackOptions",
    "UnpackResult",
    "Whiteouts",
    "open_directory",
    "remove_tree",
    "tree_size",
    "unpack",
    "walk",
]
