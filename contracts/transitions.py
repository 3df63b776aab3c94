"""The one way a job changes in Redis: text and arguments of a script that both sides run with EVAL.

It checks and writes in one atomic step: a final status never changes, only the current execution writes, and
each of its writes is done once though it comes twice, events get consecutive numbers, an end is counted
once, and one that somebody wants to be told of is in the outbox of webhooks.
"""

from collections.abc import Iterable, Mapping

from contracts.events import Event, encode
from contracts.jobs import Status
from contracts.keys import events_key, job_key
from contracts.totals import PARTS, WAIT_BOUNDS

TABLES = f"""
local bounds = {{{", ".join(map(str, WAIT_BOUNDS))}}}
local parts = {{{", ".join(map(repr, PARTS))}}}
"""

WRITE_SCRIPT = (
    TABLES
    + """
-- KEYS: job hash, event stream
-- ARGV: allowed statuses (comma separated), fence (attempts, or ''), new status (or ''),
--       writer (or ''), number of this write of its, number of fields, then name and value of each,
--       then events as JSON objects without seq
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {0, 'deleted', 0} end
local last = tonumber(redis.call('HGET', KEYS[1], 'events') or '0')
-- A writer that had no answer writes again, and its first try may come later than that.
local writer, writes = unpack(redis.call('HMGET', KEYS[1], 'writer', 'writes'))
if writer == ARGV[4] and tonumber(ARGV[5]) <= tonumber(writes) then return {1, status, last} end
local allowed = string.find(',' .. ARGV[1] .. ',', ',' .. status .. ',', 1, true)
local fence = ARGV[2] == '' or ARGV[2] == (redis.call('HGET', KEYS[1], 'attempts') or '0')
if not (allowed and fence) then return {0, status, last} end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'writer', ARGV[4], 'writes', ARGV[5]) end
local fields = tonumber(ARGV[6])
for i = 7, 6 + 2 * fields, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[3] ~= '' then
  status = ARGV[3]
  redis.call('HSET', KEYS[1], 'status', status)
end
for i = 7 + 2 * fields, #ARGV do
  last = last + 1
  local event = '{"seq":' .. last .. ',' .. string.sub(ARGV[i], 2)
  redis.call('XADD', KEYS[2], last .. '-0', 'event', event)
end
redis.call('HSET', KEYS[1], 'events', last)
redis.call('HINCRBY', KEYS[1], 'status_sequence', 1)
local event = ({succeeded = 'completed', failed = 'failed', canceled = 'canceled'})[ARGV[3]]
if event then
  local id, request = unpack(redis.call('HMGET', KEYS[1], 'id', 'request'))
  local webhook = cjson.decode(request).webhook
  for _, wanted in ipairs(type(webhook) == 'table' and webhook.events or {}) do
    if wanted == event then
      local time = redis.call('TIME')
      redis.call('ZADD', 'rollover:webhooks', time[1] * 1000 + math.floor(time[2] / 1000), id)
      redis.call('HSET', KEYS[1], 'delivery', '{"status":"pending"}')
    end
  end
end
-- The pace of a model, and at this size (`contracts.quotes.Pace`). A job that began anew says nothing of it.
if ARGV[3] == 'succeeded' and redis.call('HGET', KEYS[1], 'attempts') == '1' then
  local facts = redis.call('HMGET', KEYS[1], 'usage', 'request')
  local usage = facts[1] and cjson.decode(facts[1])
  if usage and usage.seconds.total > 0 then
    local asked = cjson.decode(facts[2])
    local pace = 'rollover:pace:' .. asked.model
    local sized = pace .. '@' .. asked.width .. 'x' .. asked.height
    local news = {jobs = 1, nfe = usage.nfe_spent, seconds = usage.seconds.total}
    if type(usage.baseline) == 'table' then
      news.nfe = news.nfe + usage.baseline.nfe_spent
      news.seconds = news.seconds + usage.baseline.seconds.total
    end
    for _, key in ipairs({pace, sized}) do
      for name, value in pairs(news) do
        local before = tonumber(redis.call('HGET', key, name) or '0')
        redis.call('HSET', key, name, tostring(0.8 * before + value))
      end
    end
    redis.call('EXPIRE', sized, 30 * 86400)
  end
end
-- What a model's jobs come to (`contracts.totals.Totals`).
if event then
  local facts = redis.call('HMGET', KEYS[1], 'usage', 'request')
  local totals = 'rollover:totals:' .. cjson.decode(facts[2]).model
  redis.call('HINCRBY', totals, 'jobs:' .. ARGV[3], 1)
  local usage = facts[1] and cjson.decode(facts[1])
  if usage then
    local class = 1
    while bounds[class] and usage.seconds.queued > bounds[class] do class = class + 1 end
    redis.call('HINCRBY', totals, 'waits:' .. class, 1)
    redis.call('HINCRBYFLOAT', totals, 'wait_seconds', string.format('%.6f', usage.seconds.queued))
    -- A worker older than this may not name every part.
    for _, spent in ipairs({usage, type(usage.baseline) == 'table' and usage.baseline or nil}) do
      redis.call('HINCRBY', totals, 'nfe', spent.nfe_spent or 0)
      redis.call('HINCRBY', totals, 'nfe_redone', spent.nfe_redone or 0)
      for _, part in ipairs(parts) do
        local took = string.format('%.6f', spent.seconds[part] or 0)
        redis.call('HINCRBYFLOAT', totals, 'seconds:' .. part, took)
      end
    end
  end
end
return {1, status, last}
"""
)
"""Returns [applied, now or before (0 or 1), status afterwards (or 'deleted'), seq of the last event]."""

