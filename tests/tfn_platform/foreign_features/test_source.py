"""Every video is found once, in folders and in files of many; nothing is read before it is due."""

import io
import os
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from tfn_platform.errors import DataError
from tfn_platform.foreign_features import FORMATS, FeatureFormat
from tfn_platform.foreign_features.matrix import MatrixLayout
from tfn_platform.foreign_features.source import FeatureSource, find_features, iter_features

TC = MatrixLayout("TC", 3, "float32")
CT = MatrixLayout("CT", 3, "float32")


def clips(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)


def problems(source: FeatureSource, layout: MatrixLayout = TC) -> dict[str, str]:
    return {
        video: str(values)
        for video, values in iter_features(source, layout)
        if isinstance(values, DataError)
    }


def lengths(source: FeatureSource, layout: MatrixLayout = TC) -> dict[str, int]:
    found = {}
    for video, values in iter_features(source, layout):
        assert not isinstance(values, DataError), values
        np.testing.assert_array_equal(values, clips(len(values)))
        found[video] = len(values)
    return found


def write_npy(folder: Path, **counts: int) -> None:
    for name, count in counts.items():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", clips(count))


def test_a_folder_of_npy_with_folders_in_it(tmp_path: Path) -> None:
    write_npy(tmp_path / "training", b=2, a=4)
    write_npy(tmp_path, c=3)
    (tmp_path / "README.txt").write_text("text")
    source = find_features(str(tmp_path), format_name="npy")
    assert list(source.places) == ["a", "b", "c"]
    assert source.num_other_files == 1
    assert lengths(source) == {"a": 4, "b": 2, "c": 3}


def test_only_some_videos_are_opened(tmp_path: Path) -> None:
    write_npy(tmp_path, a=1, c=3)
    (tmp_path / "b.npy").write_text("text")
    source = find_features(str(tmp_path), format_name="npy")
    assert [video for video, _ in iter_features(source, TC, video_ids=["c", "a"])] == ["a", "c"]
    assert "not a readable npy" in problems(source)["b"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("**/v_{video_id}.npy", ["a", "x"]),
        ("v_{video_id}.npy", ["x"]),
        ("*/v_{video_id}.npy", ["a"]),
        ("train/{video_id}.npy", ["v_a"]),
        ("**/{video_id}-rgb.npy", ["y"]),
    ],
)
def test_patterns(tmp_path: Path, files: str, expected: list[str]) -> None:
    write_npy(tmp_path / "train", v_a=1)
    write_npy(tmp_path, v_x=1, **{"y-rgb": 1})
    source = find_features(str(tmp_path), format_name="npy", files=files)
    assert sorted(source.places) == expected


def test_each_format_in_a_folder(tmp_path: Path) -> None:
    values = clips(4)
    np.savez(tmp_path / "a.npz", feats=values)
    torch.save(torch.from_numpy(values), tmp_path / "a.pt")
    torch.save(torch.from_numpy(values), tmp_path / "b.pth")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(values))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["c3d"] = values
    text = "\n".join(",".join(repr(float(v)) for v in row) for row in values)
    (tmp_path / "a.csv").write_text(text)
    for name, videos in (("npz", 1), ("pt", 2), ("pkl", 1), ("h5", 1), ("csv", 1)):
        source = find_features(str(tmp_path), format_name=name)
        assert lengths(source) == dict.fromkeys("ab"[:videos], 4)


