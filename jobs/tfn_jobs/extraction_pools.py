"""How many actors decode and how many run the backbone, on the cluster at hand."""

import os
from dataclasses import dataclass

from tfn_jobs.resources_spec import ResourcesSpec
from tfn_platform.cluster import ClusterTotals
from tfn_platform.errors import ResourceError

MOST = 1024
"""Of either kind, where the cluster grows by itself."""


@dataclass(frozen=True)
class ExtractionPools:
    """Least and most actors of both pools, and what one of each occupies."""

    decode: tuple[int, int]
    model: tuple[int, int]
    decode_cpus: float
    model_cpus: float
    model_gpus: float


def extraction_pools(
    resources: ResourcesSpec, totals: ClusterTotals, *, decodes_apart: bool = True
) -> ExtractionPools:
    """Fill in what a spec leaves open.

    Pools grow as work piles up, and both can grow into whatever the other one leaves free: how
    much decoding a second of the backbone needs is not known beforehand.

    Args:
        resources: of the spec.
        totals: of the cluster.
        decodes_apart: whether there are decoding actors at all.

    Raises:
        ResourceError: the cluster cannot hold one actor of each kind.
    """
    cpus, gpus = totals.cpus, totals.gpus
    grows = bool(os.environ.get("TFN_CLUSTER_GROWS"))
    model_gpus = resources.model_gpus
    if model_gpus is None:
        model_gpus = 1.0 if gpus >= 1 else 0.0
    least_decode, least_model = resources.decode_actors or 1, resources.model_actors or 1
    decode_cpus = resources.decode_cpus if decodes_apart else 0.0
    needed_cpus = least_decode * decode_cpus + least_model * resources.model_cpus
    needed_gpus = least_model * model_gpus
    if (needed_cpus > cpus or needed_gpus > gpus) and not grows:
        raise ResourceError(
            f"{least_decode} decoding and {least_model} extracting actors need {needed_cpus:g} "
            f"CPUs and {needed_gpus:g} GPUs, the cluster has {cpus:g} and {gpus:g}; "
            "lower them in the spec's resources"
        )
    # No more of either than there are processors: a small machine has more logical ones.
    most_decode = min(
        _fitting(cpus - least_model * resources.model_cpus, resources.decode_cpus),
        _fitting(totals.processors, resources.decode_cpus),
    )
    most_model = min(
        _fitting(cpus - least_decode * decode_cpus, resources.model_cpus),
        _fitting(totals.processors, resources.model_cpus),
    )
    if model_gpus:
        most_model = min(most_model, _fitting(gpus, model_gpus))
    return ExtractionPools(
        _range(resources.decode_actors, MOST if grows else most_decode),
        _range(resources.model_actors, MOST if grows else most_model),
        resources.decode_cpus,
        resources.model_cpus,
        model_gpus,
    )


def _fitting(there: float, each: float) -> int:
    """How many actors fit, at least one."""
    return min(MOST, max(1, int(there / each))) if each else MOST


def _range(wanted: int | None, most: int) -> tuple[int, int]:
    return (wanted, wanted) if wanted is not None else (1, most)
