-- Closes requests and raises totals: idempotent, in any order, on a hash of another run or none too.
--
-- KEYS  1 tenant hash · 2 its slots · 3 open · 4 held · 5 closed · then the slots of keys
-- ARGV  1 now · 2 packed: life of a tombstone in µs · ids, those of a key together · tokens of each · how many
--       requests each of the keys has · windows that rise, with their scopes · used of each · version of each
local life, ids, tokens, counts, windows, used, versions = unpack(cmsgpack.unpack(ARGV[2]))

-- Totals come first: while its slot moves, a cluster ends a script that meets a key which it has just emptied,
-- and what was released by then must be counted as used.
local fields = {'cleared'}
for i, window in ipairs(windows) do fields[i + 1] = 'w:' .. window end
local known, highest, raised = redis.call('HMGET', KEYS[1], unpack(fields)), {}, {}
for i, window in ipairs(windows) do
  if versions[i] > (highest[window] or tonumber(known[i + 1]) or -1) then
    highest[window] = versions[i]
    local n = #raised
    raised[n + 1], raised[n + 2] = 'u:' .. window, used[i]
    raised[n + 3], raised[n + 4] = 'w:' .. window, versions[i]
  end
end
if #raised > 0 then redis.call('HSET', KEYS[1], unpack(raised)) end

-- A repeated id is one, and what is no longer held was released before.
local found, is_found, released, buckets, gone = {}, {}, {}, {}, {}
if #ids > 0 then found = redis.call('HMGET', KEYS[4], unpack(ids)) end

-- What was charged becomes what was used. A refund must not give back what the bucket has regained
-- since the admission: min(charged - used, max(0, charged - time since then)).
local function correct(scope, charged_us, token_us, tokens_used, admitted_us)
  if token_us == 0 then return end
  local bucket = buckets[scope]
  if not bucket then
    local packed = redis.call('HGET', KEYS[1], 'b:' .. scope)
    bucket = packed and {struct.unpack('>ddd', packed)} or {0, 0, 0}
    bucket.passed = math.max(0, now - bucket[1])
    bucket.full_in_us = math.max(0, bucket[3] - bucket.passed)
    buckets[scope] = bucket
  end
  local used_us = tokens_used * token_us
  if used_us > charged_us then
    bucket.full_in_us = bucket.full_in_us + used_us - charged_us
  else
    local refund_us = math.min(charged_us - used_us, math.max(0, charged_us - (now - admitted_us)))
    bucket.full_in_us = math.max(0, bucket.full_in_us - refund_us)
  end
end

local of_key, of_day, holds  -- a day is of one month
for i, id in ipairs(ids) do
  if found[i] and not is_found[id] then
    is_found[id], gone[#gone + 1] = true, id
    local key, input, output, day, month, admitted_us,
      tenant_charged_us, tenant_token_us, key_charged_us, key_token_us = reservation(found[i])
    if key ~= of_key or day ~= of_day then
      of_key, of_day = key, day
      holds = {
        'h:t:t', 'h:t:m:' .. month, 'h:t:d:' .. day,
        'h:' .. key .. ':t', 'h:' .. key .. ':m:' .. month, 'h:' .. key .. ':d:' .. day,
      }
    end
    for _, field in ipairs(holds) do released[field] = (released[field] or 0) + input + output end
    correct('t', tenant_charged_us, tenant_token_us, tokens[i], admitted_us)
    correct(key, key_charged_us, key_token_us, tokens[i], admitted_us)
  end
end

-- A tombstone precedes the release, for the same reason as totals do. No key is met again once it may be empty.
if #ids > 0 then
  local tombstones = {}
  for i, id in ipairs(ids) do tombstones[2 * i - 1], tombstones[2 * i] = now, id end
  redis.call('ZADD', KEYS[5], unpack(tombstones))
end
if #gone > 0 then
  for scope, bucket in pairs(buckets) do
    local full_in_us = bucket.full_in_us + bucket.passed
    redis.call('HSET', KEYS[1], 'b:' .. scope, struct.pack('>ddd', bucket[1], bucket[2], full_in_us))
  end
  local names, kept = {}, {}
  for name in pairs(released) do names[#names + 1] = name end
  for i, tokens_held in ipairs(redis.call('HMGET', KEYS[4], unpack(names))) do
    local rest = (tonumber(tokens_held) or 0) - released[names[i]]
    if rest > 0 then
      kept[#kept + 1] = names[i]
      kept[#kept + 1] = rest
    else
      gone[#gone + 1] = names[i]
    end
  end
  if #kept > 0 then redis.call('HSET', KEYS[4], unpack(kept)) end
  redis.call('HDEL', KEYS[4], unpack(gone))
  redis.call('ZREM', KEYS[3], unpack(ids))
end
local last = 0
for i, count in ipairs(counts) do
  redis.call('ZREM', KEYS[5 + i], unpack(ids, last + 1, last + count))
  last = last + count
end
if last > 0 then redis.call('ZREM', KEYS[2], unpack(ids)) end

-- admit.lua must know which ids may have lost their tombstones, or a clock that steps back reopens them.
-- An id begins with the time in ms at which it was minted. What lies too far ahead is of before a step.
local before = tonumber(known[1]) or 0
local cleared = before
local until_then = '(' .. string.format('%.0f', now - life)
local old = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', until_then, 'LIMIT', 0, 1000)
for _, id in ipairs(old) do
  local minted = tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16)
  cleared = math.max(cleared, minted * 1000)
end
if #old > 0 then redis.call('ZREM', KEYS[5], unpack(old)) end
if cleared - now > life then
  redis.call('HDEL', KEYS[1], 'cleared')
elseif cleared > before then
  redis.call('HSET', KEYS[1], 'cleared', cleared)
end
return 1
