"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}, with the right status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import UserError

log = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that gets an answer other than speech. `param` names the field at fault, `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    def response(self) -> JSONResponse:
        """The answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, dict(self.headers or {}))


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told of `error`: a UserError is its own fault, anything else the server's, and stays in its log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, f"{error.what}: {error.why}", "invalid_value")
    return ApiError(500, "the server failed to speak this; its log says why", "internal_error")


def handle_errors(app: FastAPI) -> None:
    """Let every error of `app` be told in OpenAI's form: ours, unknown routes and methods, and bugs."""

    @app.exception_handler(ApiError)
    async def ours(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> JSONResponse:
        what = {404: "there is no such address", 405: "this address does not take this method"}
        return ApiError(
            error.status_code, what.get(error.status_code, str(error.detail)), "unknown_url", None, error.headers
        ).response()

    @app.exception_handler(Exception)  # its traceback is logged by the server: Starlette raises it again
    async def bugs(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()
