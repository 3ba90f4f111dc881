"""Extraction with NVDEC's decoder in the actor: here a stand-in for it that gives PyAV's pixels."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tfn_jobs.conftest import MakeSpec
from tests.tfn_jobs.small_extraction import (
    assert_same_bits,
    features_of,
    make_job,
    make_videos,
    stream_here,
)
from tfn_jobs import decode_actor, nvdec_actor
from tfn_jobs import extract as extract_job
from tfn_jobs.extract import ExtractJob, extract, feature_contract
from tfn_jobs.nvdec_actor import why_never
from tfn_platform.cluster import ClusterTotals
from tfn_platform.nvdec import DeviceChunk, NotForNvdecError
from tfn_platform.parquet import read_parts
from tfn_platform.store import Store
from tfn_platform.tables import DAMAGED, QUARANTINE
from tfn_platform.video import DecodedVideo, SamplingGrid, decode_video

CLIPS = {"short_side": 32, "frames_per_clip": 8, "stride_seconds": "1/4"}
SMALL_CHUNKS = 40_000
"""Bytes: several chunks a video."""

Decode = Callable[..., Iterator[DeviceChunk | DecodedVideo]]
Extract = Callable[..., tuple[ExtractJob, dict[str, np.ndarray]]]


def stand_in(
    uri: str, grid: SamplingGrid, *, device: torch.device, **options: Any
) -> Iterator[DeviceChunk | DecodedVideo]:
    """What `decode_on_device` gives, but by PyAV."""
    assert device.type == "cpu"
    for item in decode_video(uri, grid, **options):
        if isinstance(item, DecodedVideo):
            yield item
        else:
            frames = torch.from_numpy(item.frames)
            yield DeviceChunk(item.first_tick, item.first_clip, item.num_clips, frames)


def fails_midway(error: Callable[[str], Exception], *names: str) -> Decode:
    """The stand-in, whose pixels of some videos are wrong, until it raises after two chunks."""

    def decode(uri: str, grid: SamplingGrid, **options: Any) -> Iterator[Any]:
        for number, item in enumerate(stand_in(uri, grid, **options)):
            if Path(uri).stem not in names:
                yield item
            elif number == 2:
                raise error(uri)
            else:
                assert isinstance(item, DeviceChunk)
                yield replace(item, frames=255 - item.frames)

    return decode


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user is told."""
    lines: list[str] = []
    monkeypatch.setattr("tfn_jobs.nvdec_report.say", lines.append)
    return lines