def test_the_layout_of_tcanet(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    for video, count in (("x", 4), ("y", 2)):
        features = torch.from_numpy(clips(count).T.copy())[None]
        content = {
            "slow_feature": features[:, :2].clone(),
            "fast_feature": features[:, 2:].clone(),
            "feature_frames": 8 * count,
        }
        (tmp_path / "validation" / f"{video}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    keys = ("slow_feature", "fast_feature")
    source = find_features(str(tmp_path), format_name="pkl", keys=keys)
    assert lengths(source, CT) == {"x": 4, "y": 2}
    bare = find_features(str(tmp_path), format_name="pkl")
    assert "'slow_feature', 'fast_feature'" in problems(bare, CT)["x"]
    other = find_features(str(tmp_path), format_name="pkl", keys=("rgb",))
    assert "no array 'rgb'; it has: 'slow_feature'" in problems(other, CT)["x"]


def test_one_file_of_many_videos(tmp_path: Path) -> None:
    counts = {"v/1": 4, "a": 2}
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for video, count in counts.items():
            file[f"{video}/rgb"] = clips(count)
            file[f"{video}/flow"] = clips(count)[:, :1]
    np.savez(tmp_path / "all.npz", **{f"{v}/rgb": clips(n) for v, n in counts.items()})
    content = {v: {"rgb": clips(n)} for v, n in counts.items()}
    (tmp_path / "all.pkl").write_bytes(pickle.dumps(content))
    for name in ("h5", "npz", "pkl"):
        uri = str(tmp_path / f"all.{name}")
        source = find_features(uri, format_name=name, keys=("{video_id}/rgb",))
        assert lengths(source) == counts
        assert list(source.places) == ["a", "v/1"]
    bare = find_features(str(tmp_path / "all.npz"), format_name="npz")
    assert 'keys: ["{video_id}"]' in problems(bare)["all"]


def test_two_arrays_a_video_in_one_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["a/rgb"], file["a/flow"] = clips(4)[:, :2], clips(4)[:, 2:]
        file["b/rgb"] = clips(4)[:, :2]
    keys = ("{video_id}/rgb", "{video_id}/flow")
    source = find_features(str(tmp_path), format_name="h5", keys=keys)
    found = dict(iter_features(source, TC))
    np.testing.assert_array_equal(found["a"], clips(4))
    assert "no array 'b/flow'" in str(found["b"])


def test_a_file_of_many_that_cannot_be_opened_is_told_of_each(tmp_path: Path) -> None:
    for name, videos in (("x", "abc"), ("y", "d")):
        np.savez(tmp_path / f"{name}.npz", **{video: clips(2) for video in videos})
    source = find_features(str(tmp_path), format_name="npz", keys=("{video_id}",))
    (tmp_path / "x.npz").write_text("text")
    found = dict(iter_features(source, TC))
    assert list(found) == list("abcd")
    assert all("not a readable npz" in str(found[video]) for video in "abc")
    (tmp_path / "y.npz").unlink()
    assert "cannot be opened" in problems(source)["d"]


def test_a_video_in_two_places_is_refused(tmp_path: Path) -> None:
    write_npy(tmp_path / "training", a=1)
    write_npy(tmp_path / "validation", a=1)
    with pytest.raises(DataError, match="a in training/a.npy and validation/a.npy"):
        find_features(str(tmp_path), format_name="npy")
    for name in ("x", "y"):
        np.savez(tmp_path / f"{name}.npz", v1=clips(1))
    with pytest.raises(DataError, match="v1 in x.npz and y.npz"):
        find_features(str(tmp_path), format_name="npz", keys=("{video_id}",))


def test_nothing_found(tmp_path: Path) -> None:
    write_npy(tmp_path, a=1)
    with pytest.raises(DataError, match="none of its 1 files fits"):
        find_features(str(tmp_path), format_name="pkl")
    with pytest.raises(DataError, match="cannot be listed"):
        find_features(str(tmp_path / "gone"), format_name="npy")
    with pytest.raises(DataError, match="must hold {video_id} once"):
        find_features(str(tmp_path), format_name="npy", files="*.npy")
    np.savez(tmp_path / "x.npz", a=clips(1))
    with pytest.raises(DataError, match="no array fits"):
        find_features(str(tmp_path), format_name="npz", keys=("{video_id}/rgb",))


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    write_npy(tmp_path, a=1, b=2)

    def fingerprint() -> str:
        return find_features(str(tmp_path), format_name="npy").fingerprint

    seen = {fingerprint()}
    (tmp_path / "note.txt").write_text("not taken")
    assert fingerprint() in seen
    write_npy(tmp_path, c=2)
    seen.add(fingerprint())
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes())
    seen.add(fingerprint())
    assert len(seen) == 3


def test_the_fingerprint_tells_content_and_not_place(tmp_path: Path) -> None:
    """Another folder with files of the same names, sizes and times was taken for the same."""
    seen = []
    for name, values in (("one", clips(3)), ("two", clips(3)), ("three", clips(3) + 1)):
        write_npy(tmp_path / name, a=2)
        np.save(tmp_path / name / "b.npy", values)
        for path in (tmp_path / name).iterdir():
            os.utime(path, ns=(10**18, 10**18))
        seen.append(find_features(str(tmp_path / name), format_name="npy").fingerprint)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("end", [0, -1])
def test_both_ends_of_a_large_file_tell_its_content(tmp_path: Path, end: int) -> None:
    seen = set()
    for value in (b"a", b"b"):
        data = bytearray(300_000)
        data[end] = value[0]
        (tmp_path / "a.npy").write_bytes(data)
        os.utime(tmp_path / "a.npy", ns=(10**18, 10**18))
        seen.add(find_features(str(tmp_path), format_name="npy").fingerprint)
    assert len(seen) == 2


def test_links_and_pipes(tmp_path: Path) -> None:
    """A link to a folder above was gone into for ever, one to nothing left out without a word."""
    write_npy(tmp_path / "deep", a=2)
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "b.npy").symlink_to(tmp_path / "deep" / "a.npy")
    (tmp_path / "c.npy").symlink_to("nothing")
    os.mkfifo(tmp_path / "d.npy")
    source = find_features(str(tmp_path), format_name="npy")
    assert list(source.places) == ["a", "b", "c", "d"]
    found = problems(source)
    assert list(found) == ["c", "d"]
    assert found["c"].startswith("c.npy: cannot be opened: no regular file")


