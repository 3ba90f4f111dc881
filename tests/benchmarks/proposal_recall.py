"""AR@AN and its area on as many videos as HACS validation has, against the definition's loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.measure import Comparison
from tfn_models.metrics import TIOUS, ProposalRecall, ScoredSegments, Segments, proposal_recall

Array = NDArray[np.float64]

NUM_VIDEOS = 5_981
PROPOSALS_PER_VIDEO = 100


@dataclass(frozen=True)
class OneVideo:
    """Start and end of a video's actions [G, 2] and proposals [P, 2], and their scores [P]."""

    actions: Array
    proposals: Array
    scores: Array


@dataclass(frozen=True)
class LoopRecall:
    """What the loops find: `recall` [n_tiou, 100], `numbers` of proposals [100], `auc` per cent."""

    recall: Array
    numbers: Array
    auc: float


def comparisons(*, small: bool) -> list[Comparison]:
    """The whole validation set on both sides."""
    num_videos = 12 if small else NUM_VIDEOS
    truth, found = make_case(num_videos)
    videos = split_by_video(truth, found)
    return [
        Comparison(
            name=f"AR@AN and AUC, {num_videos:,} videos x {PROPOSALS_PER_VIDEO} proposals",
            ours=lambda: proposal_recall(truth, found),
            textbook=lambda: loop_recall(videos),
            check=_check,
            goal=80.0,
            note="loops over tIoUs, videos and numbers of proposals; grouping by video not timed",
        )
    ]


def make_case(num_videos: int) -> tuple[Segments, ScoredSegments]:
    """About three actions and exactly a hundred proposals a video, half of them near an action.

    Times are in seconds. Scores have four decimals, as in files that people hand in, so some tie.
    """
    rng = np.random.default_rng(0)
    seconds = rng.uniform(40.0, 240.0, num_videos)
    count = 1 + rng.poisson(2.05, num_videos)
    of_action = np.repeat(np.arange(num_videos), count)
    start = rng.uniform(0.0, 0.85, len(of_action)) * seconds[of_action]
    length = rng.gamma(1.5, 20.0, len(of_action)) + 1.0
    truth = _segments(of_action, start, length)

    videos = np.repeat(np.arange(num_videos), PROPOSALS_PER_VIDEO)
    number = len(videos)
    action = (np.cumsum(count) - count)[videos] + (rng.random(number) * count[videos]).astype(int)
    near = rng.random(number) < 0.5
    shifted = start[action] + rng.normal(0.0, 0.15, number) * length[action]
    anywhere = rng.uniform(0.0, 0.9, number) * seconds[videos]
    stretched = length[action] * rng.uniform(0.7, 1.4, number)
    any_length = rng.gamma(1.5, 20.0, number) + 1.0
    proposals = _segments(
        videos, np.where(near, shifted, anywhere), np.where(near, stretched, any_length)
    )
    score = np.round(rng.random(number) * np.where(near, 1.0, 0.7), 4)
    return truth, ScoredSegments(**vars(proposals), score=score)


def _segments(video: NDArray[np.int64], start: Array, length: Array) -> Segments:
    return Segments(video=video, label=np.zeros_like(video), start=start, end=start + length)


def split_by_video(truth: Segments, found: ScoredSegments) -> list[OneVideo]:
    """One table a video, which a data frame grouped by video would give."""
    actions, proposals = _rows_by_video(truth), _rows_by_video(found)
    goals = np.stack([truth.start, truth.end], axis=1)
    segments = np.stack([found.start, found.end], axis=1)
    return [
        OneVideo(
            actions=goals[rows],
            proposals=segments[proposals[video]],
            scores=found.score[proposals[video]],
        )
        for video, rows in actions.items()
    ]


def _rows_by_video(table: Segments | ScoredSegments) -> dict[int, NDArray[np.int64]]:
    order = np.argsort(table.video, kind="stable")
    videos, first = np.unique(table.video[order], return_index=True)
    return dict(zip(videos.tolist(), np.split(order, first[1:]), strict=True))


def loop_recall(videos: list[OneVideo], *, max_average: float = 100.0) -> LoopRecall:
    """Average recall over the average number of proposals, as the definition reads.

    Every video gives the same share of its proposals; for each threshold, video and point of the
    curve the actions that one of the best proposals reaches are counted.
    """
    target = max_average * float(len(videos))
    ratio = target / sum(len(video.proposals) for video in videos)
    ious = []
    for video in videos:
        best_first = video.proposals[video.scores.argsort()[::-1]]
        number = min(int(len(best_first) * ratio), len(best_first))
        ious.append(_iou_table(video.actions, best_first[:number]))
    total = sum(iou.shape[1] for iou in ious)
    num_actions = sum(len(iou) for iou in ious)
    shares = np.arange(1, 101) / 100.0 * (target / total)
    recall = np.empty((len(TIOUS), len(shares)))
    for row, tiou in enumerate(TIOUS):
        found = np.zeros((len(ious), len(shares)))
        for video_number, iou in enumerate(ious):
            reached = iou >= tiou
            numbers = np.minimum((iou.shape[1] * shares).astype(np.int64), iou.shape[1])
            for point, number in enumerate(numbers):
                found[video_number, point] = np.count_nonzero(reached[:, :number].sum(axis=1))
        recall[row] = found.sum(axis=0) / float(num_actions)
    numbers_on_average = shares * (float(total) / len(videos))
    area = np.trapezoid(recall.mean(axis=0), numbers_on_average)
    return LoopRecall(recall, numbers_on_average, float(100.0 * area / numbers_on_average[-1]))


def _iou_table(actions: Array, proposals: Array) -> Array:
    """IoU of every action [G, 2] with every proposal [P, 2]: [G, P]."""
    table = np.empty((len(actions), len(proposals)))
    for row, (start, end) in enumerate(actions):
        overlap = np.minimum(end, proposals[:, 1]) - np.maximum(start, proposals[:, 0])
        overlap = overlap.clip(0)
        union = (end - start) + (proposals[:, 1] - proposals[:, 0]) - overlap
        table[row] = overlap / union
    return table


def _check(ours: object, textbook: object) -> None:
    assert isinstance(ours, ProposalRecall)
    assert isinstance(textbook, LoopRecall)
    assert np.array_equal(ours.recall, textbook.recall)
    assert np.array_equal(ours.proposals_per_video, textbook.numbers)
    assert ours.auc == textbook.auc
