"""The studio: a page from which a person searches, made of the API's own routes."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parents[1] / "studio"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page shows what strangers have written as prompts: it loads and runs nothing but its own files."""
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}


class Files(StaticFiles):
    """Files that are served with `HEADERS`, whatever their path."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 (Starlette's own signature)
        """Answer with a file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


router = APIRouter()
files = Mount("/studio", Files(directory=FOLDER), name="studio")


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page; it asks for an API key where the server has any."""
    return FileResponse(FOLDER / "index.html", headers=HEADERS)
