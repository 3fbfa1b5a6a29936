"""The order of samples: every record exactly once an epoch, whoever reads it and however it is cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.stream.order import permutation, records_at

seeds = st.integers(0, 2**63 - 1)


@given(seed=seeds, n=st.integers(1, 40), epoch=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_epoch_reads_every_record_exactly_once(seed, n, epoch):
    assert sorted(records_at(seed, "task", n, epoch * n, n)) == list(range(n))


@given(seed=seeds, n=st.integers(1, 20), start=st.integers(0, 100), cuts=st.lists(st.integers(1, 15), max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_stretch_read_in_pieces_is_the_stretch_read_at_once(seed, n, start, cuts):
    pieces, at = [], start
    for count in cuts:
        pieces += records_at(seed, "task", n, at, count)
        at += count
    assert pieces == records_at(seed, "task", n, start, sum(cuts))


@given(n=st.integers(2, 30), batch=st.sampled_from([6, 12]), steps=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_ranks_and_micro_steps_share_out_the_same_stretch(n, batch, steps):
    for parts in (1, 2, 3, 6):
        own = batch // parts
        read = [
            number
            for step in range(steps)
            for part in range(parts)
            for number in records_at(0, "task", n, step * batch + part * own, own)
        ]
        assert read == records_at(0, "task", n, 0, steps * batch)


def test_epochs_tasks_and_seeds_have_orders_of_their_own():
    base = permutation(0, "a", 0, 50).tolist()
    others = [permutation(0, "a", 1, 50), permutation(0, "b", 0, 50), permutation(1, "a", 0, 50)]
    assert all(other.tolist() != base for other in others)
    assert permutation(0, "a", 0, 50).tolist() == base
