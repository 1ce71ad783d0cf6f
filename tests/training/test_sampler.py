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
    seed=st.integers(0, 3),
)
def test_resumed_order_is_the_rest_of_the_undisturbed_one(
    size: int, batch: int, passes: int, start: int, seed: int
) -> None:
    whole = list(StepSampler(size, batch, passes, seed=seed))
    assert list(StepSampler(size, batch, passes, start, seed)) == whole[start:]
    assert len(whole) == passes


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
