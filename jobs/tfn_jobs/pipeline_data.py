"""The data set of a pipeline: where it lies, and whether the spec can be run on it."""

from tfn_jobs.data_location import AnnotationFile, DataLocation
from tfn_jobs.data_specs import AnnotatedDataSpec, SyntheticDataSpec
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.synthesize import ANNOTATIONS_FILE, VIDEOS_FOLDER
from tfn_platform.errors import DataError
from tfn_platform.stages import Stage
from tfn_platform.store import Store


def data_location(
    spec: PipelineSpec, store: Store, synthesized: Stage | None
) -> DataLocation | None:
    """Where the videos lie; None for a data set that is still to be rendered."""
    data = spec.dataset
    if not isinstance(data, SyntheticDataSpec):
        annotation = None
        if isinstance(data, AnnotatedDataSpec):
            annotation = AnnotationFile(data.format, data.annotations)
        share, tolerance = data.max_quarantined_share, data.duration_tolerance
        return DataLocation(data.videos, annotation, share, tolerance)
    if synthesized is None:
        return None
    uri = synthesized.folder(store).uri
    # A rendered data set may hold as many damaged files as were ordered.
    share = min(1.0, data.damaged_share + 0.05)
    annotation = AnnotationFile("activitynet", f"{uri}/{ANNOTATIONS_FILE}")
    return DataLocation((f"{uri}/{VIDEOS_FOLDER}",), annotation, share)


def check_data(spec: PipelineSpec, location: DataLocation) -> None:
    """Refuse a data set that the spec cannot be run on, before Ray starts.

    Raises:
        DataError: it cannot be read, lacks a subset, or has too few videos for the folds.
    """
    if location.annotation is None:
        return
    subsets = [video.subset for video in location.annotation.read()]
    for subset in (spec.training_subset, spec.evaluation.subset):
        if subset not in subsets:
            raise DataError(
                f"{location.annotation.uri}: no video of subset {subset!r}; "
                f"there are: {', '.join(sorted(set(subsets)))}"
            )
    count = subsets.count(spec.evaluation.subset)
    if spec.fusion.num_folds > count:
        raise DataError(
            f"fusion.num_folds: must be at most the {count} videos of subset "
            f"{spec.evaluation.subset!r}, got {spec.fusion.num_folds}"
        )
