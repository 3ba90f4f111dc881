"""Arithmetic on temporal segments: tensors that end in (start, end), in any one unit."""

from torch import Tensor


def pairwise_iou(segments: Tensor, others: Tensor) -> Tensor:
    """Temporal intersection over union of every pair, 0..1; 0 where both have no length.

    The Jaccard index of two intervals, as in the ActivityNet toolkit. Symmetric to the bit.

    Shapes: `segments` [..., N, 2] and `others` [..., G, 2] in one unit -> [..., N, G].

    Raises:
        ValueError: a tensor that does not end in (start, end) or is not floating point.
    """
    intersection = _pairwise_intersection(segments, others)
    union = _lengths(segments)[..., :, None] + _lengths(others)[..., None, :] - intersection
    return _ratio(intersection, union)


def intersection_over_segment(segments: Tensor, others: Tensor) -> Tensor:
    """The share of each of `segments` that each of `others` covers; 0 for a segment without length.

    The overlap ratio IoR of the BMN paper (Lin et al., 2019), with `segments` as the regions.

    Shapes: `segments` [..., N, 2] and `others` [..., G, 2] in one unit -> [..., N, G].

    Raises:
        ValueError: a tensor that does not end in (start, end) or is not floating point.
    """
    intersection = _pairwise_intersection(segments, others)
    return _ratio(intersection, _lengths(segments)[..., :, None].expand_as(intersection))


def clip_segments(segments: Tensor, *, low: float, high: float) -> Tensor:
    """Move both ends of segments [..., 2] into low..high, which are in the segments' unit.

    Raises:
        ValueError: a tensor that does not end in (start, end) or is not floating point, or `low`
            above `high`.
    """
    _check_segments("segments", segments)
    if not low <= high:
        raise ValueError(f"low must not be above high, got low={low} and high={high}")
    return segments.clamp(min=low, max=high)


def _pairwise_intersection(segments: Tensor, others: Tensor) -> Tensor:
    _check_segments("segments", segments)
    _check_segments("others", others)
    start = segments[..., :, None, 0].maximum(others[..., None, :, 0])
    end = segments[..., :, None, 1].minimum(others[..., None, :, 1])
    return (end - start).clamp(min=0)


def _lengths(segments: Tensor) -> Tensor:
    return segments[..., 1] - segments[..., 0]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, 0 where `whole` is not positive, with finite gradients there too."""
    positive = whole > 0
    return (part / whole.where(positive, whole.new_ones(()))).where(positive, part.new_zeros(()))


def _check_segments(name: str, segments: Tensor) -> None:
    if segments.ndim < 1 or segments.shape[-1] != 2:
        raise ValueError(
            f"{name} must end in a dimension of (start, end), got shape {list(segments.shape)}"
        )
    if not segments.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {segments.dtype}")
