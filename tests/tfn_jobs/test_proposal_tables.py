import pickle

import pytest
import torch

from tfn_jobs.proposal_tables import VideoProposals, proposal_rows, proposals_of, ranked_for
from tfn_platform.tables import PROPOSALS


def proposals(*rows: tuple[float, float, float]) -> VideoProposals:
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    return VideoProposals(values[:, :2], values[:, 2])


FIRST = {
    "b": proposals((1.0, 2.0, 0.1), (0.5, 9.0, 0.9), (3.0, 4.0, 0.1)),
    "a": proposals((0.25, 1 / 3, 1e-9)),
    "none": proposals(),
}
SECOND = {"a": proposals((7.0, 8.0, 0.5), (6.0, 8.0, 0.5))}


def test_round_trip_keeps_values_and_order() -> None:
    table = proposal_rows({"first": FIRST, "second": SECOND})
    assert table.schema.equals(PROPOSALS.schema)
    assert table["rank"].to_pylist() == [0, 1, 2, 0, 0, 1]
    # However the rows of a file lie.
    for rows in (table, table.take(list(range(table.num_rows))[::-1])):
        for member, expected in (("first", FIRST), ("second", SECOND)):
            found = proposals_of(rows, member)
            # A video without proposals leaves no row.
            assert sorted(found) == sorted(set(expected) - {"none"})
            for name, own in found.items():
                assert torch.equal(own.segments, expected[name].segments)
                assert torch.equal(own.scores, expected[name].scores)


@pytest.mark.parametrize("by_member", [{}, {"one": {}}, {"one": {"a": proposals()}}])
def test_nothing_gives_an_empty_table(by_member: dict[str, dict[str, VideoProposals]]) -> None:
    table = proposal_rows(by_member)
    assert table.num_rows == 0 and table.schema.equals(PROPOSALS.schema)
    assert proposals_of(table, "one") == {}


def test_rankings_have_their_own_names() -> None:
    assert ranked_for("d32", "recall") != ranked_for("d32", "detection")


def test_segments_need_scores() -> None:
    with pytest.raises(ValueError, match="segments"):
        VideoProposals(torch.zeros(3, 2), torch.zeros(2))


def test_one_video_is_pickled_without_the_others() -> None:
    """As views of one tensor, each video's proposals carried the values of all of them."""
    many = {f"v{number}": proposals((1.0, 2.0, 0.5)) for number in range(1000)}
    one = proposals_of(proposal_rows({"one": many}), "one")["v0"]
    assert len(pickle.dumps(one)) < 1.5 * len(pickle.dumps(many["v0"]))
