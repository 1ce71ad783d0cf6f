import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mouse_facelift.preprocess.mask_store import pack_mask, unpack_mask


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_any_mask_comes_back(mask):
    height, width = mask.shape
    assert np.array_equal(unpack_mask(pack_mask(mask), width, height), mask)


def test_large_picture_with_small_animal_is_small():
    mask = np.zeros((1024, 1152), bool)
    rows, columns = np.mgrid[:1024, :1152]
    mask[(rows - 500) ** 2 + (columns - 600) ** 2 < 150**2] = True
    assert len(pack_mask(mask)) < 4000
