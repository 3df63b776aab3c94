"""How both sides open the artifact store."""

from typing import Any

S3_SCHEMES = ("s3://", "s3a://")
S3_CLIENT = {"connect_timeout": 3, "read_timeout": 5, "retries": {"mode": "standard", "max_attempts": 2}}
"""Of botocore. Whoever asks the store tries again by itself, and should soon hear that it must."""


def options(url: str) -> dict[str, Any]:
    """Return the options with which fsspec opens the store at a URL.

    Listings are never kept: another process writes what this one lists.
    """
    client = {"config_kwargs": S3_CLIENT} if url.startswith(S3_SCHEMES) else {}
    return {"use_listings_cache": False, **client}
