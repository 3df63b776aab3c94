"""The scripts by which a submission is accepted or refused, and its charge settled when it has ended."""

from contracts.turns import LINE

SETTLE = """
-- A generation is charged its whole budget when it is accepted. Once it has ended, what it did not spend is
-- given back, if that day is not over. One whose record is gone stays charged. `today` in days since 1970.
local function settle(spent, charges, today)
  local entries = redis.call('HGETALL', charges)
  for i = 1, #entries, 2 do
    local status, usage = unpack(redis.call('HMGET', 'rollover:job:' .. entries[i], 'status', 'usage'))
    if status ~= 'queued' and status ~= 'running' then
      redis.call('HDEL', charges, entries[i])
      local day, nfe = string.match(entries[i + 1], '^(%d+):(%d+)$')
      if status and tonumber(day) == today then
        usage = usage and cjson.decode(usage) or {nfe_spent = 0}
        local used = usage.nfe_spent
        if type(usage.baseline) == 'table' then used = used + usage.baseline.nfe_spent end
        redis.call('HINCRBY', spent, 'nfe', used - tonumber(nfe))
      end
    end
  end
end
local now = tonumber(redis.call('TIME')[1])
local today = math.floor(now / 86400)
"""

SETTLE_SCRIPT = f"""
-- KEYS: the API key's spent hash, its charges
{SETTLE}
if redis.call('HGET', KEYS[1], 'day') == tostring(today) then settle(KEYS[1], KEYS[2], today) end
"""

SUBMIT_SCRIPT = f"""
-- KEYS: idempotency key, the API key's spent hash, its charges, `contracts.turns.line_keys`
-- ARGV: generation, fingerprint of the body (or '': no idempotency), its time to live in s, longest queue,
--       owner (or '': no API key), NFE, NFE a day (or ''), generations at once (or ''), member, cost,
--       then the commands that store the job, each as its length and its words
{SETTLE}
{LINE}
if ARGV[2] ~= '' then
  local text = redis.call('GET', KEYS[1])
  if text then
    local earlier = cjson.decode(text)
    if earlier.body ~= ARGV[2] then return {{'mismatch'}} end
    return {{'repeated', earlier.id}}
  end
end
local waiting = redis.call('LLEN', KEYS[4]) + redis.call('ZCARD', KEYS[5])
if waiting >= tonumber(ARGV[4]) then return {{'queue_full'}} end
local nfe, daily, concurrent = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local left, reset, free = 0, 86400 - now % 86400, 0
if daily or concurrent then
  if redis.call('HGET', KEYS[2], 'day') ~= tostring(today) then
    redis.call('HSET', KEYS[2], 'day', today, 'nfe', 0)
    settle(KEYS[2], KEYS[3], today)
  end
  local function over()
    left = daily and daily - tonumber(redis.call('HGET', KEYS[2], 'nfe')) or 0
    free = concurrent and concurrent - redis.call('HLEN', KEYS[3]) or 0
    if concurrent and free < 1 then return 'too_many_generations' end
    if daily and nfe > left then return 'nfe_exhausted' end
  end
  -- Settling looks at every generation not settled yet. Where there may be few at once there are few, and how
  -- many more there may be is told truly; else it is left until it decides something.
  if concurrent or over() then settle(KEYS[2], KEYS[3], today) end
  local reason = over()
  if reason then return {{reason, left, reset, free}} end
  left, free = left - nfe, free - 1
  redis.call('HINCRBY', KEYS[2], 'nfe', nfe)
  redis.call('HSET', KEYS[3], ARGV[1], today .. ':' .. nfe)
end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], cjson.encode({{id = ARGV[1], body = ARGV[2]}}), 'EX', ARGV[3])
end
local at = 11
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, last))
  at = last + 1
end
join(KEYS[4], KEYS[5], KEYS[6], ARGV[9], tonumber(ARGV[10]))
return {{'stored', left, reset, free}}
"""
"""Returns the outcome and its facts: for `repeated` the earlier generation, for `stored`, `nfe_exhausted` and
`too_many_generations` the NFE left today, the seconds to the next day, and how many more generations there
may be at once."""
