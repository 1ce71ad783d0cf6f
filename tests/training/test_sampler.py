from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.training.sampler import StepSampler, spread_evenly, step_generator


@given(
    size=st.integers(1, 13),
    batch=st.integers(1, 5),
    passes=st.integers(1, 20),
    start=st.integers(0, 20),
    world=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_resumed_order_is_the_rest_of_the_undisturbed_one(
    size: int, batch: int, passes: int, start: int, world: int, seed: int
) -> None:
    start = min(start, passes)
    for rank in range(world):
        whole = list(StepSampler(size, batch, passes, 0, seed, rank, world))
        seen = start * batch * world
        assert list(StepSampler(size, batch, passes - start, seen, seed, rank, world)) == whole[start:]
        assert len(whole) == passes


def dealt(size: int, batch: int, passes: int, position: int, world: int) -> list[int]:
    """What all ranks see, in the order of the endless sequence."""
    ranks = [
        list(StepSampler(size, batch, passes, position, rank=rank, world=world)) for rank in range(world)
    ]
    return [sample for number in range(passes) for rank in ranks for sample in rank[number]]


@given(
    size=st.integers(1, 13),
    parts=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 6)), max_size=4),
)
def test_every_epoch_holds_every_sample_once_however_often_world_and_batch_change(
    size: int, parts: list[tuple[int, int, int]]
) -> None:
    seen: list[int] = []
    for world, batch, passes in parts:
        seen += dealt(size, batch, passes, len(seen), world)
    seen += dealt(size, 1, -len(seen) % size, len(seen), 1)
    for epoch in range(0, len(seen), size):
        assert sorted(seen[epoch : epoch + size]) == list(range(size))


@given(size=st.integers(1, 13), world=st.integers(1, 4), seed=st.integers(0, 3))
def test_every_epoch_holds_every_sample_once_over_all_ranks(size: int, world: int, seed: int) -> None:
    ranks = [list(StepSampler(size, 1, size, seed=seed, rank=rank, world=world)) for rank in range(world)]
    in_order = [ranks[rank][number][0] for number in range(size) for rank in range(world)]
    first_epoch = in_order[:size]
    assert Counter(first_epoch) == Counter(range(size))


def test_epochs_are_shuffled_differently() -> None:
    order = [batch[0] for batch in StepSampler(20, 1, 40)]
    assert order[:20] != order[20:]
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20))


def test_generators_differ_by_step_micro_step_and_rank() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = {float(torch.rand((), generator=step_generator(7, *key))) for key in keys}
    assert len(draws) == 4
    again = torch.rand((), generator=step_generator(7, 1, 0, 0))
    assert float(again) in draws


def test_spread_indices_are_even_and_never_more_than_there_are() -> None:
    assert spread_evenly(6, 4) == [0, 1, 3, 4]
    assert spread_evenly(6, 3) == [0, 2, 4]
    assert spread_evenly(3, 5) == [0, 1, 2]
