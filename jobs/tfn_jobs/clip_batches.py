"""Which clips share a forward pass of the backbone, in extraction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one forward pass.

    Attributes:
        clips: (number of the chunk, number of the clip in it), copies at the end included.
        num_copies: how many at the end only fill the batch up.
    """

    clips: tuple[tuple[int, int], ...]
    num_copies: int = 0


def best_fit_batches(sizes: Sequence[int], *, batch_clips: int) -> Iterator[ClipBatch]:
    """Batches that never join chunks: full ones, then the largest powers of two that fit.

    A chunk holds whole batches of its video but for the video's last one, so which clips share a
    batch follows from the video alone.

    Args:
        sizes: number of clips of each chunk.
        batch_clips: clips of a full batch.
    """
    for chunk, size in enumerate(sizes):
        begin = 0
        while begin < size:
            left = size - begin
            length = batch_clips if left >= batch_clips else 1 << (left.bit_length() - 1)
            yield ClipBatch(tuple((chunk, clip) for clip in range(begin, begin + length)))
            begin += length


def fixed_batches(
    sizes: Sequence[int], shapes: Sequence[tuple[int, int]], *, batch_clips: int
) -> Iterator[ClipBatch]:
    """Batches of one size: clips of chunks of one shape in turn, then copies of the last one.

    Args:
        sizes: number of clips of each chunk.
        shapes: height and width of each chunk's frames.
        batch_clips: clips of a batch.
    """
    by_shape: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for chunk, (size, shape) in enumerate(zip(sizes, shapes, strict=True)):
        by_shape.setdefault(shape, []).extend((chunk, clip) for clip in range(size))
    for clips in by_shape.values():
        for begin in range(0, len(clips), batch_clips):
            chosen = clips[begin : begin + batch_clips]
            num_copies = batch_clips - len(chosen)
            yield ClipBatch((*chosen, *chosen[-1:] * num_copies), num_copies)
