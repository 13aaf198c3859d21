"""Photo files: read into upright pixels, written so that nothing but the pixels changes.

Colour is carried: pixels are the file's own encoded values and its RGB or grey profile goes into the result (why:
`core.colour`); CMYK and Lab become sRGB. EXIF orientation is applied once, while reading, and reset. Alpha passes
unchanged; colours under fully transparent pixels are replaced by the nearest visible ones. An Ultra HDR gain map is
carried from JPEG to JPEG. Whatever cannot be kept becomes a notice: of `Photo.notices` when reading, returned by
`write` when writing. Decoding and encoding live in `core.formats`.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

from .errors import PhotoError, PhotoReadError, PhotoTooLargeError, PhotoWriteError, UsageError
from .files import atomic_output, failure_reason
from .formats import decoding, encoding, exif, heif, jpeg, png, signatures, tiff, transparency
from .photo import GainMap, Photo, interleaved

__all__ = ["DEFAULT_MAX_PIXELS", "FORMATS", "READABLE", "WRITABLE", "GainMap", "Photo", "is_photo", "read", "write"]

DEFAULT_MAX_PIXELS = 256_000_000
"""
