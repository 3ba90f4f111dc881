from fractions import Fraction
from pathlib import Path

import pytest

from tfn_platform.datasets.synthetic import SyntheticConfig, damage_of, render_video
from tfn_platform.datasets.synthetic_damage import DAMAGE_REASONS, Damage
from tfn_platform.video import SamplingGrid, VideoError, iter_chunks

CONFIG = SyntheticConfig(
    num_training=len(Damage),
    num_validation=0,
    min_duration_seconds=2,
    max_duration_seconds=3,
    min_short_side=32,
    max_short_side=40,
    damaged_share=1.0,
)
GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=8, short_side=32)


def test_each_kind_occurs() -> None:
    assert {damage_of(CONFIG, index) for index in range(len(Damage))} == set(Damage)


@pytest.mark.parametrize("index", range(len(Damage)))
def test_a_damaged_file_is_recognised(tmp_path: Path, index: int) -> None:
    rendered = render_video(CONFIG, index)
    assert rendered.damage is not None
    path = tmp_path / rendered.file_name
    path.write_bytes(rendered.data)
    with pytest.raises(VideoError) as caught:
        list(iter_chunks(str(path), GRID, clips_per_chunk=4))
    assert caught.value.reason is DAMAGE_REASONS[rendered.damage]
