"""The storage root: the same behaviour in a folder and in an object store."""

import os
import pickle
import time
from pathlib import Path

import pytest

from tests.s3_server import s3_endpoint, s3_root
from tfn_platform import store as store_module
from tfn_platform.errors import ResourceError
from tfn_platform.store import Store

__all__ = ["s3_endpoint", "s3_root"]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind."""
    if request.param == "s3":
        return Store.open(request.getfixturevalue("s3_root"))
    return Store.open(str(tmp_path / "a root"))


def test_write_read_overwrite_delete(store: Store) -> None:
    assert not store.exists("a/b.bin")
    store.write_bytes("a/b.bin", b"old")
    store.write_bytes("a/b.bin", memoryview(b"new"))
    assert store.read_bytes("a/b.bin") == b"new"
    assert store.exists("a/b.bin")
    assert store.exists("a")
    store.delete_file("a/b.bin")
    store.delete_file("a/b.bin")
    assert not store.exists("a/b.bin")
    with pytest.raises(FileNotFoundError):
        store.read_bytes("a/b.bin")


def test_list_files_is_sorted_and_leaves_out_folders_and_hidden_files(store: Store) -> None:
    for name in ("t/b", "t/a", "t/.hidden", "t/inner/c", "top"):
        store.write_bytes(name, b"")
    assert store.list_files("t") == ["a", "b"]
    assert store.list_files("nothing") == []
    assert store.list_files("") == ["top"]


def test_json_is_equal_bytes_for_equal_values(store: Store) -> None:
    store.write_json("a.json", {"b": 1, "a": [1.5, None]})
    store.write_json("b.json", {"a": [1.5, None], "b": 1})
    assert store.read_bytes("a.json") == store.read_bytes("b.json")
    assert store.read_json("a.json") == {"a": [1.5, None], "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        store.write_json("c.json", float("nan"))
    assert not store.exists("c.json")


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/etc/passwd", "a/.."])
def test_no_path_leaves_the_root(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="must stay inside the storage root"):
        store.write_bytes(name, b"")


def test_the_empty_path_is_the_root(store: Store) -> None:
    """It was "root/.", which no object store knows."""
    assert store.path("") == store.path(".") == store.path("a").removesuffix("/a")


def test_a_stage_counts_once_it_is_committed(store: Store) -> None:
    folder = store.stage("bmn/d32", "0123")
    store.write_bytes(folder.weights, b"w")
    assert not folder.is_done
    folder.commit({"key": "0123"})
    assert folder.is_done
    assert folder.read_done() == {"key": "0123"}
    assert folder.uri == f"{store.root}/stages/bmn/d32/0123"
    assert not store.stage("bmn/d32", "4567").is_done


def test_all_artefacts_lie_in_the_stage_folder(store: Store) -> None:
    folder = store.stage("bmn/d32", "0123")
    names = [folder.weights, folder.training_state, folder.history, folder.metrics]
    names += [folder.table("features"), folder.file("x")]
    assert len(set(names)) == len(names)
    assert all(name.startswith("stages/bmn/d32/0123/") for name in names)


def test_a_pickled_store_is_the_same_store(store: Store) -> None:
    store.write_bytes("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy.read_bytes("a") == b"1"


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_crash_while_writing_leaves_the_old_content_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, old: bytes | None
) -> None:
    store = Store.open(str(tmp_path))
    if old is not None:
        store.write_bytes("a/b", old)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, crash)
    with pytest.raises(KeyboardInterrupt):
        store.write_bytes("a/b", b"new and longer")
    assert (store.read_bytes("a/b") if store.exists("a/b") else None) == old
    assert [p.name for p in (tmp_path / "a").iterdir()] == (["b"] if old else [])


def test_what_a_killed_writer_leaves_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed cannot clean up: its temporary file stays, under a hidden name."""
    store = Store.open(str(tmp_path))
    monkeypatch.setattr(os, "replace", lambda *_: None)
    store.write_bytes("a/b", b"new")
    assert len(list((tmp_path / "a").iterdir())) == 1
    assert store.list_files("a") == []


def test_what_killed_writers_left_is_swept_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also under names that nobody writes again; what another writer is at stays."""
    store = Store.open(str(tmp_path))
    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", lambda *_: None)
        for name in ("a/b", "a/unique-1"):
            store.write_bytes(name, b"left behind")
        left = list((tmp_path / "a").iterdir())
        store.write_bytes("a/b", b"another writer's")
    assert len(left) == 2
    (tmp_path / "a" / ".hidden").touch()
    for path in (*left, tmp_path / "a" / ".hidden"):
        os.utime(path, (0, time.time() - 90_000))
    store_module._sweep.cache_clear()  # As in a new process.
    store.write_bytes("a/c", b"new")
    kept = {path.name: path for path in (tmp_path / "a").iterdir()}
    assert kept.keys() >= {".hidden", "c"} and len(kept) == 3
    assert not kept.keys() & {path.name for path in left}


def test_folders_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Store.open("runs") == Store(str(tmp_path / "runs"))
    assert Store.open("~/runs") == Store(str(tmp_path / "home" / "runs"))
    assert Store.open(f"file://{tmp_path}/runs/") == Store(str(tmp_path / "runs"))
    assert Store.open("s3://bucket/runs/") == Store("s3://bucket/runs")


def test_an_unknown_kind_of_root_is_refused_when_it_is_used() -> None:
    with pytest.raises(ResourceError, match=r"'ftp://x/y' cannot be opened.*s3://bucket"):
        Store.open("ftp://x/y").exists("a")
