-- Closes requests and raises totals: idempotent, in any order, on a hash of another run or none too.
--
-- KEYS  1 tenant hash · 2 its slots · 3 open · 4 held · 5 closed · then per request the slots of its key
-- ARGV  1 now · 2 life of a tombstone in µs · 3 number of requests · per request: id, tokens
--       then per total: scope and window, used, version

-- What was charged becomes what was used. A refund must not give back what the bucket has regained
-- since the admission: min(charged - used, max(0, charged - time since then)).
local function correct(scope, charge, tokens, admitted_us)
  local charged_us, token_us = tonumber(charge.charged_us), tonumber(charge.token_us)
  if token_us == 0 then return end
  local found = redis.call('HMGET', KEYS[1], 'n:' .. scope, 'k:' .. scope)
  local passed = math.max(0, now - (tonumber(found[1]) or 0))
  local full_in_us = math.max(0, (tonumber(found[2]) or 0) - passed)
  local used_us = tokens * token_us
  if used_us > charged_us then
    full_in_us = full_in_us + used_us - charged_us
  else
    local refund_us = math.min(charged_us - used_us, math.max(0, charged_us - (now - admitted_us)))
    full_in_us = math.max(0, full_in_us - refund_us)
  end
  redis.call('HSET', KEYS[1], 'k:' .. scope, exact(full_in_us + passed))
end

local function release(reservation, tokens)
  local reserved = tonumber(reservation.input) + tonumber(reservation.output)
  for _, scope in ipairs({'t', reservation.key}) do
    for _, window in ipairs({'t', 'm:' .. reservation.month, 'd:' .. reservation.day}) do
      local field = 'h:' .. scope .. ':' .. window
      if redis.call('HINCRBY', KEYS[4], field, int(0 - reserved)) <= 0 then
        redis.call('HDEL', KEYS[4], field)
      end
    end
  end
  local admitted_us = tonumber(reservation.admitted_us)
  correct('t', reservation.charges.tenant, tokens, admitted_us)
  correct(reservation.key, reservation.charges.key, tokens, admitted_us)
end

-- Totals come first: while its slot moves, a cluster ends a script that meets a key which it has just emptied,
-- and what was released by then must be counted as used.
local count = tonumber(ARGV[3])
for i = 4 + 2 * count, #ARGV, 3 do
  local window, used, version = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if tonumber(version) > (tonumber(redis.call('HGET', KEYS[1], 'w:' .. window)) or -1) then
    redis.call('HSET', KEYS[1], 'u:' .. window, used, 'w:' .. window, version)
  end
end

for i = 1, count do
  local id, tokens = ARGV[2 + 2 * i], tonumber(ARGV[3 + 2 * i])
  local packed = redis.call('HGET', KEYS[4], id)
  if packed then
    release(cjson.decode(packed), tokens)
    redis.call('HDEL', KEYS[4], id)
    redis.call('ZREM', KEYS[3], id)
  end
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[5 + i], id)
  redis.call('ZADD', KEYS[5], int(now), id)
end

-- admit.lua must know which ids may have lost their tombstones, or a clock that steps back reopens them.
-- An id begins with the time in ms at which it was minted. What lies too far ahead is of before a step.
local life = tonumber(ARGV[2])
local before = tonumber(redis.call('HGET', KEYS[1], 'cleared')) or 0
local cleared = before
local old = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', '(' .. int(now - life), 'LIMIT', 0, 1000)
for _, id in ipairs(old) do
  local minted = tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16)
  cleared = math.max(cleared, minted * 1000)
end
if #old > 0 then redis.call('ZREM', KEYS[5], unpack(old)) end
if cleared - now > life then
  redis.call('HDEL', KEYS[1], 'cleared')
elseif cleared > before then
  redis.call('HSET', KEYS[1], 'cleared', int(cleared))
end
return 1
