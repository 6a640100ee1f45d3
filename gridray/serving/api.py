"""The HTTP interface of one policy, as a FastAPI application that knows nothing of Ray."""

import json
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, FastAPI, Header, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from numpy.typing import NDArray

from gridray import __version__
from gridray.serving import schemas
from gridray.serving.access import ask_for_key
from gridray.serving.observations import MAX_PROBLEMS, RequestError, check_feeder, check_num_rows, read_rows
from gridray.serving.served import ServedPolicy
from gridray.tasks.base import set_points

Decide = Callable[[NDArray[np.float32]], Awaitable[NDArray[np.float32]]]
RequestId = Annotated[str | None, Header(alias="X-Request-ID", max_length=128)]
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": schemas.Refusal, "description": "The API key is missing or wrong"},
    422: {"model": schemas.Refusal, "description": "A field is wrong; detail names it"},
}


def make_api(
    served: ServedPolicy, decide: Decide, *, max_rows: int, digest: str | None, decision_log: Path | None
) -> FastAPI:
    """Return the application.

    Args:
        served: The policy and what its bundle tells about it.
        decide: Maps scaled observations, float32 [num_rows, num_channels], to actions [num_rows, num_actions].
        max_rows: Rows that one request may have.
        digest: SHA-256 of the API key; no key is asked for where None.
        decision_log: File that gets one JSON line per request, enough to replay it; none is written where None.
    """
    api = FastAPI(title="GridRay policy", version=__version__, redoc_url=None)
    api.add_exception_handler(RequestValidationError, _refuse_schema)
    api.add_exception_handler(RequestError, _refuse_fields)
    if digest is not None:
        ask_for_key(api, digest=digest)
    # The gate asks for the key; this only writes it into the OpenAPI document.
    needs_key = [] if digest is None else [Security(APIKeyHeader(name="X-API-Key", auto_error=False))]
    router = APIRouter(dependencies=needs_key, responses=REFUSALS)

    async def act(observations: NDArray[np.float32], request_id: str) -> NDArray[np.float32]:
        actions = await decide(observations)
        if decision_log is not None:
            _log_decision(decision_log, served.policy_id, request_id, observations, actions)
        return actions

    @router.get("/v1/policy", tags=["operation"])
    async def describe() -> schemas.PolicyInfo:
        """Tell which policy is served, what it must be told and what it sets."""
        return served.info()

    @router.post("/v1/setpoints", tags=["operation"])
    async def decide_set_points(
        body: schemas.SetPointRequest, x_request_id: RequestId = None
    ) -> schemas.SetPointResponse:
        """Turn observations in physical units into set-points in physical units."""
        check_feeder(body.feeder, name=served.feeder_name, content_hash=served.feeder_hash)
        check_num_rows(len(body.observations), max_rows)
        request_id = x_request_id or uuid4().hex
        actions = await act(read_rows(served.observation_channels, body.observations), request_id)
        return schemas.SetPointResponse(
            request_id=request_id,
            policy_id=served.policy_id,
            feeder=served.feeder_name,
            decisions=_decisions(served, actions),
        )

    @router.get("/v2/models/{name}", tags=["Open Inference Protocol"])
    async def metadata(name: str) -> schemas.ModelMetadata:
        """Tell names, types and shapes of the model's tensors."""
        _check_model(name, served)
        return served.metadata()

    @router.post("/v2/models/{name}/infer", tags=["Open Inference Protocol"])
    async def infer(name: str, body: schemas.InferRequest, x_request_id: RequestId = None) -> schemas.InferResponse:
        """Turn a tensor of observations in physical units into a tensor of actions in [-1, 1]."""
        _check_model(name, served)
        _check_infer(body, served, max_rows)
        request_id = body.id or x_request_id or uuid4().hex
        actions = await act(read_rows(served.observation_channels, _tensor_rows(body.inputs[0], served)), request_id)
        output = schemas.OutputTensor(
            name="actions", shape=list(actions.shape), datatype="FP32", data=actions.ravel().tolist()
        )
        return schemas.InferResponse(model_name=name, model_version=served.policy_id, id=request_id, outputs=[output])

    @api.get("/v2/health/live", tags=["Open Inference Protocol"])
    async def live() -> dict[str, bool]:
        """Tell that the server runs."""
        return {"live": True}

    @api.get("/v2/health/ready", tags=["Open Inference Protocol"])
    async def ready() -> dict[str, bool]:
        """Tell that the policy is loaded: a replica answers only after that."""
        return {"ready": True}

    api.include_router(router)
    return api


