"""The layout of `.beton` files, version 2, as FFCV 1.0.2 writes them.

Header, field descriptions, one record a sample; from the next whole page on, pages of
image data; at the end one allocation a sample. No image crosses a page.
"""

import numpy as np

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype(
    [("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True
)
FIELDS = [(2, "image"), (1, "label"), (1, "index")]
IMAGE = np.dtype(
    [("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")]
)
JPEG = 0  # of `mode`
SAMPLE = np.dtype([("image", IMAGE), ("label", "<i8"), ("index", "<i8")], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
_MIN_PAGE = 1 << 21


def page_size(side: int) -> int:
    """Bytes of a page of square images: room for two that are not compressed."""
    return max(_MIN_PAGE, 1 << (2 * side**2 * 3 - 1).bit_length())


def data_start(count: int) -> int:
    """Where the image data of `count` samples may start."""
    return HEADER.itemsize + len(FIELDS) * FIELD.itemsize + count * SAMPLE.itemsize
