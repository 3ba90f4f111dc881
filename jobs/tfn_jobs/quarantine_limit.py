"""How many videos may be of no use before a job gives up."""

from collections import Counter
from dataclasses import dataclass

from tfn_platform.errors import StageError


@dataclass(frozen=True)
class QuarantineLimit:
    """A share of all videos.

    Attributes:
        max_share: the largest share that is fine.
        num_before: videos that an earlier stage left out.
        num_videos: videos that it passed on.
    """

    max_share: float
    num_before: int
    num_videos: int

    def check(self, quarantined: Counter[str]) -> None:
        """Raise StageError as soon as it is sure that too many are of no use, with the reasons."""
        count = quarantined.total() + self.num_before
        total = self.num_before + self.num_videos
        if count <= self.max_share * total:
            return
        reasons = ", ".join(f"{reason}: {number}" for reason, number in quarantined.most_common())
        before = f", {self.num_before} of them before this stage" if self.num_before else ""
        raise StageError(
            f"{count} of {total} videos cannot be used{before}, more than the share of "
            f"{self.max_share:g} that dataset.max_quarantined_share allows ({reasons}); what is "
            "finished is kept: raise the share, or mend the files, and run again"
        )
