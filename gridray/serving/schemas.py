"""What clients send and get: strict models, so that a wrong request is refused with its field named."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
ROW_TAGS = frozenset({"by_name", "in_order", "flat", "nested"})
"""Names of the union members below; they are no part of the field that a client knows."""


def _row_kind(value: object) -> str | None:
    if isinstance(value, dict):
        return "by_name"
    return "in_order" if isinstance(value, list) else None


def _data_kind(value: object) -> str:
    return "nested" if isinstance(value, list) and value and isinstance(value[0], list) else "flat"


Row = Annotated[
    Annotated[dict[str, Number], Tag("by_name")] | Annotated[list[Number], Tag("in_order")],
    Discriminator(
        _row_kind,
        custom_error_type="row_type",
        custom_error_message="give an object of name: value, or a list of values in the policy's order",
    ),
]


class SetPointRequest(BaseModel):
    """Observations of one feeder in physical units, one row per moment to decide on."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"feeder": "ieee13", "observations": [{"vmag_pu.650.1": 1.0, "regulator.reg1.tap": 3.0, "...": 0.0}]},
                {"feeder": "ieee13", "observations": [[1.0, 3.0, 0.0]]},
            ]
        },
    )

    feeder: str = Field(description="Name or content hash of the feeder that the policy was trained on.")
    observations: list[Row] = Field(
        min_length=1, description="Rows: objects with every name of GET /v1/policy, or lists in its order."
    )


class SetPoint(BaseModel):
    """One device quantity to set; a switch has 1 (close), 0 (open) or null (leave as it is)."""

    device: str = Field(examples=["regulator.reg1"])
    quantity: str = Field(examples=["tap_change"])
    value: float | None = Field(examples=[-1.0])
    unit: str = Field(examples=["step"])


class Decision(BaseModel):
    """Answer to one row: set-points in physical units, and the actions in [-1, 1] that they come from."""

    set_points: list[SetPoint]
    actions: list[float] = Field(description="What the network gave, in the order of the action channels.")


class SetPointResponse(BaseModel):
    """Decisions in the order of the rows; policy and request ids let each be logged and replayed."""

    request_id: str
    policy_id: str = Field(description="SHA-256 of the bundle's manifest, which holds the hashes of its files.")
    feeder: str
    decisions: list[Decision]


class ObservationInfo(BaseModel):
    """An observation that the policy needs; nominal is the value that it was centred on in training."""

    name: str
    unit: str
    nominal: float


class ActionInfo(BaseModel):
    """A quantity that the policy sets, and its range."""

    name: str
    unit: str
    low: float
    high: float
    kind: Literal["continuous", "integer", "switch"]


class FeederInfo(BaseModel):
    """The feeder that the policy was trained on."""

    name: str
    hash: str


class PolicyInfo(BaseModel):
    """What is being served."""

    model: str
    policy_id: str
    task: str
    algorithm: str
    feeder: FeederInfo
    observations: list[ObservationInfo]
    actions: list[ActionInfo]


class Problem(BaseModel):
    """One wrong field."""

    field: str = Field(examples=["observations[0].vmag_pu.650.1"])
    message: str = Field(examples=["Input should be a finite number"])


class Refusal(BaseModel):
    """Why a request was refused."""

    error: str
    detail: list[Problem] = []


class TensorMetadata(BaseModel):
    """Open Inference Protocol: name, type and shape of an input or output; -1 stands for any number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Open Inference Protocol: what a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InferTensor(BaseModel):
    """Open Inference Protocol: observations in physical units, flat in row-major order or nested by row."""

    name: Literal["observations"]
    shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    datatype: Literal["FP32", "FP64"]
    data: Annotated[
        Annotated[list[Number], Tag("flat")] | Annotated[list[list[Number]], Tag("nested")], Discriminator(_data_kind)
    ]


class InferRequest(BaseModel):
    """Open Inference Protocol: one input tensor; parameters may name the feeder, which is then checked."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": [{"name": "observations", "shape": [1, 3], "datatype": "FP64", "data": [1.0, 3.0, 0.0]}]}
            ]
        }
    )

    id: str | None = Field(default=None, max_length=128)
    inputs: list[InferTensor] = Field(min_length=1, max_length=1)
    parameters: dict[str, Any] = {}


class OutputTensor(BaseModel):
    """Open Inference Protocol: an output, flat in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferResponse(BaseModel):
    """Open Inference Protocol: actions in [-1, 1]; POST /v1/setpoints gives set-points in physical units."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]
