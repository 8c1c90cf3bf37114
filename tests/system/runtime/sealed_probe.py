"""Run by test_escapes.py under a copy of the interpreter: starts one container and ends.

sealed_probe.py bare|mount|memory ROOT ID BUNDLE
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../src"))

from wherry.kernel import mounts
from wherry.runtime import sealed
from wherry.runtime.container import Runtime
from wherry.runtime.launch import drive

how, root, identifier, bundle = sys.argv[1:]
if how != "bare" and not sealed.is_sealed():
    if how == "memory":

        def refuse(*arguments: object, **more: object) -> int:
            raise OSError

        mounts.open_tree = refuse
    sealed.execute(sys.orig_argv[1:])
drive(Runtime(root).run(identifier, bundle, (), (-1, 1, 2)))
