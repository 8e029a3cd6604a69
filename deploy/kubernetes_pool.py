"""The base job template of a Kubernetes work pool for this project, as JSON: Prefect's own with what training needs.

python deploy/kubernetes_pool.py > pool.json
prefect work-pool create local --type kubernetes --base-job-template pool.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prefect_kubernetes import KubernetesWorker

DEFAULTS: dict[str, Any] = {
    "image": "apf",
    "namespace": "apf",
    "env": {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "PREFECT_API_URL": "http://prefect:4200/api"},
    "finished_job_ttl": 24 * 3600,
}
VARIABLES: dict[str, dict[str, Any]] = {
    "gpus": {
        "title": "GPUs",
        "description": "Devices of a job; `runtime.devices` uses them.",
        "type": "integer",
        "minimum": 0,
        "default": 0,
    },
    "claim": {
        "title": "Volume claim",
        "description": "Holds mlruns/ with stages, checkpoints, promotions; ReadWriteMany for jobs on several nodes.",
        "type": "string",
        "default": "apf-mlruns",
    },
    "shared_memory": {
        "title": "Shared memory",
        "description": "Most that the processes of a job may share; several devices need it.",
        "type": "string",
        "default": "8Gi",
    },
    "grace_seconds": {
        "title": "Grace period",
        "description": "Seconds that a training has to write a checkpoint when its pod is evicted.",
        "type": "integer",
        "minimum": 1,
        "default": 120,
    },
}


def template() -> dict[str, Any]:
    """Prefect's template with our defaults, GPUs, shared memory, and a volume that keeps mlruns/."""
    found = KubernetesWorker.get_default_base_job_template()
    properties = found["variables"]["properties"]
    for name, value in DEFAULTS.items():
        properties[name]["default"] = value
    properties |= VARIABLES
    pod = found["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = "{{ grace_seconds }}"
    pod["volumes"] = [
        {"name": "mlruns", "persistentVolumeClaim": {"claimName": "{{ claim }}"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "{{ shared_memory }}"}},
    ]
    container = pod["containers"][0]
    container["workingDir"] = "/apf"
    container["resources"]["limits"]["nvidia.com/gpu"] = "{{ gpus }}"
    container["volumeMounts"] = [
        {"name": "mlruns", "mountPath": "/apf/mlruns"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    return dict(found)


if __name__ == "__main__":
    json.dump(template(), sys.stdout, indent=2)
