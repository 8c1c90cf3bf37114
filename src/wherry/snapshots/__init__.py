"""Layers to root file systems: overlayfs first, plain copies elsewhere. `Snapshotter` is the contract."""

from wherry.snapshots._contract import Change, ChangeKind, Snapshotter
from wherry.snapshots._native import NativeSnapshotter
from wherry.snapshots._overlay import OverlaySnapshotter

__all__ = ["Change", "ChangeKind", "NativeSnapshotter", "OverlaySnapshotter", "Snapshotter"]
