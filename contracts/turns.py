"""Whose turn it is: the line of jobs before a model's queue, and the only ways to join, move and leave it.

RQ takes jobs off one list, and in one step puts each where it is found again should its taker die. That list
holds the jobs that a worker gave back and one more: the one whose turn is next. All others wait in a sorted
set before it, and everyone who changes anything sees to the rest in the same atomic step: a job is in
exactly one of the two until a worker has it.

The order is self-clocked fair queueing (Golestani, INFOCOM 1994) over lines, one for each API key and
priority. A job's tag is the later of the clock and the tag of the last job of its line, plus its NFE over the
weight of its priority; the lowest tag is next, and the clock is the tag of the job that a worker took last.
So lines that wait share the model's NFE by their weights, whatever each has queued, and none waits for ever.
"""

import json
from collections.abc import Mapping

from contracts.jobs import Record
from contracts.keys import line_key, turn_key
from contracts.requests import Priority

WEIGHTS: dict[Priority, float] = {"low": 0.1, "normal": 1.0, "high": 10.0}
"""NFE that a line gets for each one that a line of priority `normal` gets, while both wait."""

LINE = """
-- list: RQ's. line: sorted set, tag of each job behind it; line:<owner>:<priority>: those of one key's of a
-- priority, until a worker has them. turn: hash; `clock`, and the job that the list shows (`shown`, `tag`).
local function id_of(member) return string.match(member, '^[^:]+') end
local function own(line, member) return line .. string.match(member, ':.*$') end
local function show(list, line, turn, member, tag)
  redis.call('ZREM', line, member)
  redis.call('RPUSH', list, id_of(member))
  redis.call('HSET', turn, 'shown', member, 'tag', tag)
end
-- What the list shows, after noting that a worker has taken what it showed before.
local function shown_now(list, line, turn)
  local shown, tag = unpack(redis.call('HMGET', turn, 'shown', 'tag'))
  if shown and not redis.call('LPOS', list, id_of(shown)) then
    redis.call('ZREM', own(line, shown), shown)
    redis.call('HDEL', turn, 'shown', 'tag')
    redis.call('HSET', turn, 'clock', tag)
    return nil
  end
  return shown, tonumber(tag or 0)
end
-- See that the list shows the job whose turn is next, unless one waits there that a worker gave back.
local function advance(list, line, turn)
  local shown, tag = shown_now(list, line, turn)
  local member, first = unpack(redis.call('ZRANGE', line, 0, 0, 'WITHSCORES'))
  if not member then
    if not shown then redis.call('DEL', turn) end
  elseif shown then
    if tag <= tonumber(first) then return end
    redis.call('LREM', list, 1, id_of(shown))
    redis.call('ZADD', line, redis.call('HGET', turn, 'tag'), shown)
    show(list, line, turn, member, first)
  elseif redis.call('LLEN', list) == 0 then
    show(list, line, turn, member, first)
  end
end
-- The tag of a job that would join now.
local function tag_of(list, line, turn, member, cost)
  shown_now(list, line, turn)
  local last = redis.call('ZRANGE', own(line, member), -1, -1, 'WITHSCORES')[2]
  return math.max(tonumber(redis.call('HGET', turn, 'clock') or 0), tonumber(last or 0)) + cost
end
local function add(list, line, turn, member, tag)
  tag = string.format('%.17g', tag)
  redis.call('ZADD', line, tag, member)
  redis.call('ZADD', own(line, member), tag, member)
  advance(list, line, turn)
end
local function join(list, line, turn, member, cost)
  add(list, line, turn, member, tag_of(list, line, turn, member, cost))
end
-- For a job whose turn it was, and that is not run: as if it had been, and after the next one.
local function rejoin(list, line, turn, member, cost)
  local _, following = shown_now(list, line, turn)
  local clock = tonumber(redis.call('HGET', turn, 'clock') or 0)
  add(list, line, turn, member, math.max(clock + cost, following or 0))
end
"""
"""Functions for scripts; `list`, `line` and `turn` are keys (`line_keys`), a member is `member_of` a job."""

ADVANCE_SCRIPT = f"""
-- KEYS: `line_keys`
{LINE}
advance(KEYS[1], KEYS[2], KEYS[3])
"""
"""Run before a worker waits for a job and after it has taken one."""

