"""Job: measure every member and every step of the fusion alike, on the evaluation subset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from tfn_jobs.class_score_tables import logits_of
from tfn_jobs.detection_tables import detect
from tfn_jobs.evaluation import BASELINE_ROW, FINAL_ROW, Evaluation, EvaluationRow, Family
from tfn_jobs.ground_truth import GroundTruth, read_ground_truth
from tfn_jobs.member_data import MemberData
from tfn_jobs.pipeline_spec import FusionSpec
from tfn_jobs.proposal_tables import (
    FUSED,
    MEAN,
    VideoProposals,
    proposal_rows,
    proposals_of,
    ranked_for,
)
from tfn_jobs.weights_file import read_weights
from tfn_models.metrics.classification import top_k_accuracy
from tfn_models.metrics.columns import TIOUS
from tfn_models.metrics.detection_map import DetectionMap, detection_map
from tfn_models.metrics.proposal_recall import ProposalRecall, proposal_recall
from tfn_platform.parquet import content_hash, read_table
from tfn_platform.store import StageFolder
from tfn_platform.tables import DETECTIONS, PROPOSALS

RECALL_POINTS = (1, 5, 10, 100)
Proposals = Mapping[str, VideoProposals]


@dataclass(frozen=True)
class EvaluateJob:
    """What the job reads and writes.

    Each baseline's mapping is empty, or holds one untrained member.
    """

    fusion: FusionSpec
    folder: StageFolder
    data: MemberData
    prepared: StageFolder
    classifiers: Mapping[str, StageFolder]
    bmns: Mapping[str, StageFolder]
    refiners: Mapping[str, StageFolder]
    untrained_classifiers: Mapping[str, StageFolder]
    untrained_bmns: Mapping[str, StageFolder]
    proposed: StageFolder
    fused: StageFolder


def evaluate(job: EvaluateJob) -> dict[str, float | str]:
    """Write the `Evaluation`; return the headline figures for the commit."""
    scorer = _Scorer(job)
    rows = [
        *(scorer.classifier(name, folder) for name, folder in job.classifiers.items()),
        *(scorer.bmn(name, folder) for name, folder in job.bmns.items()),
        *(scorer.refiner(name, folder) for name, folder in job.refiners.items()),
        *scorer.fusion_steps(),
        *scorer.baseline(),
    ]
    truth = scorer.truth
    detections, _ = read_table(job.fused, DETECTIONS)
    usable = {video.video_id for video in job.data.videos}
    evaluation = Evaluation(
        subset=job.data.evaluation_subset,
        num_videos=len(truth.video_ids),
        num_missing=sum(video_id not in usable for video_id in truth.video_ids),
        tious=TIOUS.tolist(),
        class_names=list(truth.class_names),
        confusion=scorer.confusion(),
        rows=rows,
        weights=[*read_weights(job.proposed), *read_weights(job.fused)],
        detections_hash=content_hash(detections),
    )
    job.folder.store.write_json(job.folder.metrics, evaluation.model_dump(mode="json"))
    final = evaluation.row(FINAL_ROW)
    assert final is not None
    return {**final.metrics, "detections_hash": evaluation.detections_hash}


@dataclass
class _Scorer:
    """Reads what was predicted and measures it against one ground truth."""

    job: EvaluateJob
    truth: GroundTruth = field(init=False)
    proposed: pa.Table = field(init=False)
    refined: pa.Table = field(init=False)
    video_ids: list[str] = field(init=False)

    def __post_init__(self) -> None:
        job, data = self.job, self.job.data
        self.truth = read_ground_truth(
            job.prepared, subset=data.evaluation_subset, class_names=data.class_names
        )
        self.proposed = read_table(job.proposed, PROPOSALS)[0]
        self.refined = read_table(job.fused, PROPOSALS)[0]
        evaluated = data.of_subset(data.evaluation_subset)
        self.video_ids = [data.videos[v].video_id for v in evaluated]

    def classifier(self, name: str, folder: StageFolder) -> EvaluationRow:
        """A classifier alone: its own accuracy, and its classes on the final proposals."""
        logits = logits_of(folder, self.video_ids)
        found = self._detections(logits, proposals_of(self.refined, FUSED))
        return _row(
            f"classifier/{name}",
            "classifier",
            folder,
            self._accuracy(logits),
            num_classes=self._num_classes,
            detection=found,
        )

    def bmn(self, name: str, folder: StageFolder) -> EvaluationRow:
        """A BMN alone: its own proposals, with the fused classes for mAP."""
        return self._proposal_row(f"bmn/{name}", "bmn", folder, name, self._fused_logits(FUSED))

    def refiner(self, name: str, folder: StageFolder) -> EvaluationRow:
        """A refiner alone, on the fused proposals and with the fused classes."""
        return self._refined_row(f"refiner/{name}", "refiner", folder, name, FUSED)

    def fusion_steps(self) -> list[EvaluationRow]:
        """Each step with learned weights, and with the plain mean next to it."""
        job, rows = self.job, []
        for name, suffix in ((FUSED, ""), (MEAN, " (mean)")):
            logits = self._fused_logits(name)
            accuracy = self._accuracy(logits)
            rows += [
                _row(f"fusion/classifiers{suffix}", "fusion", job.fused, accuracy),
                self._proposal_row(
                    f"fusion/proposals{suffix}", "fusion", job.proposed, name, logits
                ),
                self._refined_row(f"{FINAL_ROW}{suffix}", "fusion", job.fused, name, name),
            ]
        return rows

    def baseline(self) -> list[EvaluationRow]:
        """An untrained classifier's classes on an untrained BMN's proposals."""
        job = self.job
        for classifier in job.untrained_classifiers.values():
            for name, bmn in job.untrained_bmns.items():
                logits = logits_of(classifier, self.video_ids)
                row = self._proposal_row(BASELINE_ROW, "baseline", bmn, name, logits)
                metrics = {**self._accuracy(logits), **row.metrics}
                return [row.model_copy(update={"metrics": metrics})]
        return []

    def confusion(self) -> list[list[int]]:
        """Videos by true main class and fused first choice, over the trained classes that occur."""
        data = self.job.data
        count = len(self.truth.class_names)
        matrix = np.zeros((count, count), dtype=np.int64)
        choices = self._fused_logits(FUSED).argmax(1).tolist()
        for v, choice in zip(data.of_subset(data.evaluation_subset), choices, strict=True):
            matrix[data.videos[v].main_label, choice] += 1
        return [[int(value) for value in row] for row in matrix]

    @property
    def _num_classes(self) -> int:
        return len(self.truth.class_names)

    def _fused_logits(self, member: str) -> torch.Tensor:
        return logits_of(self.job.fused, self.video_ids, member=member)

    def _accuracy(self, logits: torch.Tensor) -> dict[str, float]:
        """Top-1 and top-5 over all annotated videos; those without scores count as misses."""
        scores = np.full((len(self.truth.video_ids), len(self.truth.class_names)), -np.inf)
        row = {video_id: position for position, video_id in enumerate(self.truth.video_ids)}
        rows = [row[video_id] for video_id in self.video_ids]
        scores[rows, : logits.shape[1]] = logits.numpy()
        labels, most = self.truth.labels_of_videos(), scores.shape[1]
        return {f"top{k}": top_k_accuracy(scores, labels, k=min(k, most)) for k in (1, 5)}

    def _proposal_row(
        self, row: str, family: Family, folder: StageFolder, member: str, logits: torch.Tensor
    ) -> EvaluationRow:
        recall = self._recall(proposals_of(self.proposed, ranked_for(member, "recall")))
        ranked = proposals_of(self.proposed, ranked_for(member, "detection"))
        found = self._detections(logits, ranked)
        return _row(
            row, family, folder, {}, num_classes=self._num_classes, recall=recall, detection=found
        )

    def _refined_row(
        self, row: str, family: Family, folder: StageFolder, member: str, classes: str
    ) -> EvaluationRow:
        proposals = proposals_of(self.refined, member)
        logits = self._fused_logits(classes)
        accuracy = self._accuracy(logits) if family == "fusion" else {}
        return _row(
            row,
            family,
            folder,
            accuracy,
            num_classes=self._num_classes,
            recall=self._recall(proposals),
            detection=self._detections(logits, proposals),
        )

    def _recall(self, proposals: Proposals) -> ProposalRecall:
        # Fused proposals are those of all videos; the metric shares its allowance among them all.
        own = {name: proposals[name] for name in self.video_ids if name in proposals}
        return proposal_recall(self.truth.segments, self.truth.number(proposal_rows({"": own})))

    def _detections(self, logits: torch.Tensor, proposals: Proposals) -> DetectionMap:
        detections = detect(
            self.video_ids,
            logits,
            proposals,
            fusion=self.job.fusion,
            class_names=self.job.data.class_names,
        )
        return detection_map(self.truth.segments, self.truth.number(detections))


def _row(
    name: str,
    family: Family,
    folder: StageFolder,
    accuracy: Mapping[str, float],
    *,
    num_classes: int = 0,
    recall: ProposalRecall | None = None,
    detection: DetectionMap | None = None,
) -> EvaluationRow:
    metrics = dict(accuracy)
    curve: Sequence[float] = []
    if recall is not None:
        metrics |= {f"ar_at_{n}": recall.at(n) for n in RECALL_POINTS}
        metrics["auc"] = recall.auc / 100
        curve = recall.average_recall.tolist()
    precision: Sequence[float] = []
    by_class: Sequence[float] = []
    if detection is not None:
        precision = detection.mean_ap.tolist()
        precision_of = dict(zip(detection.labels.tolist(), detection.ap.mean(axis=0), strict=True))
        by_class = [float(precision_of.get(label, 0.0)) for label in range(num_classes)]
        metrics["map_average"] = detection.average
        metrics |= {
            f"map_at_{tiou:.2f}": value
            for tiou, value in zip(detection.tious.tolist(), precision, strict=True)
        }
    return EvaluationRow(
        name=name,
        family=family,
        stage_key=folder.key,
        metrics=metrics,
        average_recall=list(curve),
        average_precision=list(precision),
        class_average_precision=list(by_class),
    )
