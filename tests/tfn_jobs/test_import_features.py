"""Published layouts become FEATURES that the reader gives back, or are refused as a whole."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tfn_jobs.import_features as job
from tests.s3_server import s3_endpoint, s3_root
from tests.tfn_jobs.small_import import features, parsed, spec, write_source
from tfn_jobs.import_features import import_features
from tfn_platform.errors import DataError
from tfn_platform.feature_index import FeatureReader
from tfn_platform.parquet import read_table
from tfn_platform.store import Store
from tfn_platform.tables import QUARANTINE

__all__ = ["s3_endpoint", "s3_root"]

SPEC = Path(__file__).resolve().parents[2] / "jobs" / "import-features.yaml"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of npy files of 20 videos, and their durations beside it."""
    return write_source(tmp_path)


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "done.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


def test_features_come_back_as_they_were(source: Path, store: Store) -> None:
    made = import_features(spec(source), store)
    assert made.is_new
    clips = sum(len(np.load(path)) for path in source.iterdir())
    assert made.figures == {"videos": 20, "clips": clips, "quarantined": 0, "unchecked": 0}
    reader = FeatureReader(made.folder)
    assert reader.video_ids == tuple(f"v{number:02d}" for number in range(20))
    for video in reader.video_ids:
        np.testing.assert_array_equal(reader.read(video), np.load(source / f"{video}.npy"))
    assert reader.contract == spec(source).contract
    quarantine, _ = read_table(made.folder, QUARANTINE)
    assert quarantine.num_rows == 0


def test_center_seconds_follow_the_declared_grid(source: Path, store: Store) -> None:
    made = import_features(spec(source), store)
    path = store.path(made.folder.table("features"))
    rows = pq.read_table(path, filters=[("video_id", "=", "v03")]).to_pydict()
    expected = [8 * clip / 15 + 31 / 30 for clip in range(len(np.load(source / "v03.npy")))]
    np.testing.assert_allclose(rows["center_seconds"], expected, rtol=1e-12)
    assert rows["clip_index"] == list(range(len(expected)))


