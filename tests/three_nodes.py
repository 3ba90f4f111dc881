"""Run a pipeline on three Ray nodes of this machine and kill one while it extracts.

    python -m tests.three_nodes some|all SPEC ROOT [PATH.TO.FIELD=VALUE ...]

The node has some of the actors, or all of them. Prints the hash of the features. A program of its
own, as it connects to a cluster of its own.
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from tests.extraction_kills import finished_videos
from tfn_jobs.pipeline import Pipeline, run_pipeline
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.spec import load_spec
from tfn_platform.store import Store

CPUS_PER_NODE = 2
STORE_BYTES = 200 << 20
TIMEOUT_SECONDS = 600
MIN_FINISHED = 10


class Idler:
    """Occupies CPUs."""


def occupy(node: str) -> Any:
    """Keep others away from all CPUs of a node until what is returned is killed."""
    idler: Any = ray.remote(num_cpus=CPUS_PER_NODE, resources={node: 1})(Idler).remote()
    ray.get(idler.__ray_ready__.remote())
    return idler


def main(lost: str, spec_path: str, root: str, *overrides: str) -> None:
    """Start the nodes, run, kill a worker node under way, and check that it was under way."""
    spec = load_spec(PipelineSpec, Path(spec_path), overrides=list(overrides))
    pipeline = Pipeline.open(spec, Store.open(root))
    node: dict[str, Any] = {"num_cpus": CPUS_PER_NODE, "object_store_memory": STORE_BYTES}
    head = {**node, "resources": {"head": 1}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        first = cluster.add_node(**node)
        cluster.add_node(**node, resources={"second": 1})
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        idlers = [occupy(name) for name in ("head", "second") if lost == "all"]
        killed: list[int] = []

        def kill_under_way() -> None:
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while len(finished_videos(Path(root))) < MIN_FINISHED:
                assert time.monotonic() < deadline, "the extraction never got under way"
                time.sleep(0.05)
            cluster.remove_node(first, allow_graceful=False)
            for idler in idlers:
                ray.kill(idler)
            killed.append(len(finished_videos(Path(root))))

        killer = threading.Thread(target=kill_under_way)
        killer.start()
        run_pipeline(pipeline, address=None, on_epoch=lambda name, report: None)
        killer.join()
        alive = sum(entry["Alive"] for entry in ray.nodes())
        figures = pipeline.stages.extract.folder(pipeline.store).read_done()["figures"]
        print(f"killed after: {killed[0]} videos; nodes alive: {alive}")
        print(f"features hash: {figures['features_hash']}")
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