LEAVE_SCRIPT = f"""
-- KEYS: `line_keys`, RQ's hash of the job; ARGV: member
{LINE}
local shown = shown_now(KEYS[1], KEYS[2], KEYS[3])
local waited = redis.call('ZREM', KEYS[2], ARGV[1]) + redis.call('LREM', KEYS[1], 1, id_of(ARGV[1]))
if waited == 0 then return 0 end
redis.call('ZREM', own(KEYS[2], ARGV[1]), ARGV[1])
if shown == ARGV[1] then redis.call('HDEL', KEYS[3], 'shown', 'tag') end
redis.call('DEL', KEYS[4])
advance(KEYS[1], KEYS[2], KEYS[3])
return 1
"""
"""Returns whether the job waited (0 or 1); one that did not is left to its worker."""

GIVE_BACK_SCRIPT = f"""
-- KEYS: `line_keys`; RQ's list of jobs taken and not begun, its set of executions, its hash of the job
-- ARGV: id, the execution that leaves it; where others are to go first, member and cost
{LINE}
redis.call('ZREM', KEYS[5], ARGV[2])
for _, execution in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
  if id_of(execution) == ARGV[1] then return 0 end
end
if redis.call('LPOS', KEYS[1], ARGV[1]) or redis.call('LPOS', KEYS[4], ARGV[1]) then return 0 end
if ARGV[3] and redis.call('ZSCORE', KEYS[2], ARGV[3]) then return 0 end
if not redis.call('HGET', KEYS[6], 'origin') then return 0 end
redis.call('HSET', KEYS[6], 'status', 'queued')
if ARGV[3] then
  rejoin(KEYS[1], KEYS[2], KEYS[3], ARGV[3], tonumber(ARGV[4]))
else
  redis.call('LPUSH', KEYS[1], ARGV[1])
end
return 1
"""
"""Run by a worker that leaves a job unfinished: it is next, or in the line again, unless it is somebody's
already or has ended.

Returns whether it was put back (0 or 1). Done twice it is done once.
"""

READ_SCRIPT = """
-- KEYS: job hashes; ARGV: what the names of RQ's lists begin with, and those of the lines
local function ahead(id, owner, text)
  local readable, request = pcall(cjson.decode, text)
  if not readable or type(request) ~= 'table' or not request.model then return -1 end
  local list, line = ARGV[1] .. request.model, ARGV[2] .. request.model
  local shown = redis.call('LPOS', list, id)
  if shown then return shown end
  local rank = redis.call('ZRANK', line, table.concat({id, owner or '', request.priority}, ':'))
  return rank and redis.call('LLEN', list) + rank or -1
end
local found = {}
for i, key in ipairs(KEYS) do
  local id, status, owner, request = unpack(redis.call('HMGET', key, 'id', 'status', 'owner', 'request'))
  local place = status == 'queued' and ahead(id, owner, request) or -1
  found[i] = {redis.call('HGETALL', key), place}
end
return found
"""
"""Returns for each job its fields (none where there is no job) and how many are ahead of it (-1: it does not
wait)."""

AHEAD_SCRIPT = f"""
-- KEYS: `line_keys`; ARGV: member, cost
{LINE}
local tag = tag_of(KEYS[1], KEYS[2], KEYS[3], ARGV[1], tonumber(ARGV[2]))
local shown, before = unpack(redis.call('HMGET', KEYS[3], 'shown', 'tag'))
before = tonumber(before or 0)
local overtaken = shown and before > tag and 1 or 0
local behind = redis.call('ZCOUNT', KEYS[2], '-inf', string.format('%.17g', tag))
return redis.call('LLEN', KEYS[1]) - overtaken + behind
"""
"""Returns how many jobs would be ahead of one that joined now."""


def line_keys(waiting: str, model: str) -> list[str]:
    """KEYS of a model's line: RQ's list `waiting`, the sorted set before it, and the state of the turns."""
    return [waiting, line_key(model), turn_key(model)]


def member_of(generation: str, owner: str | None, priority: Priority) -> str:
    """A job in its line. Members with one tag are in the order of their ids, which is by age."""
    return f"{generation}:{owner or ''}:{priority}"


def member(record: Record) -> str:
    """A stored job in its line."""
    return member_of(record.id, record.owner, record.request.priority)


def turn_of(fields: Mapping[str, str]) -> tuple[str, float]:
    """Member and cost of a stored job of which nothing else is read: a later version may know more of it.

    Raises:
        ValueError: not even that can be read.
    """
    try:
        request = json.loads(fields["request"])
        priority = request["priority"]
        return member_of(fields["id"], fields.get("owner"), priority), cost(
            request["budget"]["nfe"], priority
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no job has these fields: {sorted(fields)}") from error


def cost(nfe: int, priority: Priority) -> float:
    """How much later the next job of the same line comes."""
    return nfe / WEIGHTS[priority]
