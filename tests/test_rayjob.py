"""docs/rayjob.yaml against the documented fields of KubeRay's RayJob (ray.io/v1). An unknown field is an error.

The CRD's own schema is not in the lock. This is the part that the file uses, written from KubeRay's API reference.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.cli import app

HOME = Path(__file__).parent.parent
FILE = HOME / "docs" / "rayjob.yaml"
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class Known(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Known):
    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class SecretRef(Known):
    name: Name
    optional: bool = False


class EnvFrom(Known):
    secretRef: SecretRef


class Resources(Known):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Container(Known):
    name: Name
    image: str
    envFrom: list[EnvFrom] = []
    env: list[dict] = []
    ports: list[dict] = []
    volumeMounts: list[dict] = []
    resources: Resources = Resources()


class PodSpec(Known):
    containers: list[Container] = Field(min_length=1)
    volumes: list[dict] = []
    nodeSelector: dict[str, str] = {}
    tolerations: list[dict] = []
    serviceAccountName: str | None = None


class PodTemplate(Known):
    metadata: dict = {}
    spec: PodSpec


class HeadGroup(Known):
    rayStartParams: dict[str, str]
    template: PodTemplate
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class WorkerGroup(Known):
    groupName: Name
    replicas: int = Field(1, ge=0)
    minReplicas: int = Field(0, ge=0)
    maxReplicas: int = Field(2147483647, ge=0)
    rayStartParams: dict[str, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _in_order(self):
        assert self.minReplicas <= self.replicas <= self.maxReplicas
        return self


class ClusterSpec(Known):
    rayVersion: str
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []
    enableInTreeAutoscaling: bool = False


class JobSpec(Known):
    entrypoint: str
    runtimeEnvYAML: str | None = None
    jobId: str | None = None
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: int = Field(0, ge=0)
    activeDeadlineSeconds: int | None = Field(None, gt=0)
    backoffLimit: int = Field(0, ge=0)
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    suspend: bool = False
    metadata: dict[str, str] = {}
    entrypointNumCpus: float | None = None
    entrypointNumGpus: float | None = None
    rayClusterSpec: ClusterSpec
    submitterPodTemplate: PodTemplate | None = None


class RayJob(Known):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


def test_the_rayjob_has_the_documented_fields():
    job = RayJob.model_validate(yaml.safe_load(FILE.read_text()))
    cluster = job.spec.rayClusterSpec
    lock = (HOME / "requirements.lock").read_text()
    assert cluster.rayVersion == re.search(r"^ray==([\d.]+)", lock, re.MULTILINE)[1]
    version = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["version"]
    groups = [cluster.headGroupSpec, *cluster.workerGroupSpecs]
    images = {container.image for group in groups for container in group.template.spec.containers}
    assert images == {f"REGISTRY/winnow:{version}"}
    gpus = [group.template.spec.containers[0].resources.limits.get("nvidia.com/gpu") for group in groups]
    assert gpus == [None, None, "1"]


def test_its_entrypoint_is_a_command_of_winnow():
    _, name, *arguments = RayJob.model_validate(yaml.safe_load(FILE.read_text())).spec.entrypoint.split()
    assert Path(HOME, arguments[0]).is_file()
    typer.main.get_command(app).commands[name].make_context(name, arguments)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("shutdownAfterJobFinishes", "shutdownAfterFinish"),
        ("ray.io/v1", "ray.io/v1alpha1"),
        ("minReplicas: 4", "minReplicas: 5"),
        ('num-cpus: "0"', "num-cpus: 0"),
        ("memory: 16Gi}", "memory: 16GiB}"),
        ("groupName: score", "groupName: Score"),
    ],
)
def test_a_mistake_is_refused(old, new):
    text = FILE.read_text()
    assert old in text
    with pytest.raises(ValidationError):
        RayJob.model_validate(yaml.safe_load(text.replace(old, new)))
