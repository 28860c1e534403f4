"""How many captioners a Ray cluster has room for."""

from dataclasses import replace

import pytest

from cluster.connect import Node, Resources
from configs.captioning import RayConfig
from jobs.captioning.placement import RayPool, ray_pool

NO_GPU = 0.0
MEMORY = 1_000


def cluster(*nodes: tuple[float, float]) -> Resources:
    """Returns the resources of nodes with these CPUs and GPUs."""
    return Resources([Node(cpus, gpus, MEMORY) for cpus, gpus in nodes])


@pytest.mark.parametrize(
    ("num_cpus", "num_gpus", "nodes", "expected"),
    [
        (0.9, NO_GPU, [(2, 0)], 2),
        (0.9, NO_GPU, [(0, 0), (16, 0), (1, 0)], 17),
        (0.9, NO_GPU, [(2, 0), (4, 1)], 6),
        (4.0, NO_GPU, [(7, 0), (3, 0), (8, 0)], 3),
        (0.0, NO_GPU, [(3, 0)], 3),
        (0.9, 1.0, [(8, 1), (8, 4), (16, 0)], 5),
        (0.9, 1.0, [(2, 4)], 2),
        (0.0, 1.0, [(0, 4)], 4),
        (0.9, 2.0, [(8, 1), (8, 1), (8, 3)], 1),
        (0.9, 0.5, [(8, 1), (8, 2)], 6),
        (0.9, 0.4, [(8, 2)], 4),
        (0.1, 0.1, [(8, 1)], 10),
        (0.9, 1.0, [(8, 0)], 1),
        (0.9, 1.0, [], 1),
    ],
)
def test_each_captioner_lies_on_one_node(
    num_cpus: float, num_gpus: float, nodes: list[tuple[float, float]], expected: int
) -> None:
    pool = RayPool(num_cpus, num_gpus, memory=0, min_actors=1, max_actors=None)
    assert pool.fitting(cluster(*nodes)) == expected
    assert replace(pool, max_actors=2).fitting(cluster(*nodes)) == min(expected, 2)


def test_memory_limits_captioners_too() -> None:
    pool = RayPool(1.0, NO_GPU, memory=300, min_actors=1, max_actors=None)
    assert pool.fitting(cluster((8, 0), (1, 0), (8, 0))) == 3 + 1 + 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (3, 3)),
        ({"address": "there:6379"}, (3, None)),
        ({"address": "there:6379", "min_actors": 1}, (1, None)),
        ({"address": "there:6379", "max_actors": 8}, (8, 8)),
        ({"min_actors": 1, "max_actors": 8}, (1, 8)),
        ({"min_actors": 9, "max_actors": 8}, (8, 8)),
        ({"min_actors": 1}, (1, 3)),
    ],
)
def test_a_pool_on_a_cluster_grows_unless_the_user_limits_it(
    given: dict[str, object], expected: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pool = ray_pool(RayConfig(**given), cluster((2, 0), (1, 0)), 0)  # type: ignore[arg-type]
    assert (pool.min_actors, pool.max_actors) == expected


def test_gpus_are_used_where_there_are_some() -> None:
    assert ray_pool(RayConfig(), cluster((8, 0), (8, 2)), 0).num_gpus == 1
    assert ray_pool(RayConfig(), cluster((8, 0)), 0).num_gpus == 0
    assert ray_pool(RayConfig(num_gpus=0.0), cluster((8, 2)), 0).num_gpus == 0
