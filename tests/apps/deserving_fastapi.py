"""See ``deserving``: the app on FastAPI, with documentation pages and a mounted app."""

from fastapi import APIRouter, FastAPI, HTTPException, Request

from mlflow_middleware.fastapi import TraceMiddleware
from tests.apps import deserving

app = FastAPI()
app.add_middleware(TraceMiddleware, **deserving.OPTIONS)
router, mounted = APIRouter(), FastAPI()


@router.post("/do/{what}")
async def do(what: str, request: Request) -> dict[str, object]:
    await request.body()
    return deserving.do(what)


@router.post("/sync/{what}")
def do_in_a_thread(what: str) -> dict[str, object]:
    return deserving.do(what)


@router.get("/items/{item}")
@mounted.get("/items/{item}")
def item(item: str) -> None:
    raise HTTPException(404)


@app.get("/left-out")
def left_out() -> dict[str, int]:
    return deserving.left_out()


app.include_router(router)
app.mount("/mounted", mounted)
