from collections.abc import Iterator

import pytest

from mouse_facelift.errors import DataError
from mouse_facelift.inference.run import batches


def test_batches_before_an_error_come_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise DataError("the sixth")

    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    made = []
    with pytest.raises(DataError, match="the sixth"):
        for batch in batches(items(), 2):
            made.append(batch)
    assert made == [[0, 1], [2, 3], [4]]
