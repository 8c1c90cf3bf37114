"""Images: what they are called, what they are made of, and every way in and out.

An image is its configuration (the configuration's digest is the image's id), a list of layers, and any number of names.
Blobs are kept as they came in the content store; layers are unpacked once, whoever shares them.
"""

from wherry.images.auth import RegistryAuth
from wherry.images.endpoints import RegistryConfig
from wherry.images.image import HistoryEntry, Image, InUse, Layer, Removed, Use, unix_seconds
from wherry.images.images import Images
from wherry.images.progress import Progress

__all__ = [
    "HistoryEntry",
    "Image",
    "Images",
    "InUse",
    "Layer",
    "Progress",
    "RegistryAuth",
    "RegistryConfig",
    "Removed",
    "Use",
    "unix_seconds",
]
