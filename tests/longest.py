"""Files that take longest, in the order in which they are begun: none is left for the end."""

from __future__ import annotations

FILES = (
    "test_documentation.py",
    "contracts/test_indexes.py",
    "faults/test_kill_points.py",
    "e2e/test_openapi.py",
    "e2e/test_openapi_refusals.py",
    "faults/test_finetune_processes.py",
    "e2e/test_fine_tuning_jobs.py",
    "training/test_finetune.py",
    "e2e/test_finetune_to_vllm.py",
    "training/test_preferences.py",
    "training/retrieval_models/test_tuning.py",
    "faults/test_jobs_kill.py",
    "e2e/test_models_on_vllm.py",
    "e2e/test_vectors_on_vllm.py",
    "faults/test_artifacts_crash.py",
    "faults/test_artifacts_processes.py",
    "faults/test_kill_ingest.py",
    "e2e/test_raw_clients.py",
    "e2e/test_demo.py",
    "infra/jobs/test_jobs.py",
    "contracts/test_embedders.py",
    "service/gateway/test_budget_laws.py",
    "service/engines/test_transformers_local.py",
    "e2e/test_pipeline.py",
    "faults/test_budgets_kill.py",
    "infra/jobs/test_admission.py",
    "infra/jobs/test_lanes.py",
    "infra/jobs/test_queue.py",
    "e2e/test_gateway.py",
    "faults/test_erasure_crash.py",
    "faults/test_kill_service.py",
    "e2e/test_openai_sdk.py",
    "service/gateway/test_adapter_flips.py",
    "service/gateway/test_adapters_on_vllm.py",
    "service/supervision/test_engines.py",
    "contracts/test_launchers.py",
    "contracts/test_drift.py",
    "e2e/test_citations_hold.py",
    "training/launchers/test_kubernetes.py",
    "service/gateway/test_adapter_routes.py",
    "faults/test_kill_builds.py",
    "service/gateway/test_metering.py",
    "contracts/test_sources.py",
    "faults/test_swap_load.py",
    "service/test_watching.py",
    "training/test_classical.py",
    "training/test_sweeps.py",
    "training/test_retrain.py",
    "e2e/test_alerts.py",
    "faults/test_artifacts_state_machine.py",
)
"""Below `tests/`. What is not here takes a few seconds of processor time, or less."""


def place(file: str) -> int:
    """Return when a file's turn comes, among all files."""
    return FILES.index(file) if file in FILES else len(FILES)
