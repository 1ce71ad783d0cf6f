import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.samples.packing import pack, unpack


@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1, max_size=3),
    ground=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_unpacking_gives_back_every_bit(
    boxes: list[tuple[int, int, int, int]], ground: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pictures = np.full((len(boxes), 4, 9, 9), ground, np.uint8)
    for picture, (top, left, bottom, right) in zip(pictures, boxes, strict=True):
        part = picture[:, top:bottom, left:right]
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    assert np.array_equal(unpack(pack(pictures)), pictures)


def test_only_the_animal_takes_space() -> None:
    pictures = np.full((2, 4, 64, 64), 255, np.uint8)
    pictures[:, 3] = 0
    pictures[0, 3, 10:14, 20:30] = 200
    pictures[1, 0, 63, 63] = 254
    packed = pack(pictures)
    assert packed.boxes.tolist() == [[10, 20, 4, 10], [63, 63, 1, 1]]
    assert packed.outside.tolist() == [[255, 255, 255, 0]] * 2
    assert packed.pixels.nbytes == 4 * (4 * 10 + 1)
    assert np.array_equal(unpack(packed), pictures)


def test_picture_of_one_colour_takes_none() -> None:
    pictures = np.full((1, 4, 8, 8), 7, np.uint8)
    assert pack(pictures).pixels.size == 0
    assert np.array_equal(unpack(pack(pictures)), pictures)
