"""Targets against loops over cells and actions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.bmn.targets import BoundaryGrid, bmn_targets
from tfn_models.boundary_maps import unpack_valid_cells, valid_windows
from tfn_models.segments import pairwise_iou


def loop_iou(segments: Tensor, num_bins: int) -> Tensor:
    iou = torch.zeros(num_bins, num_bins)
    for duration in range(num_bins):
        for start in range(num_bins - duration):
            low, high = start / num_bins, (start + duration + 1) / num_bins
            for first, last in segments.tolist():
                both = max(0.0, min(high, last) - max(low, first))
                union = (high - low) + (last - first) - both
                iou[duration, start] = max(iou[duration, start].item(), both / union)
    return iou


def loop_boundary(instants: list[float], num_bins: int, width_bins: float, offset: float) -> Tensor:
    target = torch.zeros(num_bins)
    for index in range(num_bins):
        low, high = index + offset - 0.5, index + offset + 0.5
        for instant in instants:
            first, last = instant * num_bins - width_bins / 2, instant * num_bins + width_bins / 2
            share = max(0.0, min(high, last) - max(low, first)) / (high - low)
            target[index] = max(target[index].item(), share)
    return target


segments_strategy = st.lists(
    st.tuples(st.floats(0, 0.98), st.floats(0.01, 1)).map(
        lambda pair: (pair[0], min(1.0, pair[0] + pair[1]))
    ),
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(
    videos=st.lists(segments_strategy, min_size=1, max_size=3),
    num_bins=st.integers(2, 12),
    width=st.sampled_from([0.4, 1.0, 3.0]),
)
def test_equals_loops(videos: list[list[tuple[float, float]]], num_bins: int, width: float) -> None:
    segments = [torch.tensor(v, dtype=torch.float64).reshape(-1, 2) for v in videos]
    targets = bmn_targets(segments, num_bins=num_bins, boundary_width_bins=width)
    for index, video in enumerate(segments):
        starts, ends = video[:, 0].tolist(), video[:, 1].tolist()
        expected = (
            loop_boundary(starts, num_bins, width, 0),
            loop_boundary(ends, num_bins, width, 1),
            loop_iou(video, num_bins),
        )
        got = (targets.start[index], targets.end[index], targets.iou[index])
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def batched_over_windows(segments: list[Tensor], num_bins: int, width: float) -> list[Tensor]:
    """The plain tensor form: tables of all bins or windows by all actions of a video."""

    def boundary(instants: Tensor, boundaries: Tensor) -> Tensor:
        distance = (instants.unsqueeze(1) - boundaries).abs()
        overlap = ((1 + width) / 2 - distance).clamp(min=0, max=min(1.0, width))
        return torch.cat([overlap, torch.zeros(len(instants), 1)], dim=1).amax(dim=1)

    bins = torch.arange(num_bins, dtype=torch.float64)
    starts, ends, ious = [], [], []
    for video in segments:
        video = video.double()
        starts.append(boundary(bins, video[:, 0] * num_bins))
        ends.append(boundary(bins + 1, video[:, 1] * num_bins))
        iou = pairwise_iou(valid_windows(num_bins), video)
        ious.append(torch.cat([iou, torch.zeros(len(iou), 1)], dim=1).amax(dim=1))
    return [
        torch.stack(starts).float(),
        torch.stack(ends).float(),
        unpack_valid_cells(torch.stack(ious).float()),
    ]


@settings(max_examples=60, deadline=None)
@given(
    videos=st.lists(segments_strategy, min_size=1, max_size=4),
    num_bins=st.integers(1, 40),
    width=st.sampled_from([0.4, 1.0, 3.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_working_in_place_changes_no_bit(
    videos: list[list[tuple[float, float]]], num_bins: int, width: float, dtype: torch.dtype
) -> None:
    segments = [torch.tensor(v, dtype=dtype).reshape(-1, 2) for v in videos]
    targets = bmn_targets(segments, num_bins=num_bins, boundary_width_bins=width)
    expected = batched_over_windows(segments, num_bins, width)
    for got, other in zip((targets.start, targets.end, targets.iou), expected, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, other)


@settings(max_examples=25, deadline=None)
@given(
    videos=st.lists(segments_strategy, min_size=1, max_size=3),
    num_bins=st.integers(2, 12),
    grid=st.sampled_from([("bin_starts", 0.0), ("bin_middles", 0.5)]),
)
def test_one_grid_for_starts_and_ends(
    videos: list[list[tuple[float, float]]], num_bins: int, grid: tuple[BoundaryGrid, float]
) -> None:
    segments = [torch.tensor(v, dtype=torch.float64).reshape(-1, 2) for v in videos]
    name, offset = grid
    targets = bmn_targets(segments, num_bins=num_bins, boundary_grid=name)
    for index, video in enumerate(segments):
        for got, edge in ((targets.start[index], 0), (targets.end[index], 1)):
            expected = loop_boundary(video[:, edge].tolist(), num_bins, 3.0, offset)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert torch.equal(targets.iou, bmn_targets(segments, num_bins=num_bins).iou)


def test_an_action_on_the_grid_worked_by_hand() -> None:
    """Bins 2 .. 4 of ten: start bin 2, end bin 4, duration index 2."""
    targets = bmn_targets([torch.tensor([[0.2, 0.5]])], num_bins=10, boundary_width_bins=1.0)
    torch.testing.assert_close(targets.start[0].argmax(), torch.tensor(2))
    assert targets.start[0, 2].item() == pytest.approx(1)
    assert targets.start[0].sum().item() == pytest.approx(1, abs=1e-5)
    assert targets.end[0, 4].item() == pytest.approx(1)
    assert targets.iou[0, 2, 2].item() == pytest.approx(1)
    assert targets.iou[0, 3, 2].item() == pytest.approx(3 / 4)
    assert targets.iou[0, 9, 5].item() == 0


def test_where_an_action_ends_on_each_grid() -> None:
    """The action ends at instant 5: the end of bin 4, the start of bin 5, no bin's middle."""
    action = [torch.tensor([[0.2, 0.5]], dtype=torch.float64)]
    ends = [
        bmn_targets(action, num_bins=10, boundary_width_bins=1.0, boundary_grid=grid).end[0]
        for grid in ("window_edges", "bin_starts", "bin_middles")
    ]
    torch.testing.assert_close(ends[0], torch.eye(10)[4])
    torch.testing.assert_close(ends[1], torch.eye(10)[5])
    torch.testing.assert_close(ends[2], (torch.eye(10)[4] + torch.eye(10)[5]) / 2)


