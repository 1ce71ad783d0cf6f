"""What libraries raise on damaged files, besides what they document."""

import struct
import zlib

from PIL import Image

DAMAGED_PICTURE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Pillow, on opening or decoding; a file that is not there is among them."""
