"""The measured figures of a pipeline: what `evaluate` writes, and `report` and MLflow show."""

from typing import Literal

from tfn_platform.spec import Spec

Family = Literal["classifier", "bmn", "refiner", "fusion", "baseline"]


class EvaluationRow(Spec):
    """One member, or one step of the fusion. All figures are fractions, 0..1."""

    name: str
    """Such as ``bmn/d32`` or ``fusion/detections``."""
    family: Family
    """What kind of row it is."""
    stage_key: str
    """Key of the stage that made what is measured."""
    metrics: dict[str, float]
    """Any of top1, top5, ar_at_1, ar_at_5, ar_at_10, ar_at_100, auc, map_average, map_at_0.50 …"""
    average_recall: list[float] = []
    """Average recall with 1 to 100 proposals a video; empty where it has no proposals."""
    average_precision: list[float] = []
    """mAP at each threshold of `Evaluation.tious`; empty where it has no detections."""
    class_average_precision: list[float] = []
    """Average precision of each class, mean over thresholds, 0 without ground truth;
    empty where it has no detections."""


class FusionWeights(Spec):
    """The learned weight of each member, mean over folds."""

    title: str
    """What is fused, such as "boundary maps: start"."""
    members: list[str]
    """Names of the members."""
    weights: list[float]
    """One a member."""


class Evaluation(Spec):
    """All figures of one pipeline on its evaluation subset."""

    subset: str
    """The annotated subset that was scored."""
    num_videos: int
    """Annotated videos of the subset; those without predictions count as misses."""
    num_missing: int
    """Of these, videos that could not be used."""
    tious: list[float]
    """Temporal IoU thresholds."""
    class_names: list[str]
    """The classes, in the order of `confusion` and `class_average_precision`."""
    confusion: list[list[int]]
    """Videos by true class (row) and by the fused classifiers' first choice (column)."""
    rows: list[EvaluationRow]
    """Members first, then the steps of the fusion, then baselines."""
    weights: list[FusionWeights]
    """The learned weights."""
    detections_hash: str
    """Hash of the final DETECTIONS' values: equal hashes mean equal detections."""

    def row(self, name: str) -> EvaluationRow | None:
        """The row of a name, None if there is none."""
        return next((row for row in self.rows if row.name == name), None)


FINAL_ROW = "fusion/detections"
"""The row of the whole ensemble."""
BASELINE_ROW = "untrained"
"""The row of the first member of each family as initialised."""