def test_a_video_without_actions_gets_zeros() -> None:
    targets = bmn_targets([torch.zeros(0, 2)], num_bins=5)
    assert not targets.start.any()
    assert not targets.end.any()
    assert not targets.iou.any()


def test_refuses_wrong_segments() -> None:
    with pytest.raises(ValueError, match="start before end"):
        bmn_targets([torch.tensor([[0.5, 0.5]])], num_bins=4)
    with pytest.raises(ValueError, match="must be finite"):
        bmn_targets([torch.tensor([[0.5, float("nan")]])], num_bins=4)
    with pytest.raises(ValueError, match=r"\[G, 2\], got shape \(2,\)"):
        bmn_targets([torch.tensor([0.1, 0.5])], num_bins=4)
    with pytest.raises(ValueError, match="at least one video"):
        bmn_targets([], num_bins=4)
    with pytest.raises(ValueError, match="one of window_edges, bin_starts, bin_middles, got 'x'"):
        bmn_targets([torch.zeros(0, 2)], num_bins=4, boundary_grid="x")
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        bmn_targets([torch.zeros(0, 2)], num_bins=0)
    with pytest.raises(ValueError, match="boundary_width_bins must be positive, got 0"):
        bmn_targets([torch.zeros(0, 2)], num_bins=4, boundary_width_bins=0)