def _decisions(served: ServedPolicy, actions: NDArray[np.float32]) -> list[schemas.Decision]:
    values = set_points(served.action_channels, actions)
    names = [channel.name.rpartition(".") for channel in served.action_channels]
    decisions = []
    for row, raw in zip(values.tolist(), actions.tolist(), strict=True):
        points = [
            # NaN, which JSON does not have, is a switch that stays as it is; adding zero turns -0 into 0.
            schemas.SetPoint(
                device=device, quantity=quantity, unit=channel.unit, value=None if math.isnan(value) else value + 0.0
            )
            for (device, _, quantity), channel, value in zip(names, served.action_channels, row, strict=True)
        ]
        decisions.append(schemas.Decision(set_points=points, actions=raw))
    return decisions


def _check_model(name: str, served: ServedPolicy) -> None:
    if name != served.model:
        raise RequestError([("name", f"no model '{name[:80]}' is served here: give '{served.model}'")])


def _check_infer(body: schemas.InferRequest, served: ServedPolicy, max_rows: int) -> None:
    if "feeder" in body.parameters:
        feeder = str(body.parameters["feeder"])
        check_feeder(feeder, name=served.feeder_name, content_hash=served.feeder_hash, field="parameters.feeder")
    check_num_rows(body.inputs[0].shape[0], max_rows, field="inputs[0].shape")


def _tensor_rows(tensor: schemas.InferTensor, served: ServedPolicy) -> list[list[float]]:
    num_rows, num_columns = tensor.shape
    num_channels = len(served.observation_channels)
    if num_columns != num_channels:
        raise RequestError([("inputs[0].shape", f"has {num_columns} columns: give {num_channels}")])
    rows = [row if isinstance(row, list) else [row] for row in tensor.data]
    values = [value for row in rows for value in row]
    is_nested = bool(rows) and isinstance(tensor.data[0], list)
    is_ragged = is_nested and any(len(row) != num_columns for row in rows)
    if is_ragged or len(values) != num_rows * num_columns:
        rule = f"give {num_rows} x {num_columns}, as shape tells"
        raise RequestError([("inputs[0].data", f"has {len(values)} values in {len(rows)} items: {rule}")])
    return [values[start : start + num_columns] for start in range(0, len(values), num_columns)]


def _log_decision(
    path: Path, policy_id: str, request_id: str, observations: NDArray[np.float32], actions: NDArray[np.float32]
) -> None:
    record = {
        "time_s": round(time.time(), 3),
        "request_id": request_id,
        "policy_id": policy_id,
        "observations": observations.tolist(),
        "actions": actions.tolist(),
    }
    # One write per line in append mode: lines of several replicas do not mix.
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


async def _refuse_schema(_request: Request, error: Exception) -> JSONResponse:
    # The faulty input is left out: a NaN in it could not be written as JSON, and it may be large.
    details = error.errors() if isinstance(error, RequestValidationError) else []
    return _refusal([(_field(detail["loc"]), _message(detail)) for detail in details[:MAX_PROBLEMS]])


async def _refuse_fields(_request: Request, error: Exception) -> JSONResponse:
    problems = error.problems if isinstance(error, RequestError) else ()
    return _refusal(problems, status_code=404 if problems and problems[0][0] == "name" else 422)


def _refusal(problems: Any, status_code: int = 422) -> JSONResponse:  # noqa: ANN401  # any sequence of pairs
    detail = [schemas.Problem(field=field, message=message) for field, message in problems]
    error = "; ".join(f"{problem.field}: {problem.message}" for problem in detail)
    return JSONResponse(schemas.Refusal(error=error, detail=detail).model_dump(), status_code=status_code)


def _field(location: tuple[str | int, ...]) -> str:
    """Write a location as clients know it: observations[0].vmag_pu.650.1."""
    text = ""
    for part in location[1:]:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in schemas.ROW_TAGS:
            text += f".{part}"
    return text.lstrip(".") or "body"


def _message(detail: Any) -> str:  # noqa: ANN401  # pydantic's error details
    # Without the JSON content type the body reaches the schema as text, which is what curl -d sends.
    is_whole_body = detail["loc"] == ("body",)
    return f"{detail['msg']}; send Content-Type: application/json" if is_whole_body else str(detail["msg"])