def test_a_file_that_cannot_be_read_is_told_of_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the storage while a csv file was read ended the import."""
    for name in "ab":
        np.savetxt(tmp_path / f"{name}.csv", clips(4), delimiter=",")
    source = find_features(str(tmp_path), format_name="csv")
    opened = FORMATS["csv"].open

    @contextmanager
    def failing(stream: Any) -> Any:
        if len(failed) == 0:
            failed.append(stream)
            raise OSError("the disk is gone")
        with opened(stream) as file:
            yield file

    failed: list[Any] = []
    monkeypatch.setitem(FORMATS, "csv", FeatureFormat((".csv",), failing))
    found = dict(iter_features(source, TC))
    assert str(found["a"]) == "a.csv: the disk is gone"
    np.testing.assert_allclose(found["b"], clips(4))


def files_of(values: np.ndarray) -> dict[str, list[bytes]]:
    """A file of each format; of some formats, packed and not."""

    def written(write: Callable[[io.BytesIO], object]) -> bytes:
        stream = io.BytesIO()
        write(stream)
        return stream.getvalue()

    def write_h5(stream: io.BytesIO, **options: Any) -> None:
        with h5py.File(stream, "w") as file:
            file.create_dataset("group/a", data=values, **options)

    tensor = torch.from_numpy(values)
    return {
        "csv": [written(lambda s: np.savetxt(s, values, delimiter=","))],
        "h5": [written(write_h5), written(lambda s: write_h5(s, compression="gzip"))],
        "npy": [written(lambda s: np.save(s, values))],
        "npz": [
            written(lambda s: np.savez(s, a=values)),
            written(lambda s: np.savez_compressed(s, a=values)),
        ],
        "pkl": [pickle.dumps({"a": values}), pickle.dumps({"a": tensor}, protocol=2)],
        "pt": [written(lambda s: torch.save({"a": tensor}, s))],
    }


@pytest.mark.parametrize(("name", "files"), files_of(clips(4)).items(), ids=FORMATS)
def test_damage_of_any_kind_is_a_problem_of_its_file(
    tmp_path: Path, name: str, files: list[bytes]
) -> None:
    """One such file ended the import with a traceback."""
    rng = np.random.default_rng(0)
    for number in range(200):
        data = bytearray(files[number % len(files)])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        end = rng.integers(len(data)) if number % 8 == 0 else len(data)
        (tmp_path / f"v{number:03d}{FORMATS[name].endings[0]}").write_bytes(data[:end])
    found = dict(iter_features(find_features(str(tmp_path), format_name=name), TC))
    assert len(found) == 200
    wrong = {video: str(values) for video, values in found.items() if not hasattr(values, "shape")}
    assert len(wrong) > 20
    assert all(
        text.startswith(f"{video}{FORMATS[name].endings[0]}: ") for video, text in wrong.items()
    )


def test_real_features(shared_dir: Path) -> None:
    path = shared_dir / "data" / "features" / "50salads" / "50salads_svm_scores.npz"
    source = find_features(str(path), format_name="npz", keys=("{video_id}/mid_svm",))
    found = dict(iter_features(source, MatrixLayout("TC", 18, "float32")))
    assert len(found) == 50
    assert sum(len(values) for values in found.values()) == 16596
    with np.load(path) as arrays:
        np.testing.assert_array_equal(found["s1_00"], arrays["s1_00/mid_svm"])
    wrong = problems(source, MatrixLayout("CT", 18, "float32"))
    assert len(wrong) == 50
    assert "`axes: TC` would fit" in wrong["s1_00"]
