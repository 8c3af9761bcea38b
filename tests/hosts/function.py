"""An app as a function of AWS Lambda, by Mangum; killed after its last answer, as a frozen one may be.

python -m tests.hosts.function LIFESPAN PREFIX COUNT
"""

from __future__ import annotations

import json
import os
import sys

from mangum import Mangum

from tests.apps.asgi_app import app


class Context:
    """Lambda's context of an invocation; Mangum uses nothing of it."""


def event(path: str, request_id: str) -> dict[str, object]:
    """Return a request through a function's URL: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html"""
    http = {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "app", "x-request-id": request_id},
        "requestContext": {"http": http, "domainName": "app", "requestId": request_id},
        "isBase64Encoded": False,
    }


def main() -> None:
    lifespan, prefix, count = sys.argv[1:]
    handler = Mangum(app, lifespan=lifespan)
    answers = [handler(event("/status/200", f"{prefix}-{number}"), Context()) for number in range(int(count))]
    ours = {"x-request-id", "x-mlflow-trace-id"}
    for answer in answers:
        answer["headers"] = {name: value for name, value in answer["headers"].items() if name not in ours}
    print(json.dumps(answers), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
