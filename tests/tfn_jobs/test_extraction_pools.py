"""What a spec leaves open is filled in from the cluster, and what cannot be is refused."""

import pytest

from tfn_jobs.extraction_pools import MOST, extraction_pools
from tfn_jobs.resources_spec import ResourcesSpec
from tfn_platform.cluster import ClusterTotals
from tfn_platform.errors import ResourceError

LAPTOP, GPU_CLUSTER = ClusterTotals(4, 0, 4), ClusterTotals(96, 8, 96)


def test_a_laptop_shares_its_cpus() -> None:
    pools = extraction_pools(ResourcesSpec(), LAPTOP)
    assert (pools.decode, pools.model, pools.model_gpus) == ((1, 3), (1, 3), 0)


def test_a_small_machine_is_not_crowded() -> None:
    """Of four logical CPUs on two processors, no kind takes more than two."""
    pools = extraction_pools(ResourcesSpec(), ClusterTotals(4, 0, 2))
    assert (pools.decode, pools.model) == ((1, 2), (1, 2))


def test_a_cluster_runs_a_model_on_each_gpu() -> None:
    pools = extraction_pools(ResourcesSpec(), GPU_CLUSTER)
    assert (pools.decode, pools.model, pools.model_gpus) == ((1, 95), (1, 8), 1)


def test_several_models_share_a_gpu() -> None:
    pools = extraction_pools(ResourcesSpec(model_gpus=0.5, model_cpus=0), GPU_CLUSTER)
    assert (pools.decode, pools.model) == ((1, 96), (1, 16))


def test_gpus_are_left_alone_if_asked() -> None:
    assert extraction_pools(ResourcesSpec(model_gpus=0), GPU_CLUSTER).model == (1, 95)


def test_numbers_of_the_spec_are_kept() -> None:
    resources = ResourcesSpec(decode_actors=5, model_actors=2, decode_cpus=0.5)
    pools = extraction_pools(resources, ClusterTotals(8, 0, 8))
    assert (pools.decode, pools.model) == ((5, 5), (2, 2))


@pytest.mark.parametrize(
    "resources",
    [
        ResourcesSpec(model_gpus=1),
        ResourcesSpec(decode_actors=4, model_actors=1),
        ResourcesSpec(decode_cpus=4),
    ],
)
def test_what_does_not_fit_is_refused(
    resources: ResourcesSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would wait for it for ever; unless the cluster starts machines by itself."""
    monkeypatch.delenv("TFN_CLUSTER_GROWS", raising=False)
    with pytest.raises(ResourceError, match="the cluster has 4 and 0; lower them"):
        extraction_pools(resources, LAPTOP)
    monkeypatch.setenv("TFN_CLUSTER_GROWS", "1")
    assert extraction_pools(resources, LAPTOP).model[1] in (1, MOST)
