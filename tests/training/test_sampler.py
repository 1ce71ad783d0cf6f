from collections import Counter

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.training.sampler import BLOCK, StepSampler, step_generator


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


parts_of = st.lists(st.tuples(st.integers(1, 9), st.floats(0.05, 1)), min_size=2, max_size=4)


def mixed(parts: list[tuple[int, float]], passes: int, position: int = 0, **more: int) -> list[list[int]]:
    total = sum(weight for _, weight in parts)
    shares = [(size, weight / total) for size, weight in parts]
    size = sum(count for count, _ in parts)
    more = {"batch_size": 1, **more}
    return list(StepSampler(size, passes=passes, position=position, parts=shares, **more))


@given(parts=parts_of, seed=st.integers(0, 3), blocks=st.integers(1, 4))
def test_parts_get_their_shares_of_every_block(
    parts: list[tuple[int, float]], seed: int, blocks: int
) -> None:
    drawn = np.array(mixed(parts, blocks * BLOCK, seed=seed)).reshape(blocks, BLOCK)
    edges = np.cumsum([0, *(size for size, _ in parts)])
    total = sum(weight for _, weight in parts)
    for first, end, (_, weight) in zip(edges, edges[1:], parts, strict=False):
        counts = ((drawn >= first) & (drawn < end)).sum(axis=1)
        assert np.abs(counts - BLOCK * weight / total).max() < 1 + 1e-6


@given(parts=parts_of, seed=st.integers(0, 3))
def test_every_part_has_epochs_of_its_own(parts: list[tuple[int, float]], seed: int) -> None:
    drawn = np.array(mixed(parts, 2 * BLOCK, seed=seed))[:, 0]
    first = 0
    for size, _ in parts:
        own = [sample - first for sample in drawn if first <= sample < first + size]
        for epoch in range(0, len(own) - size + 1, size):
            assert sorted(own[epoch : epoch + size]) == list(range(size))
        first += size


@given(
    parts=parts_of,
    cut=st.integers(0, 300),
    world=st.integers(1, 3),
    batch=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_mixed_order_does_not_depend_on_where_it_is_entered_nor_on_who_deals(
    parts: list[tuple[int, float]], cut: int, world: int, batch: int, seed: int
) -> None:
    whole = [sample for (sample,) in mixed(parts, cut + 4 * world * batch, seed=seed)]
    ranks = [
        mixed(parts, 4, cut, seed=seed, rank=rank, world=world, batch_size=batch) for rank in range(world)
    ]
    dealt_out = [sample for number in range(4) for rank in ranks for sample in rank[number]]
    assert dealt_out == whole[cut:]


def test_one_part_is_the_order_without_parts() -> None:
    assert list(StepSampler(7, 2, 20, parts=[(7, 1.0)])) == list(StepSampler(7, 2, 20))


def test_turns_of_parts_are_shuffled_differently_in_every_block_and_with_every_seed() -> None:
    one, other = (np.array(mixed([(1, 1), (1, 1)], 2 * BLOCK, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one[:BLOCK], one[BLOCK:])
    assert not np.array_equal(one, other)
