"""What may be written about a data set, and what is said about the rest."""

from pathlib import Path
from typing import Any

import pytest

from tfn_jobs.data_specs import VideosDataSpec, annotation_problems
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.spec_fields import RUNS_ELSEWHERE
from tfn_platform.errors import SpecError
from tfn_platform.spec import load_spec, parse_spec


def parse(videos: Any, *, elsewhere: bool = False) -> tuple[str, ...]:
    data = {"format": "videos", "videos": videos}
    context = {RUNS_ELSEWHERE: elsewhere}
    return parse_spec(VideosDataSpec, data, source="", context=context).videos


def test_places_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "videos").mkdir()
    assert parse("videos") == (str(tmp_path / "videos"),)
    assert parse("./videos/../videos/**/*.mp4") == (f"{tmp_path}/videos/**/*.mp4",)
    assert parse(["~/a.mp4", "s3://b/c", "d.csv"]) == (
        "/home/me/a.mp4",
        "s3://b/c",
        f"{tmp_path}/d.csv",
    )


def test_a_single_place_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="videos: there is no file or folder '/no/such'"):
        parse("/no/such")
    assert parse(["/no/such", "/nor/this"]) == ("/no/such", "/nor/this")
    assert parse("/no/such", elsewhere=True) == ("/no/such",)


def test_what_a_cluster_could_not_find(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="must be absolute, or a URI, for a cluster"):
        parse("videos", elsewhere=True)
    for nothing in ("", [], ["/a", ""]):
        with pytest.raises(SpecError, match="videos"):
            parse(nothing)


def test_the_shipped_extraction_takes_ones_own_folder(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").touch()
    overrides = [f"dataset.videos={tmp_path}", f"backbone.checkpoint={tmp_path}/weights.pt"]
    spec = load_spec(PipelineSpec, repository / "jobs" / "extract.yaml", overrides=overrides)
    assert isinstance(spec.dataset, VideosDataSpec)
    assert spec.dataset.videos == (str(tmp_path),)
    assert spec.until == "extract" and spec.backbone.finetune is None


def problems(repository: Path, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(PipelineSpec, repository / "jobs" / "extract.yaml", overrides=overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_videos_without_an_annotation_end_at_their_features(repository: Path) -> None:
    found = problems(repository, "until=propose", "backbone.finetune={}")
    assert any(text.startswith("until: must be `extract` or an earlier step") for text in found)
    assert any(text.startswith("backbone.finetune: must be null") for text in found)
    (only,) = problems(repository, "backbone.finetune={}", "until=finetune")
    assert "name a `checkpoint` and write `finetune: null`" in only


def test_looking_into_videos_needs_no_backbone() -> None:
    data = {"dataset": {"format": "videos"}, "until": "prepare"}
    assert annotation_problems(data, needs_members=False) == []
    assert annotation_problems({"dataset": {"format": "hacs"}}, needs_members=True) == []
    assert annotation_problems({"dataset": "videos"}, needs_members=True) == []
    # A wrong section is told of elsewhere.
    wrong = {"dataset": {"format": "videos"}, "until": "extract", "backbone": 3}
    assert annotation_problems(wrong, needs_members=False) == []