@pytest.fixture
def extracted(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Extract:
    """A function that extracts the videos in one call of an actor here, several chunks each."""
    rounds: list[Any] = []

    def stream(*args: Any, **options: Any) -> Any:
        rounds.append(args)
        return stream_here(*args, **options)

    monkeypatch.setattr(extract_job, "stream_through", stream)
    monkeypatch.setattr(extract_job, "cluster_totals", lambda: ClusterTotals(4, 0, 4))
    monkeypatch.setattr(extract_job, "require_resources", lambda *_, **__: None)
    monkeypatch.setattr(extract_job, "work_shares", lambda todo, **_: [todo])
    for module in (decode_actor, nvdec_actor):
        monkeypatch.setattr(module, "MAX_CHUNK_BYTES", SMALL_CHUNKS)

    def run(
        decoder: str, decode: Decode | None = None, **extraction: str
    ) -> tuple[ExtractJob, dict[str, np.ndarray]]:
        if decode:
            monkeypatch.setattr(nvdec_actor, "why_never", lambda device: None)
            monkeypatch.setattr(nvdec_actor, "decode_on_device", decode)
        settings = {"decoder": decoder, "feature_type": "float32", **extraction}
        spec = make_spec(clips=CLIPS, extraction=settings)
        job = make_job(Store.open(f"{store.root}/{decoder}"), spec, videos)
        rounds.clear()
        extract(job)
        assert len(rounds) == 1, "a second round would make good for videos mixed up in the first"
        return job, features_of(job)

    return run


def faults(job: ExtractJob) -> list[tuple[str, str, str, str]]:
    """Rows of both tables of faulty videos."""
    return [
        (table.name, row["video_id"], row["reason"], row["detail"])
        for table in (QUARANTINE, DAMAGED)
        for row in read_parts(job.folder, table)[0].to_pylist()
    ]


@pytest.mark.parametrize("batching", ["best_fit", "fixed"])
def test_features_are_those_of_the_same_pixels(
    extracted: Extract, said: list[str], batching: str
) -> None:
    """Bit by bit, with the same table of unusable videos, and nothing to tell."""
    by_pyav, expected = extracted("pyav", batching=batching)
    by_nvdec, found = extracted("nvdec", stand_in, batching=batching)
    assert sorted(found) == ["a", "b", "c"]
    assert_same_bits(found, expected)
    assert faults(by_nvdec) == faults(by_pyav)
    assert [fault[1:3] for fault in faults(by_nvdec)] == [("damaged", "truncated")]
    assert said == []


def test_frames_go_to_the_chosen_decoder(extracted: Extract) -> None:
    """Other pixels make other features: PyAV has no part in what NVDEC decodes."""

    def inverted(*args: Any, **options: Any) -> Iterator[DeviceChunk | DecodedVideo]:
        for item in stand_in(*args, **options):
            if isinstance(item, DeviceChunk):
                yield replace(item, frames=255 - item.frames)
            else:
                yield item

    _, expected = extracted("pyav")
    _, found = extracted("nvdec", inverted)
    assert all(np.abs(found[name] - expected[name]).max() > 1e-3 for name in expected)


def test_without_an_engine_pyav_decodes_all_and_the_user_is_told(
    extracted: Extract, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvdec_actor, "why_not_nvdec", lambda: "torch sees no CUDA device")
    by_pyav, expected = extracted("pyav")
    by_nvdec, found = extracted("nvdec")
    assert_same_bits(found, expected)
    assert faults(by_nvdec) == faults(by_pyav)
    why = "no NVDEC on the machine: torch sees no CUDA device"
    assert said == [
        f"[yellow]extract: decoder is nvdec, but PyAV decodes: {why}[/]",
        f"extract: PyAV decoded 3 videos instead of NVDEC: {why}",
    ]


def test_actors_in_ray_give_the_same(
    store: Store,
    make_spec: MakeSpec,
    videos: dict[str, Path],
    ray_session: None,
    extracted: Extract,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of them, without a GPU whatever the machine has."""
    _, expected = extracted("pyav")
    monkeypatch.undo()
    monkeypatch.setattr("tfn_jobs.nvdec_report.say", said.append)
    resources = {"model_actors": 2, "model_gpus": 0}
    extraction = {"decoder": "nvdec", "feature_type": "float32"}
    spec = make_spec(clips=CLIPS, extraction=extraction, resources=resources)
    job = make_job(Store.open(f"{store.root}/spread"), spec, videos)
    extract(job)
    assert_same_bits(features_of(job), expected)
    assert len(said) == 2 and "PyAV decoded 3 videos instead of NVDEC" in said[1]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (lambda uri: NotForNvdecError(f"{uri}: no such codec"), "no such codec"),
        (lambda uri: OSError(f"{uri} is away"), "reading its bytes failed: OSError"),
    ],
)
def test_a_video_given_up_midway_is_pyavs_from_its_start(
    extracted: Extract, said: list[str], error: Callable[[str], Exception], why: str
) -> None:
    _, expected = extracted("pyav")
    _, found = extracted("nvdec", fails_midway(error, "a", "c"))
    assert_same_bits(found, expected)
    assert said == [f"extract: PyAV decoded 2 videos instead of NVDEC: {why}"]


def test_damage_that_nvdec_leaves_to_pyav_is_told_by_its_tables(
    extracted: Extract, said: list[str]
) -> None:
    by_pyav, expected = extracted("pyav")
    decode = fails_midway(lambda uri: NotForNvdecError(f"{uri}: it ends early"), "damaged")
    by_nvdec, found = extracted("nvdec", decode)
    assert_same_bits(found, expected)
    assert faults(by_nvdec) == faults(by_pyav)
    assert said == []


def test_recoverable_damage_is_pyavs_to_salvage(extracted: Extract, said: list[str]) -> None:
    by_pyav, expected = extracted("pyav", damage="salvage")
    by_nvdec, found = extracted("nvdec", stand_in, damage="salvage")
    assert sorted(found) == ["a", "b", "c", "damaged"]
    assert_same_bits(found, expected)
    assert faults(by_nvdec) == faults(by_pyav)
    assert [fault[:3] for fault in faults(by_nvdec)] == [("DAMAGED", "damaged", "truncated")]
    assert said == []


def test_the_contract_names_both_decoders(
    store: Store, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> str:
        raise PackageNotFoundError(name)

    job = make_job(store, make_spec(extraction={"decoder": "nvdec"}), {})
    monkeypatch.setattr(extract_job.av, "__version__", "18.1.0")
    monkeypatch.setattr(extract_job, "version", lambda name: {"torchcodec": "0.17.0"}[name])
    expected = "nvdec (torchcodec 0.17.0), PyAV 18.1.0 where it cannot"
    assert feature_contract(job).decoder == expected
    monkeypatch.setattr(extract_job, "version", fails)
    assert feature_contract(job).decoder == "nvdec, PyAV 18.1.0 where it cannot"
    pyav = replace(job, spec=make_spec())
    assert feature_contract(pyav).decoder == "PyAV 18.1.0"


def test_an_actor_without_a_gpu_has_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On "cpu", torchcodec would decode with FFmpeg's own decoders, and nobody would notice."""
    monkeypatch.setattr(nvdec_actor, "why_not_nvdec", lambda: None)
    assert why_never(torch.device("cuda")) is None
    assert "resources.model_gpus" in str(why_never(torch.device("cpu")))
    monkeypatch.setattr(nvdec_actor, "why_not_nvdec", lambda: "no torchcodec")
    assert why_never(torch.device("cpu")) == "no NVDEC on the machine: no torchcodec"


@pytest.mark.nvdec
def test_torchcodec_on_a_cpu_gives_nearly_the_same_features(
    extracted: Extract, said: list[str]
) -> None:
    """Resized in another way, pixels of such hard-edged pictures differ by several levels."""
    _, expected = extracted("pyav")
    _, found = extracted("nvdec", nvdec_actor.decode_on_device)
    assert found.keys() == expected.keys()
    assert said == []
    for name, features in expected.items():
        assert found[name].shape == features.shape
        assert 0 < np.abs(found[name] - features).max() < 0.1 * np.abs(features).max()
