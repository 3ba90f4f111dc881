"""Job: turn videos into FEATURES: decoding actors, model actors, one row group a video.

Everything that is finished survives whatever happens: the driver keeps it in parts and a journal,
and the same job again does the videos that are missing. Actors and machines may die meanwhile.
"""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfn_jobs.backbone_actor import BackboneActor
from tfn_jobs.backbones import read_network_config
from tfn_jobs.console import progress_bar, say
from tfn_jobs.decode_actor import MAX_CHUNK_BYTES, DecodeActor, decode_settings
from tfn_jobs.extraction_pools import ExtractionPools, extraction_pools
from tfn_jobs.feature_parts import FeatureParts
from tfn_jobs.nvdec_actor import NvdecActor
from tfn_jobs.nvdec_report import NvdecReport
from tfn_jobs.part_plan import plan_parts, work_shares
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.quarantine_limit import QuarantineLimit
from tfn_platform.checkpoint import load_torch, weights_hash
from tfn_platform.cluster import cluster_totals, require_resources
from tfn_platform.errors import ResourceError, StageError, TfnError
from tfn_platform.feature_index import features_hash, read_index, write_index
from tfn_platform.heap import KEEP_FREED_MEMORY
from tfn_platform.map_table import ActorStage, stream_through
from tfn_platform.parquet import read_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import QUARANTINE, VIDEOS, FeatureContract

MAX_FRUITLESS_ROUNDS = 3
SECONDS_AFTER_FRUITLESS = 15.0


@dataclass(frozen=True)
class ExtractJob:
    """What extraction reads and writes."""

    spec: PipelineSpec
    stage: Stage
    prepared: StageFolder
    backbone: StageFolder
    folder: StageFolder
    max_quarantined_share: float
    """Of all files, those that `prepare` left out included."""


def extract(job: ExtractJob) -> dict[str, int | str]:
    """Extract the features of all usable videos that have none yet.

    Returns:
        Figures for the commit: videos with features, videos in quarantine, the content's hash.

    Raises:
        StageError: more videos are in quarantine than the share allows, or none has features.
        ResourceError: the cluster was lost before it finished a single further video.
    """
    num_before = read_table(job.prepared, QUARANTINE)[0].num_rows
    contract = feature_contract(job)
    plan = plan_parts(
        # Not kept: the plan has what is needed of it.
        read_table(job.prepared, VIDEOS)[0],
        stride_seconds=contract.clip_seconds,
        bytes_per_clip=contract.feature_dim * np.dtype(contract.value_type).itemsize,
    )
    parts = FeatureParts(
        job.stage,
        job.folder,
        grid=job.spec.clips.grid(),
        contract=contract,
        plan=plan,
        journal_seconds=job.spec.extraction.journal_seconds,
    )
    limit = QuarantineLimit(
        job.max_quarantined_share, num_before=num_before, num_videos=parts.num_videos
    )
    limit.check(parts.quarantined)
    _check_resources(job)
    report = NvdecReport(parts.fallbacks)
    try:
        _make(job, parts, limit, report)
    finally:
        report.sum_up()
    num_videos = write_index(job.folder)
    if num_videos == 0:
        raise StageError(f"{job.folder.uri}: none of {parts.num_videos} videos could be decoded")
    _check_complete(job, parts, num_videos)
    parts.close()
    return {
        "videos": num_videos,
        "quarantined": parts.quarantined.total(),
        "features_hash": features_hash(job.folder),
    }


def _check_complete(job: ExtractJob, parts: FeatureParts, num_videos: int) -> None:
    """Every video has features or is in quarantine, and no other one has."""
    named = read_index(job.folder)["video_id"]
    is_known = pc.all(pc.is_in(named, value_set=parts.video_ids.combine_chunks())).as_py()
    if is_known and num_videos + parts.quarantined.total() == parts.num_videos:
        return
    raise StageError(
        f"{job.folder.uri}: of {parts.num_videos} videos {num_videos} have features and "
        f"{parts.quarantined.total()} are in quarantine: another run works in the same place, or "
        "did; wait for it to end, and run again"
    )


