import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig_writers import entries, random_rig

from mouse_facelift.capture.pickles import load_pickle
from mouse_facelift.errors import CalibrationError, DataError


def save(path, content, protocol=3):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_read(tmp_path, protocol):
    stored = entries(random_rig())
    loaded = load_pickle(save(tmp_path / "new_cam.pkl", stored, protocol))
    for camera, expected in zip(loaded, stored, strict=True):
        for key in "KRT":
            np.testing.assert_array_equal(camera[key], expected[key])


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_named_and_never_run(tmp_path, protocol):
    path = save(tmp_path / "new_cam.pkl", [*entries(random_rig()), Payload(tmp_path / "ran")], protocol)
    with pytest.raises(CalibrationError, match=r"new_cam\.pkl: names '(builtins|__builtin__)\.exec'"):
        load_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["os\nsystem", "numpy\nload", "numpy.core.multiarray\nfromfile"])
def test_no_other_function_can_be_reached(tmp_path, name):
    path = tmp_path / "new_cam.pkl"
    path.write_bytes(f"c{name}\n(S'x'\ntR.".encode())
    with pytest.raises(CalibrationError, match="could run code"):
        load_pickle(path)


@given(
    cut=st.integers(0, 2000), flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), max_size=4)
)
@settings(max_examples=150, deadline=None)
def test_damaged_pickles_never_crash(tmp_path_factory, cut, flips):
    content = bytearray(pickle.dumps(entries(random_rig(count=4)), protocol=3))
    for position, change in flips:
        content[position % len(content)] ^= change
    path = tmp_path_factory.mktemp("damaged") / "new_cam.pkl"
    path.write_bytes(content[: max(1, len(content) - cut % len(content))])
    try:
        load_pickle(path)
    except CalibrationError as error:
        assert str(path) in str(error)


def test_the_caller_says_what_it_expected(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read.*Expected key points") as caught:
        load_pickle(tmp_path / "result_view_0.pkl", "key points", DataError)
    assert not isinstance(caught.value, CalibrationError)
