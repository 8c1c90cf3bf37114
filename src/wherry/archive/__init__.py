"""Tar streams to and from directory trees, through directory descriptors, never leaving the root they are given."""

from wherry.archive._blocks import Readable
from wherry.archive._copy import copy_tree
from wherry.archive._entry import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry
from wherry.archive._ids import Ids
from wherry.archive._options import UnpackOptions, UnpackResult, Whiteouts
from wherry.archive._pack import PackOptions, pack
from wherry.archive._path import PathStat, read_file, stat
from wherry.archive._reader import TarReader
from wherry.archive._unpack import unpack
from wherry.archive._walk import Directory, open_directory, tree_size, walk
from wherry.archive._writer import Writable
from wherry.kernel.removal import remove_tree

__all__ = [
    "DIRECTORY",
    "HARD_LINK",
    "REGULAR",
    "SYMLINK",
    "Directory",
    "Entry",
    "Ids",
    "PackOptions",
    "PathStat",
    "Readable",
    "TarReader",
    "UnpackOptions",
    "UnpackResult",
    "Whiteouts",
    "Writable",
    "copy_tree",
    "open_directory",
    "pack",
    "read_file",
    "remove_tree",
    "stat",
    "tree_size",
    "unpack",
    "walk",
]
