"""Make, list and revoke API keys: `python -m app.keys`, which `rollover keys` runs."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from app.enqueue import DAY_SECONDS
from app.keyring import ApiKey, Keyring, Limits, new_key
from contracts.keys import spent_key
from contracts.names import did_you_mean
from contracts.requests import PRIORITIES
from contracts.settings import Settings, in_words

COLUMNS = ("id", "name", "created", "revoked", *Limits.model_fields, "nfe_today")


class RefusedError(Exception):
    """What was asked cannot be done; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        with Redis.from_url(redis_url(), decode_responses=True) as redis:
            sys.stdout.write(f"{options.run(redis, options)}\n")
    except (RefusedError, RedisError, ValidationError) as error:
        sys.stderr.write(f"rollover: {in_words(error)}\n")
        return 1
    return 0


def redis_url() -> str:
    """Return where the keys are.

    Raises:
        RefusedError: the settings do not say.
    """
    url = Settings().redis_url
    if url is None:
        raise RefusedError("ROLLOVER_REDIS_URL is not set; `rollover keys` finds the embedded server.")
    return url


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands."""
    root = argparse.ArgumentParser(prog="python -m app.keys", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="create|list|revoke")
    create_command = commands.add_parser("create", help="make a key and show it once")
    create_command.add_argument("name", help="whose it is or what it is for")
    for limit in Limits.model_fields.keys() - {"priority"}:
        create_command.add_argument(f"--{limit.replace('_', '-')}", type=int)
    create_command.add_argument("--priority", choices=PRIORITIES, default=Limits().priority)
    create_command.set_defaults(run=create)
    commands.add_parser("list", help="show every key, without its secret").set_defaults(run=listed)
    revoke_command = commands.add_parser("revoke", help="make a key useless at once")
    revoke_command.add_argument("id", help="as `list` shows it")
    revoke_command.set_defaults(run=revoke)
    return root


def create(redis: Any, options: argparse.Namespace) -> str:  # noqa: ANN401 (its types cover both clients)
    """Make a key; the answer is the only place its secret is ever seen."""
    if not options.name.isprintable():
        raise RefusedError("The name of a key is one line of text.")
    limits = Limits(**{name: getattr(options, name) for name in Limits.model_fields})
    key, secret = new_key(options.name, limits)
    Keyring(redis).add(key)
    return f"id   {key.id}\nkey  {secret}\nKeep the key now: only its hash is stored, it is not shown again."


def listed(redis: Any, _options: argparse.Namespace) -> str:  # noqa: ANN401 (as above)
    """Show the keys, tab separated."""
    rows = [COLUMNS, *(row(key, spent_today(redis, key)) for key in Keyring(redis).all())]
    return "\n".join("\t".join(cells) for cells in rows)


def spent_today(redis: Any, key: ApiKey) -> str:  # noqa: ANN401 (as above)
    """Return what a key was charged on this day (UTC); a key without limits is not charged."""
    day, nfe = redis.hmget(spent_key(key.id), "day", "nfe")
    return nfe if day == str(int(time.time()) // DAY_SECONDS) else "-"


def row(key: ApiKey, spent: str) -> tuple[str, ...]:
    """Return a key's cells in the order of `COLUMNS`."""
    revoked = f"{key.revoked_at:%Y-%m-%d}" if key.revoked_at else "-"
    limits = [str(getattr(key, name) or "-") for name in Limits.model_fields]
    return (key.id, key.name, f"{key.created_at:%Y-%m-%d}", revoked, *limits, spent)


def revoke(redis: Any, options: argparse.Namespace) -> str:  # noqa: ANN401 (as above)
    """Make a key useless."""
    keyring = Keyring(redis)
    keys = {key.id: key for key in keyring.all()}
    if options.id not in keys:
        raise RefusedError(f"There is no key '{options.id}'.{did_you_mean(options.id, keys)}")
    keyring.revoke(keys[options.id])
    return f"{options.id} is revoked."


if __name__ == "__main__":
    sys.exit(main())
