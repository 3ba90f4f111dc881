"""What is said of features, against numpy on the whole array; and the picture of one video."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.some_features import STAGE, feature_contract, random_videos, write_parts
from tfn_jobs.inspect_features import (
    averaged_channels,
    feature_figure,
    inspect_features,
    measure_features,
    open_stage_folder,
)
from tfn_platform.errors import SpecError, TableError
from tfn_platform.feature_index import FeatureReader
from tfn_platform.feature_table import feature_part
from tfn_platform.store import StageFolder, Store

CONTRACT = feature_contract()
VIDEOS = random_videos(CONTRACT, a=5, b=2, c=9, d=3)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    a, b, c, d = VIDEOS
    a.values[:, 1] = 0
    still = replace(b, values=np.ones_like(b.values))
    moved = replace(d, center_seconds=d.center_seconds + 0.25)
    return write_parts(Store.open(str(tmp_path)), [[a, still], [c, moved]], contract=CONTRACT)


def test_the_figures_are_those_of_all_values(folder: StageFolder) -> None:
    reader = FeatureReader(folder)
    found = measure_features(reader, reader.video_ids)
    whole = reader.read_all(reader.video_ids).values.astype(np.float64)
    assert (found.num_videos, found.num_clips) == (4, 19)
    assert (found.shortest, found.longest, found.not_finite) == (2, 9, 0)
    np.testing.assert_allclose(
        [found.minimum, found.mean, found.standard_deviation, found.maximum, found.share_of_zeros],
        [whole.min(), whole.mean(), whole.std(), whole.max(), (whole == 0).mean()],
    )
    assert found.off_grid == {"d": 0.25}
    assert found.constant == ["b"] and found.damaged == []


def test_values_that_are_not_as_written_are_named(folder: StageFolder) -> None:
    path = Path(folder.store.path(feature_part(folder, 1)))
    changed = VIDEOS[2].values.copy()
    changed[3, 2] = np.nan
    path.write_bytes(path.read_bytes().replace(VIDEOS[2].values.tobytes(), changed.tobytes()))
    reader = FeatureReader(folder)
    found = measure_features(reader, reader.video_ids)
    assert found.damaged == ["c"] and found.not_finite == 1
    assert np.isfinite([found.minimum, found.mean, found.maximum]).all()


def test_all_is_printed(
    folder: StageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect_features(folder.uri, picture=tmp_path / "a.png")
    printed = capsys.readouterr().out
    for expected in ("tiny", "stride_seconds", "content hash", "19 (2 to 9 a video", "d (0.25 s)"):
        assert expected in printed, printed
    assert (tmp_path / "a.png").stat().st_size > 10_000
    inspect_features(folder.uri, video_id="c")
    assert "9 (9 to 9 a video" in capsys.readouterr().out


def test_what_cannot_be_looked_at_is_refused(folder: StageFolder, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no features of video 'x'; there are 4 videos, such as a"):
        inspect_features(folder.uri, video_id="x")
    with pytest.raises(TableError, match="must be the folder of a stage, such as"):
        inspect_features(str(tmp_path))
    opened = open_stage_folder(f"{folder.uri}/")
    assert opened == folder == STAGE.folder(folder.store)


@pytest.mark.parametrize(
    ("uri", "root", "name"),
    [
        ("/stages/extract/k", "/", "extract"),
        ("/data/stages/stages/extract/k/", "/data/stages", "extract"),
        ("stages/extract/0/k", str(Path.cwd()), "extract/0"),
        ("s3://bucket/stages/extract/k", "s3://bucket", "extract"),
    ],
)
def test_the_root_is_what_comes_before_the_stages(uri: str, root: str, name: str) -> None:
    assert open_stage_folder(uri) == StageFolder(Store(root), name, "k")


@pytest.mark.parametrize(
    "uri", ["mystages/extract/k", "/stages/k", "stages//k", "/data/mystages/a/k"]
)
def test_other_folders_are_no_stages(uri: str) -> None:
    with pytest.raises(TableError, match="must be the folder of a stage"):
        open_stage_folder(uri)


def test_a_stage_without_features_is_refused(tmp_path: Path) -> None:
    other = Store.open(str(tmp_path)).stage("prepare", "k")
    other.commit({})
    with pytest.raises(TableError, match="prepare/k: holds no features"):
        inspect_features(other.uri)


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    for name, message in (
        ("a.jpg", r"must end with \.png, \.svg, \.pdf, got '\.jpg'"),
        ("a", "got 'no ending'"),
        ("none/a.png", "there is no folder"),
    ):
        with pytest.raises(SpecError, match=message):
            inspect_features("not looked at", picture=tmp_path / name)


def test_the_picture_shows_channels_over_time(folder: StageFolder) -> None:
    reader = FeatureReader(folder)
    figure = feature_figure(reader, "c")
    top, bottom = figure.axes[:2]
    np.testing.assert_array_equal(top.images[0].get_array(), reader.read("c").T)
    np.testing.assert_allclose(
        bottom.lines[0].get_ydata(), np.sqrt((reader.read("c") ** 2).sum(axis=1)), rtol=1e-6
    )
    assert list(top.images[0].get_extent()) == [0.0, 4.5, 4.0, 0.0]


@pytest.mark.parametrize(("width", "most"), [(4, 8), (8, 8), (9, 4), (2304, 512)])
def test_channels_are_averaged_in_neighbouring_groups(width: int, most: int) -> None:
    values = np.random.default_rng(0).random((3, width), dtype=np.float32)
    found = averaged_channels(values, most)
    groups = min(width, most)
    ends = [(group + 1) * width // groups for group in range(groups)]
    for group, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        np.testing.assert_allclose(found[:, group], values[:, begin:end].mean(axis=1), rtol=1e-5)