def _make(
    job: ExtractJob, parts: FeatureParts, limit: QuarantineLimit, report: NvdecReport
) -> None:
    """Do all videos that are left; machines that come and go may take several rounds."""
    todo, num_videos, num_fruitless = parts.todo(), parts.num_videos, 0
    done = num_videos - todo.num_rows
    if done:
        say(f"extract: {done} of {num_videos} videos are finished, {todo.num_rows} are left")
    with progress_bar(num_videos, what="extract", unit="video", done=done) as bar:
        while todo.num_rows:
            loss: TfnError = StageError(f"{job.folder.uri}: some videos did not come back")
            try:
                # Closed at once, whatever happens here: its actors hold all the CPUs.
                with closing(_stream(job, todo, only_single=num_fruitless > 0)) as made:
                    for rows in made:
                        bar.update(parts.add(rows))
                        report.warn()
                        limit.check(parts.quarantined)
            except ResourceError as error:
                loss = error
            finally:
                parts.flush()
            parts.forget_unfinished()
            before, todo = todo.num_rows, parts.todo()
            num_fruitless = num_fruitless + 1 if todo.num_rows == before else 0
            if num_fruitless == MAX_FRUITLESS_ROUNDS:
                raise loss
            if todo.num_rows:
                say(f"extract: {loss}; going on with the {todo.num_rows} videos that are left")
            time.sleep(num_fruitless * SECONDS_AFTER_FRUITLESS)


def _stream(
    job: ExtractJob, todo: pa.Table, *, only_single: bool
) -> Generator[pa.Table, None, None]:
    """One round, on the cluster as it is now."""
    actors = _actors(job, _pools(job))
    return stream_through(
        work_shares(todo, num_actors=actors[0].max_actors, only_single=only_single),
        actors,
        block_bytes=MAX_CHUNK_BYTES,
        patience_seconds=job.spec.extraction.patience_seconds,
    )


def _pools(job: ExtractJob) -> ExtractionPools:
    is_nvdec = job.spec.extraction.decoder == "nvdec"
    return extraction_pools(job.spec.resources, cluster_totals(), decodes_apart=not is_nvdec)


def _check_resources(job: ExtractJob) -> None:
    """Refuse at once what no machine of the cluster can hold."""
    for stage in _actors(job, _pools(job)):
        require_resources(stage.num_cpus, stage.num_gpus, purpose=f"a {stage.actor.__name__}")


def feature_contract(job: ExtractJob) -> FeatureContract:
    """How the features are made, for those who read them."""
    clips, architecture = job.spec.clips, job.spec.backbone.architecture
    network = read_network_config(job.backbone, architecture)
    return FeatureContract(
        backbone=architecture,
        weights_hash=weights_hash(load_torch(job.backbone.store, job.backbone.weights)),
        feature_dim=network.feature_dim,
        value_type=job.spec.extraction.feature_type,
        frames_per_clip=clips.frames_per_clip,
        frame_rate=clips.frame_rate,
        stride_seconds=clips.stride_seconds,
        alignment="center",
        short_side=clips.short_side,
        normalization=f"mean {_each(network.mean)}, std {_each(network.std)}, crop {clips.crop}",
        decoder=_decoder(job.spec.extraction.decoder),
        precision=job.spec.extraction.precision,
    )


def _each(channels: tuple[float, float, float]) -> str:
    """Numbers of red, green and blue; only one where they are the same."""
    numbers = channels[:1] if len(set(channels)) == 1 else channels
    return " ".join(f"{number:g}" for number in numbers)


def _decoder(chosen: str) -> str:
    """Names and versions of what may decode."""
    pyav = f"PyAV {av.__version__}"
    if chosen == "pyav":
        return pyav
    try:
        return f"nvdec (torchcodec {version('torchcodec')}), {pyav} where it cannot"
    except PackageNotFoundError:  # it is needed where the actors are, not here
        return f"nvdec, {pyav} where it cannot"


def _actors(job: ExtractJob, pools: ExtractionPools) -> list[ActorStage]:
    is_nvdec = job.spec.extraction.decoder == "nvdec"
    model = ActorStage(
        NvdecActor if is_nvdec else BackboneActor,
        {
            "spec": job.spec,
            "backbone": job.backbone,
            "device": "cuda" if pools.model_gpus else "cpu",
        },
        min_actors=pools.model[0],
        max_actors=pools.model[1],
        num_cpus=pools.model_cpus,
        num_gpus=pools.model_gpus,
        environment=KEEP_FREED_MEMORY,
    )
    if is_nvdec:
        return [model]
    decode = ActorStage(
        DecodeActor,
        {"settings": decode_settings(job.spec)},
        min_actors=pools.decode[0],
        max_actors=pools.decode[1],
        num_cpus=pools.decode_cpus,
    )
    return [decode, model]
