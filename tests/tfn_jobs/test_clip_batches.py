"""Batches hold every clip once, and a clip's batch follows from its video alone."""

from hypothesis import given
from hypothesis import strategies as st

from tfn_jobs.clip_batches import best_fit_batches, fixed_batches

SIZES = st.lists(st.integers(1, 40), max_size=6)


@given(sizes=SIZES, batch_clips=st.integers(1, 16))
def test_best_fit_holds_every_clip_once_and_nothing_else(
    sizes: list[int], batch_clips: int
) -> None:
    batches = list(best_fit_batches(sizes, batch_clips=batch_clips))
    clips = [clip for batch in batches for clip in batch.clips]
    assert clips == [(chunk, clip) for chunk, size in enumerate(sizes) for clip in range(size)]
    for batch in batches:
        assert batch.num_copies == 0
        assert len({chunk for chunk, _ in batch.clips}) == 1
        length = len(batch.clips)
        assert length == batch_clips or (length < batch_clips and length & (length - 1) == 0)


@given(
    num_clips=st.integers(1, 60),
    batch_clips=st.integers(1, 16),
    batches_per_chunk=st.integers(1, 4),
)
def test_how_a_video_is_cut_into_chunks_changes_no_batch(
    num_clips: int, batch_clips: int, batches_per_chunk: int
) -> None:
    """In clips of the whole video, the batches are those of one chunk that holds all of it."""
    step = batch_clips * batches_per_chunk
    starts = list(range(0, num_clips, step))
    sizes = [min(step, num_clips - start) for start in starts]
    cut = [
        [starts[chunk] + clip for chunk, clip in batch.clips]
        for batch in best_fit_batches(sizes, batch_clips=batch_clips)
    ]
    whole = [
        [clip for _, clip in batch.clips]
        for batch in best_fit_batches([num_clips], batch_clips=batch_clips)
    ]
    assert cut == whole


@given(
    chunks=st.lists(
        st.tuples(st.integers(1, 40), st.sampled_from([(32, 32), (32, 56)])), max_size=6
    ),
    batch_clips=st.integers(1, 16),
)
def test_fixed_batches_have_one_size_and_one_shape(
    chunks: list[tuple[int, tuple[int, int]]], batch_clips: int
) -> None:
    sizes, shapes = [size for size, _ in chunks], [shape for _, shape in chunks]
    batches = list(fixed_batches(sizes, shapes, batch_clips=batch_clips))
    own = [clip for b in batches for clip in b.clips[: len(b.clips) - b.num_copies]]
    assert sorted(own) == [(c, clip) for c, size in enumerate(sizes) for clip in range(size)]
    for batch in batches:
        assert len(batch.clips) == batch_clips
        assert len({shapes[chunk] for chunk, _ in batch.clips}) == 1
        assert set(batch.clips[batch_clips - batch.num_copies :]) <= {
            batch.clips[batch_clips - batch.num_copies - 1]
        }
    num_shapes = len(set(shapes))
    assert sum(batch.num_copies > 0 for batch in batches) <= num_shapes
