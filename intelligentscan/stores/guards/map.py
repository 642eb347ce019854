"""Which rows of MLflow belong to which experiment or governed version: the one table that guards and digests read.

A row belongs to an experiment if one of its table's `reaches` leads there. Older schemas lack some of the
columns and tables named here; what leads through a missing one is left away by whoever reads the map.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """One way from a row to an experiment.

    Attributes:
        column: the row's column that leads on.
        via: the table whose row it names; empty if it holds the experiment's id itself.
        key: the column of `via` that it names.
        when: condition under which the way counts; `{row}` stands for the row.
        text: whether the id is held as text.
    """

    column: str
    via: str = ""
    key: str = ""
    when: str = ""
    text: bool = False


@dataclass(frozen=True, slots=True)
class Guarded:
    """A table whose rows belong to experiments.

    Attributes:
        columns: all columns known; another one is unknown territory.
        key: the primary key.
        unique: further unique keys.
        unique_among: columns that are unique among the rows of a condition on `{row}`.
        reaches: the ways from a row to its experiments.
        digested: whether the rows are part of their experiment's digest.
        left_out: columns that the digest leaves out.
        exempt: condition of rows that stay free and out of the digest; `{row}` stands for the row.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    reaches: tuple[Reach, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    unique_among: tuple[tuple[str, ...], str] | None = None
    digested: bool = True
    left_out: tuple[str, ...] = ()
    exempt: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """A table of the model registry, whose rows belong to a registered name or to one version of it.

    Attributes:
        columns: all columns known; another one is unknown territory.
        key: the primary key, without `workspace` in schemas older than workspaces.
        versioned: whether a row belongs to one version, and so to that version's digest.
        free: columns that may change, and that the digest leaves out.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    versioned: bool = False
    free: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A table without guards, although the named columns of it lead to an experiment or a version."""

    name: str
    columns: tuple[str, ...]
    reason: str


OF_EXPERIMENT = Reach("experiment_id")
OF_RUN = Reach("run_uuid", "runs", "run_uuid")
OF_MODEL = Reach("model_id", "logged_models", "model_id")
OF_TRACE = Reach("trace_id", "trace_info", "request_id")
OF_REQUEST = Reach("request_id", "trace_info", "request_id")
OF_SCORER = Reach("scorer_id", "scorers", "scorer_id")
OF_QUEUE = Reach("queue_id", "review_queues", "queue_id")

# A run may take a locked experiment's model as its input: that row belongs to the run alone.
_NO_INPUT = "NOT ({row}.source_type = 'RUN_INPUT' AND {row}.destination_type = 'MODEL_INPUT')"
# A trace may be linked to a run elsewhere: that row belongs to the run alone.
_NO_RUN = "{row}.source_type = 'trace' AND {row}.destination_type <> 'run'"

GUARDED = (
    Guarded(
        "experiments",
        ("experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time", "last_update_time",
         "workspace"),
        ("experiment_id",),
        (OF_EXPERIMENT,),
        unique=(("workspace", "name"),),
    ),
    Guarded("experiment_tags", ("key", "value", "experiment_id"), ("key", "experiment_id"), (OF_EXPERIMENT,)),
    Guarded(
        "runs",
        ("run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time",
         "end_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id", "deleted_time"),
        ("run_uuid",),
        (OF_EXPERIMENT,),
    ),
    Guarded("params", ("key", "value", "run_uuid"), ("key", "run_uuid"), (OF_RUN,)),
    Guarded(
        "tags",
        ("key", "value", "run_uuid"),
        ("key", "run_uuid"),
        (OF_RUN,),
        # the index that lets one writer of an idempotency key win
        unique_among=(("value",), "{row}.key = 'intelligentscan.idempotency'"),
    ),
    Guarded(
        "metrics",
        ("key", "value", "timestamp", "run_uuid", "step", "is_nan"),
        ("key", "timestamp", "step", "run_uuid", "value", "is_nan"),
        (OF_RUN,),
    ),
    Guarded(
        "latest_metrics",
        ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
        ("key", "run_uuid"),
        (OF_RUN,),
    ),
    Guarded(
        "datasets",
        ("dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source",
         "dataset_schema", "dataset_profile"),
        ("experiment_id", "name", "digest"),
        # runs name their data sets by this number, which is not unique: another row of it would be shown instead
        (OF_EXPERIMENT, Reach("dataset_uuid", "datasets", "dataset_uuid")),
    ),
    Guarded(
        "inputs",
        ("input_uuid", "source_type", "source_id", "destination_type", "destination_id", "step"),
        ("source_type", "source_id", "destination_type", "destination_id"),
        (
            Reach("source_id", "runs", "run_uuid"),
            Reach("destination_id", "runs", "run_uuid"),
            Reach("destination_id", "logged_models", "model_id", when=_NO_INPUT),
        ),
    ),
    Guarded(
        "input_tags",
        ("input_uuid", "name", "value"),
        ("input_uuid", "name"),
        (Reach("input_uuid", "inputs", "input_uuid"),),
    ),
    Guarded(
        "logged_models",
        ("model_id", "experiment_id", "name", "artifact_location", "creation_timestamp_ms",
         "last_updated_timestamp_ms", "status", "lifecycle_stage", "model_type", "source_run_id", "status_message"),
        ("model_id",),
        (OF_EXPERIMENT, Reach("source_run_id", "runs", "run_uuid")),
    ),
    Guarded(
        "logged_model_params",
        ("model_id", "experiment_id", "param_key", "param_value"),
        ("model_id", "param_key"),
        (OF_EXPERIMENT, OF_MODEL),
    ),
    Guarded(
        "logged_model_tags",
        ("model_id", "experiment_id", "tag_key", "tag_value"),
        ("model_id", "tag_key"),
        (OF_EXPERIMENT, OF_MODEL),
        exempt="{row}.tag_key = 'mlflow.modelVersions'",  # written by every registration from that model
    ),
    Guarded(
        "logged_model_metrics",
        ("model_id", "metric_name", "metric_timestamp_ms", "metric_step", "metric_value", "experiment_id", "run_id",
         "dataset_uuid", "dataset_name", "dataset_digest"),
        ("model_id", "metric_name", "metric_timestamp_ms", "metric_step", "run_id"),
        (OF_EXPERIMENT, OF_MODEL, Reach("run_id", "runs", "run_uuid")),
    ),
    Guarded(
        "trace_info",
        ("request_id", "experiment_id", "timestamp_ms", "execution_time_ms", "status", "client_request_id",
         "request_preview", "response_preview", "db_payload_generation", "trace_name", "session_id", "input_tokens",
         "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
         "cache_creation_input_tokens_above_1hr", "input_cost", "output_cost", "total_cost"),
        ("request_id",),
        (OF_EXPERIMENT,),
    ),
    Guarded("trace_tags", ("key", "value", "request_id"), ("key", "request_id"), (OF_REQUEST,)),
    Guarded("trace_request_metadata", ("key", "value", "request_id"), ("key", "request_id"), (OF_REQUEST,)),
    Guarded("trace_metrics", ("request_id", "key", "value"), ("request_id", "key"), (OF_REQUEST,)),
    Guarded(
        "spans",
        ("trace_id", "experiment_id", "span_id", "parent_span_id", "name", "type", "status",
         "start_time_unix_nano", "end_time_unix_nano", "duration_ns", "content", "input_cost", "output_cost",
         "total_cost", "model_name", "model_provider", "dimension_attributes"),
        ("trace_id", "span_id"),
        (OF_EXPERIMENT, OF_TRACE),
    ),
    Guarded("span_metrics", ("trace_id", "span_id", "key", "value"), ("trace_id", "span_id", "key"), (OF_TRACE,)),
    Guarded(
        "assessments",
        ("assessment_id", "trace_id", "name", "assessment_type", "value", "error", "created_timestamp",
         "last_updated_timestamp", "source_type", "source_id", "run_id", "span_id", "rationale", "overrides", "valid",
         "assessment_metadata", "experiment_id", "trace_timestamp_ms", "aggregate_value", "is_numeric_value"),
        ("assessment_id",),
        (OF_EXPERIMENT, OF_TRACE, Reach("run_id", "runs", "run_uuid")),
    ),
    Guarded(
        "entity_associations",
        ("association_id", "source_type", "source_id", "destination_type", "destination_id", "created_time"),
        ("source_type", "source_id", "destination_type", "destination_id"),
        (
            Reach("source_id", when="{row}.source_type = 'experiment'", text=True),
            Reach("destination_id", when="{row}.destination_type = 'experiment'", text=True),
            Reach("source_id", "runs", "run_uuid", when="{row}.source_type = 'run'"),
            Reach("destination_id", "runs", "run_uuid", when="{row}.destination_type = 'run'"),
            Reach("source_id", "trace_info", "request_id", when=_NO_RUN),
        ),
    ),
    Guarded(
        "issues",
        ("issue_id", "experiment_id", "name", "description", "status", "severity", "root_causes", "source_run_id",
         "categories", "created_timestamp", "last_updated_timestamp", "created_by"),
        ("issue_id",),
        (OF_EXPERIMENT, Reach("source_run_id", "runs", "run_uuid")),
    ),
    Guarded(
        "scorers",
        ("experiment_id", "scorer_name", "scorer_id"),
        ("scorer_id",),
        (OF_EXPERIMENT,),
        unique=(("experiment_id", "scorer_name"),),
    ),
    Guarded(
        "scorer_versions",
        ("scorer_id", "scorer_version", "serialized_scorer", "creation_time"),
        ("scorer_id", "scorer_version"),
        (OF_SCORER,),
    ),
    Guarded(
        "online_scoring_configs",
        ("online_scoring_config_id", "scorer_id", "sample_rate", "experiment_id", "filter_string"),
        ("online_scoring_config_id",),
        (OF_EXPERIMENT, OF_SCORER),
    ),
    Guarded(
        "label_schemas",
        ("schema_id", "experiment_id", "name", "type", "instruction", "enable_comment", "input_type", "input_config",
         "created_by", "created_time", "last_update_time", "is_default"),
        ("schema_id",),
        (OF_EXPERIMENT,),
        unique=(("experiment_id", "name"),),
    ),
    Guarded(
        "review_queues",
        ("queue_id", "experiment_id", "name", "queue_type", "created_by", "creation_time_ms", "last_update_time_ms",
         "name_key"),
        ("queue_id",),
        (OF_EXPERIMENT,),
        unique=(("experiment_id", "name_key"),),
    ),
    Guarded(
        "review_queue_items",
        ("queue_id", "item_type", "item_id", "status", "completed_by", "completed_time_ms", "creation_time_ms",
         "last_update_time_ms"),
        ("queue_id", "item_id"),
        (OF_QUEUE,),
    ),
    Guarded("review_queue_users", ("queue_id", "user_id"), ("queue_id", "user_id"), (OF_QUEUE,)),
    Guarded("review_queue_label_schemas", ("queue_id", "schema_id"), ("queue_id", "schema_id"), (OF_QUEUE,)),
    Guarded(
        "endpoints",
        ("endpoint_id", "name", "created_by", "created_at", "last_updated_by", "last_updated_at", "routing_strategy",
         "fallback_config_json", "experiment_id", "usage_tracking", "workspace"),
        ("endpoint_id",),
        (OF_EXPERIMENT,),
        unique=(("workspace", "name"),),
    ),
)  # fmt: skip
"""The tables whose rows belong to experiments, parents before children."""

REGISTRY = (
    Registry(
        "registered_models",
        ("name", "creation_time", "last_updated_time", "description", "workspace"),
        ("workspace", "name"),
        free=("last_updated_time",),
    ),
    Registry(
        "model_versions",
        ("name", "version", "creation_time", "last_updated_time", "description", "user_id", "current_stage", "source",
         "run_id", "status", "status_message", "run_link", "storage_location", "workspace"),
        ("workspace", "name", "version"),
        versioned=True,
        free=("current_stage", "last_updated_time"),
    ),
    Registry("registered_model_tags", ("key", "value", "name", "workspace"), ("workspace", "key", "name")),
    Registry(
        "model_version_tags",
        ("key", "value", "name", "version", "workspace"),
        ("workspace", "key", "name", "version"),
        versioned=True,
    ),
    Registry("registered_model_aliases", ("alias", "version", "name", "workspace"), ("workspace", "name", "alias")),
)  # fmt: skip
"""The tables of the model registry; prompts live in them too, and are free as long as their name is not governed."""

CORE = (
    "experiments", "experiment_tags", "runs", "params", "tags", "metrics", "latest_metrics", "registered_models",
    "model_versions",
)  # fmt: skip
"""The tables that every revision of MLflow's schema has since there is a model registry."""

LEFT_ALONE = (
    LeftAlone(
        "sql_trace_metric_daily_rollups", ("experiment_id",), "MLflow's background jobs sum up traces into it anew"
    ),
    LeftAlone("sql_span_cost_daily_rollups", ("experiment_id",), "MLflow's background jobs sum up spans into it anew"),
    LeftAlone("sql_assessment_daily_rollups", ("experiment_id",), "MLflow's background jobs sum up assessments anew"),
    LeftAlone("sql_trace_rollup_rebuild_queue", ("experiment_id",), "the work list of those background jobs"),
    LeftAlone("evaluation_datasets", ("dataset_id",), "belongs to no experiment; runs record the digest they used"),
    LeftAlone("evaluation_dataset_records", ("dataset_id",), "belongs to a data set that experiments share"),
    LeftAlone("evaluation_dataset_tags", ("dataset_id",), "belongs to a data set that experiments share"),
    LeftAlone("endpoint_bindings", ("endpoint_id",), "how an endpoint is operated, not what an experiment found"),
    LeftAlone("endpoint_model_mappings", ("endpoint_id",), "how an endpoint is operated"),
    LeftAlone("endpoint_tags", ("endpoint_id",), "how an endpoint is operated"),
    LeftAlone("guardrails", ("scorer_id", "scorer_version", "action_endpoint_id"), "uses a scorer as an input"),
    LeftAlone("guardrail_configs", ("endpoint_id",), "how an endpoint is operated"),
)
"""The tables that lead to an experiment and yet get no guards, each with the reason."""

TELLING = frozenset({
    "experiment_id", "run_uuid", "run_id", "source_run_id", "model_id", "trace_id", "request_id", "dataset_uuid",
    "dataset_id", "input_uuid", "span_id", "scorer_id", "queue_id", "endpoint_id", "registered_model",
    "registered_model_name", "model_version", "model_version_id", "logged_model_id",
})  # fmt: skip
"""Names of columns that lead to an experiment or a version, wherever they appear."""
