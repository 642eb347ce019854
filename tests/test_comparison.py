"""Comparison: what differs, which run is best, in one search, bounded and escaped."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Look

from intelligentscan.app import Services
from intelligentscan.domain.comparison import RunComparison
from intelligentscan.domain.errors import IntelligentScanError, InvalidArgument, InvalidFilter, RunNotFound
from intelligentscan.domain.metrics import higher_is_better
from intelligentscan.stores.mlflow_open import MlflowStores

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIVE_MB = "x" * 5_000_000


@pytest.fixture
async def five(services: Services) -> list[str]:
    """Five runs: accuracy rises, loss is lowest in the third, depth differs, seed does not."""
    await services.experiments.create("exp")
    losses = [0.5, 0.4, 0.1, 0.2, 0.3]
    return [
        (
            await services.runs.log(
                "exp",
                run_name=f"run-{n}",
                params={"depth": n, "seed": 7} | ({"extra": "x"} if n == 4 else {}),
                metrics={"accuracy": n / 10, "val_loss": losses[n], "same": 1.0} | ({"rare": 1.0} if n == 0 else {}),
            )
        ).run_id
        for n in range(5)
    ]


def best(comparison: RunComparison) -> dict[str, str | None]:
    return {metric.key: metric.best_run_id for metric in comparison.metrics}


async def test_named_runs_are_compared_in_their_order_with_the_best_marked(services: Services, five: list[str]) -> None:
    wanted = list(reversed(five))
    found = await services.comparisons.compare(run_ids=wanted)
    assert [run.run_id for run in found.runs] == wanted
    assert best(found) == {"accuracy": five[4], "val_loss": five[2], "same": None, "rare": None}
    assert {m.key: m.higher_is_better for m in found.metrics}["val_loss"] is False
    assert found.metrics[0].values.keys() == set(five)
    assert found.findings is None
    for line in found.summary.splitlines():
        if line.startswith(("| accuracy", "| val_loss")):
            assert line.count("BEST") == 1
        else:
            assert "BEST" not in line


async def test_only_params_that_differ_are_shown_unless_all_are_wanted(services: Services, five: list[str]) -> None:
    some = await services.comparisons.compare(run_ids=five)
    assert {p.key for p in some.params} == {"depth", "extra"}
    every = await services.comparisons.compare(run_ids=five, only_differences=False)
    assert {p.key for p in every.params} == {"depth", "extra", "seed"}


async def test_five_named_runs_are_one_search_and_a_short_answer(
    services: Services, five: list[str], stores: MlflowStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await services.comparisons.compare(run_ids=five)
    calls: list[str] = []
    store = stores.tracking._store  # type: ignore[attr-defined]
    for name in ("search_runs", "get_run", "search_experiments", "get_experiment"):
        original = getattr(store, name)

        def counted(*args: Any, _name: str = name, _original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            calls.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(store, name, counted)
    found = await services.comparisons.compare(run_ids=five)
    assert calls == ["search_runs"]
    assert len(found.summary) <= 2_000


async def test_a_run_of_an_experiment_made_after_the_listing_is_found(
    services: Services, client: "MlflowClient", five: list[str]
) -> None:
    await services.comparisons.compare(run_ids=five)
    later = client.create_run(client.create_experiment("later"))
    found = await services.comparisons.compare(run_ids=[five[0], later.info.run_id])
    assert [run.run_id for run in found.runs] == [five[0], later.info.run_id]


async def test_the_runs_of_an_experiment_are_compared_in_the_order_asked_for(
    services: Services, five: list[str]
) -> None:
    found = await services.comparisons.compare(experiment="exp", top_k=3, order_by="metrics.val_loss ASC")
    assert [run.run_id for run in found.runs] == [five[2], five[3], five[4]]
    newest = await services.comparisons.compare(experiment="exp")
    assert {run.run_id for run in newest.runs} == set(five)


async def test_runs_may_be_named_by_prefix_and_latest(services: Services, five: list[str]) -> None:
    found = await services.comparisons.compare(run_ids=[five[0][:12], f" {five[1]} ", "latest"], experiment="exp")
    assert [run.run_id for run in found.runs[:2]] == five[:2]
    assert found.runs[2].run_id in five


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, InvalidArgument),
        ({"run_ids": []}, InvalidArgument),
        ({"run_ids": ["0" * 32]}, InvalidArgument),
        ({"run_ids": ["0" * 32] * 2}, InvalidArgument),
        ({"run_ids": ["0" * 32, "1" * 32]}, RunNotFound),
        ({"run_ids": [f"{n:032x}" for n in range(101)]}, InvalidArgument),
        ({"run_ids": ["x", "y"]}, InvalidArgument),
        ({"run_ids": [FIVE_MB, "y"]}, InvalidArgument),
        ({"run_ids": ["latest", "0" * 32]}, InvalidArgument),
        ({"experiment": "nowhere"}, IntelligentScanError),
        ({"experiment": "exp", "top_k": 1}, InvalidArgument),
        ({"experiment": "exp", "top_k": 101}, InvalidArgument),
        ({"experiment": "exp", "order_by": "nonsense x y"}, InvalidFilter),
        ({"experiment": "exp", "order_by": FIVE_MB}, InvalidFilter),
        ({"experiment": "Default"}, RunNotFound),
    ],
)
async def test_bad_input_is_refused_with_a_next_step_and_without_a_trace(
    services: Services,
    five: list[str],
    look: Callable[[], Look],
    given: dict[str, Any],
    error: type[IntelligentScanError],
) -> None:
    await services.experiments.search()
    before = look()
    with pytest.raises(error) as caught:
        await services.comparisons.compare(**given)
    assert caught.value.next
    assert len(str(caught.value)) < 1_000
    assert look() == before


async def test_a_missing_run_among_others_is_named(services: Services, five: list[str]) -> None:
    with pytest.raises(RunNotFound) as caught:
        await services.comparisons.compare(run_ids=[*five, "e" * 32])
    assert caught.value.details == {"missing": ["e" * 32]}


async def test_wanted_metrics_are_picked_and_unknown_ones_named(services: Services, five: list[str]) -> None:
    found = await services.comparisons.compare(run_ids=five, metrics=["accuracy", "unheard\nof"])
    assert [m.key for m in found.metrics] == ["accuracy"]
    assert any("unheard" in note for note in found.notes)
    assert all(note.isprintable() for note in found.notes)


async def test_a_value_that_is_no_number_is_never_best_nor_shown(
    services: Services, client: "MlflowClient", five: list[str]
) -> None:
    plain = client.create_run(client.get_experiment_by_name("exp").experiment_id)
    client.log_metric(plain.info.run_id, "accuracy", math.nan)
    client.log_metric(plain.info.run_id, "val_loss", math.nan)
    found = await services.comparisons.compare(run_ids=[plain.info.run_id, *five])
    assert (best(found)["accuracy"], best(found)["val_loss"]) == (five[4], five[2])
    assert "null" not in found.model_dump_json(include={"metrics": {"__all__": {"values"}}})
    whole = await services.runs.get(plain.info.run_id, metric_history=["accuracy"])
    assert whole.metrics == {}
    assert "accuracy" in whole.notes[0]
    assert whole.metric_history == {"accuracy": []}
    found = await services.runs.search("exp", filter=f"attributes.run_id = '{plain.info.run_id}'")
    assert found.runs[0].metrics == {}


async def test_hostile_names_stay_in_their_cells(services: Services, client: "MlflowClient", five: list[str]) -> None:
    evil = "a|b`c`\n| x | [y](http://evil) <b>\u202e"
    plain = client.create_run(client.get_experiment_by_name("exp").experiment_id, run_name=evil)
    client.log_param(plain.info.run_id, "depth", evil)
    found = await services.comparisons.compare(run_ids=[plain.info.run_id, five[0]])
    columns = {line.replace("\\|", "").count("|") for line in found.summary.splitlines()}
    assert columns == {4}
    for bad in ("](", "<b>", "\u202e", "`"):
        assert bad not in found.summary


async def test_a_hundred_runs_make_one_bounded_table(services: Services) -> None:
    await services.experiments.create("many")
    metrics = {f"metric_{i}": float(i) for i in range(20)}
    for n in range(100):
        more = {k: v + n for k, v in metrics.items()}
        await services.runs.log("many", run_name=f"a rather long name {n}", metrics=more)
    found = await services.comparisons.compare(experiment="many", top_k=100)
    assert len(found.runs) == 100
    assert len(found.summary) <= 2_000
    assert "more rows" in found.summary
    assert found.notes


@pytest.mark.parametrize(
    "key",
    ["loss", "val_loss", "train/loss", "rmse", "test.mse", "error_rate", "scan.duration_s", "latency_ms", "memory_mb",
     "vulnerabilities_found", "critical_count", "findings.high", "peak_memory", "false_negative.errors", "log loss",
     "training_time", "MAE", "inference_time_s", "validation-mlogloss", "eval-merror", "valid.l2", "nll", "valLoss"],
)  # fmt: skip
def test_less_is_better_of_durations_losses_errors_memory_and_findings(key: str) -> None:
    assert not higher_is_better(key)


@pytest.mark.parametrize(
    "key",
    ["accuracy", "f1", "roc_auc", "r2", "precision", "recall", "files_per_s", "throughput", "glossary", "terror_free",
     "timely", "tokens_per_s", "coverage", "blossom", "neg_mean_squared_error", "test_neg_log_loss"],
)  # fmt: skip
def test_more_is_better_of_everything_else(key: str) -> None:
    assert higher_is_better(key)