DELETE_SCRIPT = """
-- KEYS: job hash, event stream, jobs set, RQ's job, idempotency key (or none); ARGV: id, allowed statuses
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {0, 'deleted'} end
if not string.find(',' .. ARGV[2] .. ',', ',' .. status .. ',', 1, true) then return {0, status} end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', 'rollover:webhooks', ARGV[1])
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner then redis.call('ZREM', 'rollover:key:' .. owner .. ':jobs', ARGV[1]) end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[4])
-- A key is good for a day, and after that may name a later generation: that one's it stays.
local named = KEYS[5] and redis.call('GET', KEYS[5])
if named and cjson.decode(named).id == ARGV[1] then redis.call('DEL', KEYS[5]) end
return {1, 'deleted'}
"""
"""Returns [applied (0 or 1), status afterwards (or 'deleted')]."""


def write_keys(generation: str) -> list[str]:
    """KEYS of `WRITE_SCRIPT`."""
    return [job_key(generation), events_key(generation)]


def write_args(
    *,
    allowed: Iterable[Status],
    status: Status | None = None,
    fence: int | None = None,
    writer: str = "",
    number: int = 0,
    fields: Mapping[str, str] | None = None,
    events: Iterable[Event] = (),
) -> list[str]:
    """ARGV of `WRITE_SCRIPT`.

    Args:
        allowed: statuses in which this write may happen; in any other nothing is written.
        status: the new status; None leaves it.
        fence: `attempts` as the writer knows it; if the record has another number, another execution has
            taken over and nothing is written. None: no check.
        writer: whose write this is, where it may be sent again; empty: each time it comes it is another one.
        number: of this write, which follows on the one before: a lower one of the writer's has been done.
        fields: further fields of the record (`contracts.jobs.hash_fields`).
        events: events to publish, in order.
    """
    pairs = [text for pair in (fields or {}).items() for text in pair]
    return [
        ",".join(allowed),
        "" if fence is None else str(fence),
        status or "",
        writer,
        str(number),
        str(len(pairs) // 2),
        *pairs,
        *(encode(event) for event in events),
    ]
