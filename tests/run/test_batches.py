"""All processes together train on what a single process would."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pri3d.config import Pretrain, Semseg
from pri3d.errors import Pri3DError
from pri3d.run.batches import order_of_rank


@given(
    micro=st.integers(1, 5),
    each=st.integers(1, 4),
    ranks=st.integers(1, 6),
    start=st.integers(0, 7),
    default=st.booleans(),
)
def test_all_ranks_together_see_what_one_process_sees(micro, each, ranks, start, default):
    batch = micro * each * ranks
    divided = Pretrain(batch=batch, micro_batch=None if default else micro)

    def order(rank, ranks):
        return list(order_of_rank(divided, "pretrain", start, 7, rank, ranks))

    single = order(0, 1)
    assert list(chain(*single)) == list(range(start * batch, 7 * batch))
    parts = [order(rank, ranks) for rank in range(ranks)]
    size = batch // ranks if default else micro
    assert {len(items) for part in parts for items in part} <= {size}
    # One micro-batch of each rank in turn is the order of a single process.
    in_turn = list(chain(*zip(*parts, strict=True)))
    assert list(chain(*in_turn)) == list(chain(*single))
    if not default:
        assert in_turn == single


@pytest.mark.parametrize(
    ("batch", "micro", "ranks"), [(8, 3, 1), (8, 2, 3), (8, None, 3), (2, None, 4)]
)
def test_a_batch_that_cannot_be_divided_is_refused(batch, micro, ranks):
    with pytest.raises(
        Pri3DError, match=f"semseg.batch: {batch} samples cannot be divided evenly among {ranks}"
    ):
        order_of_rank(Semseg(batch=batch, micro_batch=micro), "semseg", 0, 7, 0, ranks)
