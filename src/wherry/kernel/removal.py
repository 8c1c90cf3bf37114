"""Removal of a tree by descriptors: no link is followed, and no depth exhausts the stack or the descriptor table."""

import os
import stat

# Beyond this a subtree is first moved up to the top, so the number of open descriptors stays bounded.
_DEPTH = 64
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int, name: bytes | str) -> None:
    """Remove `name` in the directory `parent`, with all below it; absent is no error.

    What another process adds meanwhile makes rmdir fail with ENOTEMPTY; it is retried, then raised.
    """
    base = os.fsencode(name)
    try:
        if not stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(base, dir_fd=parent)
            return
    except FileNotFoundError:
        return
    for attempt in range(3):
        try:
            top = os.open(base, _OPEN, dir_fd=parent)
            try:
                _empty(top)
            finally:
                os.close(top)
            os.rmdir(base, dir_fd=parent)
            return
        except FileNotFoundError:
            return
        except OSError:
            if attempt == 2:
                raise


def _empty(top: int) -> None:
    """Depth first with a stack of (descriptor, its name in its parent, what is left to remove in it)."""
    stack = [(os.dup(top), b"", _unlink_files(top))]
    try:
        while stack:
            directory, name, waiting = stack[-1]
            if not waiting:
                os.close(directory)
                stack.pop()
                if stack:
                    os.rmdir(name, dir_fd=stack[-1][0])
                continue
            deeper = waiting.pop()
            if len(stack) > _DEPTH:
                # The tree's owner must not be able to guess the name and occupy it.
                shallow = os.urandom(16).hex().encode()
                os.rename(deeper, shallow, src_dir_fd=directory, dst_dir_fd=top)
                stack[0][2].append(shallow)
                continue
            fd = os.open(deeper, _OPEN, dir_fd=directory)
            try:
                stack.append((fd, deeper, _unlink_files(fd)))
            except BaseException:
                os.close(fd)
                raise
    finally:
        for directory, _, _ in stack:
            os.close(directory)


def _unlink_files(directory: int) -> list[bytes]:
    """Remove files and empty directories; the names of the directories that are left."""
    left = []
    with os.scandir(directory) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(name, dir_fd=directory)
                continue
            try:
                os.rmdir(name, dir_fd=directory)
            except OSError:
                left.append(name)
    return left
