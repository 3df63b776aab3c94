"""The body of `POST /v1/images/generations`: OpenAI's fields, and those of a generation beside them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError

from contracts.errors import MOST_PROBLEMS, FieldProblem, InvalidRequestError
from contracts.names import did_you_mean
from contracts.parsing import belongs_to, problem_of, told
from contracts.requests import MAX_IMAGES, GenerationRequest
from contracts.search import Strict

Auto = Literal["auto"]
TRANSLATED = {"/num_images": "/n", "/width": "/size", "/height": "/size"}
SIDES = {"/width": "The width m", "/height": "The height m"}
"""How a detail that begins with "Must" begins where one field of OpenAI's has both."""
OURS = GenerationRequest.model_fields.keys() - {"num_images", "width", "height", "previews", "image"}
"""Fields of a generation that may stand beside OpenAI's; the others have a name of OpenAI's, or none."""


class ImageRequest(Strict):
    """OpenAI's own fields. Those that this server has no use for take only the value that says so."""

    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")] | None = Field(
        default=None, description="`WIDTHxHEIGHT` in pixels, or `auto`: the model's"
    )
    response_format: Literal["b64_json"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        default=None, description="previews of the search in a stream, at most"
    )
    quality: Auto | None = None
    background: Auto | None = None
    moderation: Auto | None = None
    user: Annotated[str, Field(max_length=512)] | None = Field(default=None, description="kept as metadata")

    @property
    def partials(self) -> int:
        """How many previews a stream may have."""
        return (self.partial_images or 0) if self.stream else 0


class OpenAIImageRequest(ImageRequest, GenerationRequest):
    """Both, as the OpenAPI document shows them."""


def translated(payload: object) -> tuple[ImageRequest, dict[str, Any]]:
    """Split a posted body into OpenAI's part and the generation that it asks for.

    Raises:
        InvalidRequestError: OpenAI's part cannot be used, or a field is neither's.
    """
    if not isinstance(payload, dict):
        raise InvalidRequestError([FieldProblem(pointer="", detail="Must be a JSON object.")])
    posted = cast("dict[str, Any]", payload)
    theirs = ImageRequest.model_fields.keys()
    known = theirs | OURS
    unknown = [name for name in posted if name not in known]
    problems = [unknown_field(name, known) for name in unknown[:MOST_PROBLEMS]]
    own = {name: value for name, value in posted.items() if name in theirs}
    try:
        request = ImageRequest.model_validate(own)
    except ValidationError as error:
        problems += [problem_of(each, own) for each in told(error)]
        raise InvalidRequestError(problems[:MOST_PROBLEMS]) from None
    if problems:
        raise InvalidRequestError(problems)
    rest = {name: value for name, value in posted.items() if name in OURS and value is not None}
    return request, rest | generation_fields(request, rest)


def generation_fields(request: ImageRequest, rest: Mapping[str, Any]) -> dict[str, Any]:
    """Say OpenAI's part in the words of a generation."""
    fields: dict[str, Any] = {"previews": "levels" if request.partials else "none"}
    if request.n is not None:
        fields["num_images"] = request.n
    if request.size not in (None, "auto"):
        fields["width"], fields["height"] = map(int, request.size.split("x"))
    metadata = rest.get("metadata", {})
    if request.user is not None and isinstance(metadata, dict):
        fields["metadata"] = {**metadata, "user": request.user}
    return fields


def unknown_field(name: str, known: set[str]) -> FieldProblem:
    """Describe a field that is neither OpenAI's nor ours."""
    place = "/" + name.replace("~", "~0").replace("/", "~1")
    detail = f"Unknown field '{name[:100]}'.{belongs_to(name, known) or did_you_mean(name, known)}"
    return FieldProblem(pointer=place, detail=detail, allowed=sorted(known))


def as_openai(problem: FieldProblem) -> FieldProblem:
    """Point a problem of the generation at the field that OpenAI has for it."""
    place = problem.pointer or ""
    detail = SIDES[place] + problem.detail[1:] if place in SIDES else problem.detail
    return problem.model_copy(update={"pointer": TRANSLATED.get(place, place), "detail": detail})