def test_a_second_import_does_nothing(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = import_features(spec(source), store)
    monkeypatch.setattr(job, "iter_features", lambda *_, **__: pytest.fail("reads again"))
    again = import_features(spec(source), store)
    assert not again.is_new
    assert (again.folder, again.figures) == (first.folder, first.figures)
    assert spec(source, backbone="tsn") != spec(source)
    monkeypatch.undo()
    np.save(source / "v03.npy", np.load(source / "v03.npy") + 1)
    assert import_features(spec(source), store).folder.key != first.folder.key


@pytest.mark.parametrize("written", [0, 1, 3])
def test_a_killed_import_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    monkeypatch.setattr(job, "VIDEOS_PER_PART", 6)
    undisturbed, killed = (Store.open(str(tmp_path / name)) for name in ("one", "two"))
    expected = import_features(spec(source), undisturbed).folder
    write = job.write_feature_part

    def dies(*arguments: Any, part: int, **options: Any) -> None:
        if part == written:
            raise KeyboardInterrupt
        write(*arguments, part=part, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job, "write_feature_part", dies)
        import_features(spec(source), killed)
    read: list[str] = []
    each = job.iter_features

    def noting(*arguments: Any, **options: Any) -> Any:
        for video, values in each(*arguments, **options):
            read.append(video)
            yield video, values

    monkeypatch.setattr(job, "iter_features", noting)
    found = import_features(spec(source), killed).folder
    assert read == [f"v{number:02d}" for number in range(6 * written, 20)]
    assert bytes_of(Path(killed.path(found.relative))) == bytes_of(
        Path(undisturbed.path(expected.relative))
    )


def test_parts_are_cut_by_videos_and_by_bytes(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "BYTES_PER_PART", 10_000)
    made = import_features(spec(source), store)
    table = made.folder.table("features")
    parts = [
        pq.read_table(store.path(f"{table}/{name}"), columns=["video_id"])
        for name in store.list_files(table)
    ]
    assert len(parts) > 5
    names = [dict.fromkeys(part["video_id"].to_pylist()) for part in parts]
    assert [video for part in names for video in part] == [f"v{n:02d}" for n in range(20)]
    for part, videos in zip(parts[:-1], names, strict=False):
        last = len(np.load(source / f"{list(videos)[-1]}.npy"))
        assert 24 * part.num_rows >= 10_000 > 24 * (part.num_rows - last)


def test_a_wrong_stride_is_refused_and_leaves_nothing(source: Path, store: Store) -> None:
    with pytest.raises(DataError, match="stride_seconds 8/15 fits 20 of 20 videos"):
        import_features(spec(source, stride_seconds="1/2"), store)
    left = [path for path in Path(store.root).rglob("*") if path.is_file()]
    assert left == []


def test_exchanged_axes_are_refused(source: Path, store: Store) -> None:
    with pytest.raises(DataError, match="`axes: TC` would fit"):
        import_features(spec(source, axes="CT"), store)


def test_many_videos_are_judged_by_a_few_first(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "NUM_LOOKED_AT_FIRST", 4)
    monkeypatch.setattr(job, "_write_parts", lambda *_, **__: pytest.fail("goes on"))
    with pytest.raises(DataError, match="4 of 4 videos looked at first cannot be used"):
        import_features(spec(source, axes="CT"), store)
    with pytest.raises(DataError, match="of 4 videos looked at first"):
        import_features(spec(source, stride_seconds="1/4"), store)


def test_a_damaged_video_is_refused_until_it_is_left_out(source: Path, store: Store) -> None:
    values = np.load(source / "v07.npy")
    values[3] = np.nan
    np.save(source / "v07.npy", values)
    np.save(source / "v08.npy", values[:, :4])
    with pytest.raises(
        DataError, match=r"(?s)2 of 20 .*v07: v07.npy: 6 NaN.*v08: .*4 values a clip"
    ):
        import_features(spec(source), store)
    made = import_features(spec(source, leave_out=["v07", "v08"]), store)
    assert made.figures["videos"] == 18
    with pytest.raises(DataError, match="no video 'v99' to leave out"):
        import_features(spec(source, leave_out=["v99"]), store)


def test_single_wrong_and_missing_videos_go_to_quarantine(source: Path, store: Store) -> None:
    np.save(source / "v10.npy", features(10, 5))
    (source / "v11.npy").unlink()
    with pytest.raises(DataError, match="2 of 20 videos cannot be imported: 1 have no features"):
        import_features(spec(source), store)
    made = import_features(spec(source, max_refused_share=0.1), store)
    assert made.figures["videos"] == 18
    rows = read_table(made.folder, QUARANTINE)[0].to_pylist()
    assert [(row["video_id"], row["reason"]) for row in rows] == [
        ("v10", "duration_mismatch"),
        ("v11", "missing_file"),
    ]
    assert rows[0]["uri"] == str(source / "v10.npy")
    assert rows[0]["detail"].startswith("5 clips of 0.5333 s")
    assert "v10" not in FeatureReader(made.folder).video_ids


def test_videos_that_durations_do_not_name(source: Path, store: Store) -> None:
    np.save(source / "extra.npy", features(50, 50))
    with pytest.raises(DataError, match="1 of 21 videos are not in .*extra"):
        import_features(spec(source), store)
    made = import_features(spec(source, extra_videos="leave_out"), store)
    assert made.figures["videos"] == 20
    some = import_features(spec(source, subsets=["training"]), store)
    assert FeatureReader(some.folder).video_ids == tuple(f"v{n:02d}" for n in range(1, 20, 2))
    unchecked = import_features(spec(source, durations=None), store)
    assert unchecked.figures["unchecked"] == 21


def test_names_with_a_prefix_are_explained(source: Path, store: Store) -> None:
    for path in list(source.iterdir()):
        path.rename(source / f"v_{path.name}")
    with pytest.raises(DataError, match="takes the v_ off"):
        import_features(spec(source), store)
    made = import_features(spec(source, files="v_{video_id}.npy"), store)
    assert made.figures["videos"] == 20


def test_names_with_a_prefix_in_one_file_are_explained(source: Path, store: Store) -> None:
    """The advice spoke of files, which hold no name where `keys` do."""
    path = source.parent / "all.h5"
    with h5py.File(path, "w") as file:
        for each in source.iterdir():
            file[f"v_{each.stem}/c3d_features"] = np.load(each)
    with pytest.raises(DataError, match=r'`keys: \["v_{video_id}…"\]` takes the v_ off'):
        import_features(spec(path, format="h5", keys=["{video_id}/c3d_features"]), store)
    (keys,) = re.findall(r"format: h5 +keys: (.*)", SPEC.read_text())
    made = import_features(spec(path, format="h5", keys=json.loads(keys)), store)
    assert made.figures["videos"] == 20


def test_another_folder_of_the_same_look_is_another_import(source: Path, store: Store) -> None:
    """Names, sizes and times alone made the key: the first folder's features were given again."""
    other = source.parent / "other"
    shutil.copytree(source, other)
    np.save(other / "v03.npy", np.load(source / "v03.npy") + 1)
    shutil.copystat(source / "v03.npy", other / "v03.npy")
    first, second = (import_features(spec(folder), store) for folder in (source, other))
    assert second.is_new
    assert not np.array_equal(
        FeatureReader(first.folder).read("v03"), FeatureReader(second.folder).read("v03")
    )
    source.rename(source.parent / "moved")
    assert not import_features(spec(source.parent / "moved"), store).is_new


def test_a_damaged_file_is_listed_with_the_others(source: Path, store: Store) -> None:
    """It ended the import with an error of the tokenizer."""
    data = (source / "v04.npy").read_bytes()
    (source / "v04.npy").write_bytes(data.replace(b"}", b"("))
    (source / "v05.npy").write_bytes(data.replace(b"'shape': (", b"'shape': (-"))
    with pytest.raises(DataError, match=r"(?s)2 of 20 videos.*v04: v04\.npy: .*v05: v05\.npy: "):
        import_features(spec(source), store)


def test_a_killed_refusal_leaves_no_gap(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are deleted from the last on: what a killed deletion leaves is a beginning."""
    monkeypatch.setattr(job, "VIDEOS_PER_PART", 6)
    np.save(source / "v19.npy", features(19, 5))
    delete, seen = Store.delete_file, []

    def dies(self: Store, relative: str) -> None:
        seen.append(relative)
        if len(seen) == 3:
            raise KeyboardInterrupt
        delete(self, relative)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "delete_file", dies)
        import_features(spec(source), store)
    left = sorted(path.name for path in Path(store.root).rglob("part-*"))
    assert left == ["part-00000.parquet", "part-00001.parquet"]
    with pytest.raises(DataError, match="1 of 20 videos cannot be imported"):
        import_features(spec(source), store)


def test_from_and_to_an_object_store(source: Path, s3_root: str) -> None:
    remote = Store.open(s3_root)
    for path in [*source.iterdir(), source.parent / "durations.csv"]:
        remote.write_bytes(f"theirs/{path.parent.name}/{path.name}", path.read_bytes())
    uri = f"{s3_root}/theirs/features"
    durations = f"{s3_root}/theirs/{source.parent.name}/durations.csv"
    made = import_features(spec(source, source=uri, durations=durations), remote)
    assert made.figures["videos"] == 20
    assert not import_features(spec(source, source=uri, durations=durations), remote).is_new
    found = FeatureReader(made.folder).read("v05")
    np.testing.assert_array_equal(found, np.load(source / "v05.npy"))


def test_half_precision_is_stored_as_such(source: Path, store: Store) -> None:
    made = import_features(spec(source, value_type="float16"), store)
    found = FeatureReader(made.folder).read("v05")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.load(source / "v05.npy").astype(np.float16))


@pytest.mark.parametrize("layout", ["tcanet", "h5", "csv"])
def test_other_layouts_give_the_same_features(source: Path, store: Store, layout: str) -> None:
    """What TCANet, one h5 file and the csv files of two-stream networks hold of the same videos."""
    folder = source.parent / layout
    folder.mkdir()
    changes: dict[str, Any] = {"format": layout}
    if layout == "tcanet":
        changes = {"format": "pkl", "axes": "CT", "keys": ["slow_feature", "fast_feature"]}
    if layout == "h5":
        changes["keys"] = ["{video_id}/c3d_features"]
    for path in sorted(source.iterdir()):
        values, name = np.load(path), path.stem
        if layout == "tcanet":
            tensor = torch.from_numpy(values.T.copy())[None]
            slow, fast = tensor[:, :4].clone(), tensor[:, 4:].clone()
            content = {"slow_feature": slow, "fast_feature": fast, "feature_frames": 8}
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))
        elif layout == "h5":
            with h5py.File(folder / "all.h5", "a") as file:
                file[f"{name}/c3d_features"] = values
        else:
            header = ",".join(f"f{channel}" for channel in range(6))
            np.savetxt(folder / f"{name}.csv", values, "%.9g", ",", header=header, comments="")
    made = import_features(spec(folder, **changes), store)
    reader = FeatureReader(made.folder)
    for video in reader.video_ids:
        np.testing.assert_array_equal(reader.read(video), np.load(source / f"{video}.npy"))
    assert len(reader.video_ids) == 20


def test_real_features(shared_dir: Path, store: Store, tmp_path: Path) -> None:
    """Their durations are made of the number of snippets, as none are published."""
    folder = shared_dir / "data" / "features" / "50salads"
    snippets = json.loads((folder / "50salads_meta.json").read_text())
    lines = [f"{video},{entry['snippets'] * 1.0}" for video, entry in snippets.items()]
    (tmp_path / "d.csv").write_text("video_id,duration_seconds\n" + "\n".join(lines))
    changes: dict[str, Any] = {
        "format": "npz",
        "keys": ["{video_id}/mid_svm"],
        "durations": str(tmp_path / "d.csv"),
        "feature_dim": 18,
        "frame_rate": 30,
        "frames_per_clip": 30,
        "alignment": "center",
    }
    path = folder / "50salads_svm_scores.npz"
    made = import_features(parsed(path, **{**changes, "stride_seconds": 1}), store)
    assert (made.figures["videos"], made.figures["clips"]) == (50, 16596)
    with pytest.raises(DataError, match="stride_seconds 1 fits 50 of 50 videos"):
        import_features(parsed(path, **{**changes, "stride_seconds": "16/15"}), store)
