-- Admits one request or says why not: all or nothing, idempotent by id. A refusal writes nothing.
--
-- Every request runs this: it makes few calls of Redis, each of which costs as much as ten fields, and few
-- tables and functions.
--
-- KEYS  1 tenant hash · 2 its slots · 3 the key's slots · 4 open · 5 held · 6 closed
-- ARGV  1 now · 2 run · 3 the question, packed (Admission.question). All times are µs. `minted` is when the
--       id was, `age` its greatest age; of what a budget has left, an answer without a cap takes one in
--       `share`, but always `least_share`; `share` is 0 for one with a cap. Limits are those of requests and
--       tokens per minute and of concurrency, of the tenant and the key; then the six of tokens in all, per
--       month and per day, of the tenant and the key each.
-- Returns {"admitted", the most input, the most output, day, month, µs until the tenant's requests
--          and tokens, then the key's requests and tokens are full again}
--      or {"refused", limit, scope, used, value, wait in µs, held, tokens that it needs of a budget}
--      or {"lost" | "stale" | "closed" | "late" | "calendar", now}
local MINUTE = 60000000
local _, id, minted, age, tenant_version, key, key_version, day, month, valid_from, valid_until,
  bound_in, wanted, share, least_share, estimate, life,
  tenant_rpm, tenant_tpm, tenant_slots, key_rpm, key_tpm, key_slots, budgets
  = cmsgpack.unpack_limit(ARGV[3], 23, 3)  -- behind the head of an array: a table of nulls has no length

-- All that the hash knows, at once. From 7 on what was used of the six budgets' windows.
local in_month, on_day = ':m:' .. month, ':d:' .. day
local head = redis.call('HMGET', KEYS[1], 'epoch', 'v', 'v:' .. key, 'cleared', 'b:t', 'b:' .. key,
  'u:t:t', 'u:' .. key .. ':t', 'u:t' .. in_month, 'u:' .. key .. in_month, 'u:t' .. on_day, 'u:' .. key .. on_day)
if head[1] ~= ARGV[2] then return {'lost', now} end
if tonumber(head[2]) ~= tenant_version or tonumber(head[3]) ~= key_version then return {'stale', now} end
if redis.call('ZSCORE', KEYS[6], id) then return {'closed', now} end

-- Beyond this age an id's tombstone may have been removed; after a step of the clock, so may that of an id
-- that looks younger. Those were minted no later than the newest that was removed. One that lies further
-- ahead than tombstones live is of before a step back so great that what looks young now is as old.
local cleared = tonumber(head[4]) or 0
local is_removed = minted <= cleared and cleared - now <= 2 * age
if is_removed or now - minted > age or minted - now > age then return {'late', now} end

-- What is held has names of this run: the request itself, if it is a repeated one, and from 2 on what each
-- of the six windows holds.
local tenant_holds, tenant_holds_month, tenant_holds_day = 'h:t:t', 'h:t' .. in_month, 'h:t' .. on_day
local key_holds = 'h:' .. key
local key_holds_month, key_holds_day = key_holds .. in_month, key_holds .. on_day
key_holds = key_holds .. ':t'
local held = redis.call('HMGET', KEYS[5], id, tenant_holds, key_holds,
  tenant_holds_month, key_holds_month, tenant_holds_day, key_holds_day)

-- A bucket is the time until it is full again (GCRA, its burst is the limit). A clock that stepped back
-- stops it until it has caught up; after a step of more than a minute it is full.
-- Returns that of requests and of tokens, and how far the clock is behind.
local function read_bucket(packed)
  if not packed then return 0, 0, 0 end
  local at, requests_us, tokens_us = struct.unpack('>ddd', packed)
  local passed = now - at
  if passed < -MINUTE then return 0, 0, 0 end
  if passed < 0 then return requests_us, tokens_us, -passed end
  return math.max(0, requests_us - passed), math.max(0, tokens_us - passed), 0
end
local tenant_requests_us, tenant_tokens_us, tenant_behind_us = read_bucket(head[5])
local key_requests_us, key_tokens_us, key_behind_us = read_bucket(head[6])

if held[1] then
  local _, input, output, of_day, of_month = reservation(held[1])
  return {'admitted', input, output, of_day, of_month, math.floor(tenant_requests_us),
    math.floor(tenant_tokens_us), math.floor(key_requests_us), math.floor(key_tokens_us)}
end
if now < valid_from or now >= valid_until then return {'calendar', now} end

-- Budgets: R is what is wanted, or less if one has less left. An answer without a cap of its own wants
-- a share of that, so that others fit beside it, and no more than leaves room for its like. Less than a
-- prompt and one token of answer is a budget's end; enough of it, but held by others, is worth a wait.
-- So the last answer is a short one, and what others merely hold shortens none. Of several ends the one
-- that lasts longest is named.
local left = math.huge
for i = 1, 6 do
  if budgets[i] then left = math.min(left, budgets[i] - (tonumber(head[6 + i]) or 0)) end
end
local R = bound_in + wanted
if left < math.huge then
  local function refused(i, kind, needed)
    local name, scope = ({'total', 'month', 'day'})[math.ceil(i / 2)], i % 2 == 1 and 't' or key
    return {'refused', kind .. name, scope, tonumber(head[6 + i]) or 0, budgets[i], 0,
      tonumber(held[1 + i]) or 0, needed}
  end
  if share > 0 then
    local part = math.min(math.floor(left / share), math.floor(left / 2) - bound_in)
    wanted = math.min(wanted, math.max(least_share, part))
  end
  R = math.min(bound_in + wanted, left)
  local least = math.max(1, bound_in + math.min(1, wanted))
  for i = 1, 6 do
    if budgets[i] and budgets[i] - (tonumber(head[6 + i]) or 0) < least then return refused(i, '', least) end
  end
  for i = 1, 6 do
    if budgets[i] and R > budgets[i] - (tonumber(head[6 + i]) or 0) - (tonumber(held[1 + i]) or 0) then
      return refused(i, 'held_', R)
    end
  end
end

-- Slots whose end has passed are counted by the first call, which is much the cheaper one.
for i = 2, 3 do
  local limit = i == 2 and tenant_slots or i == 3 and key_slots
  if limit and redis.call('ZCARD', KEYS[i]) >= limit then
    local running = redis.call('ZCOUNT', KEYS[i], '(' .. string.format('%.0f', now), '+inf')
    if running >= limit then
      return {'refused', 'concurrency', i == 2 and 't' or key, running, limit, 0, 0, 0}
    end
  end
end

-- Rates: of the buckets that refuse, the one with the longest wait is named, so that it suffices.
local worst
local function fill(scope, name, limit, full_in_us, cost_us, behind_us)
  local filled_us = full_in_us + cost_us
  local wait = math.ceil(filled_us - MINUTE - 0.5)  -- rounding must not cost the last of a burst
  if wait <= 0 then return filled_us end
  wait = wait + behind_us
  if not worst or wait > worst[6] then
    local used = math.ceil(full_in_us * limit / MINUTE - 0.001)
    worst = {'refused', name, scope, used, limit, wait, 0, 0}
  end
  return filled_us
end
-- A charge above the burst would make a small limit unusable: the debt follows at settlement.
local tenant_charged_us, tenant_token_us, key_charged_us, key_token_us = 0, 0, 0, 0
if tenant_rpm then
  tenant_requests_us = fill('t', 'requests', tenant_rpm, tenant_requests_us, MINUTE / tenant_rpm, tenant_behind_us)
end
if tenant_tpm then
  tenant_token_us = MINUTE / tenant_tpm
  tenant_charged_us = math.min(estimate * tenant_token_us, MINUTE)
  tenant_tokens_us = fill('t', 'tokens', tenant_tpm, tenant_tokens_us, tenant_charged_us, tenant_behind_us)
end
if key_rpm then
  key_requests_us = fill(key, 'requests', key_rpm, key_requests_us, MINUTE / key_rpm, key_behind_us)
end
if key_tpm then
  key_token_us = MINUTE / key_tpm
  key_charged_us = math.min(estimate * key_token_us, MINUTE)
  key_tokens_us = fill(key, 'tokens', key_tpm, key_tokens_us, key_charged_us, key_behind_us)
end
if worst then return worst end

-- Admitted: only now anything is written. What is held is the most that the request can be charged,
-- budget or not, so that a budget which is set while it runs counts it at its worst.
local output, ends = R - bound_in, now + life
if tenant_rpm or tenant_tpm or key_rpm or key_tpm then
  redis.call('HSET', KEYS[1],
    'b:t', struct.pack('>ddd', now, tenant_requests_us, tenant_tokens_us),
    'b:' .. key, struct.pack('>ddd', now, key_requests_us, key_tokens_us))
end
redis.call('ZADD', KEYS[2], ends, id)
redis.call('ZADD', KEYS[3], ends, id)
redis.call('ZADD', KEYS[4], ends, id)
local packed = cmsgpack.pack(key, bound_in, output, day, month, now,
  tenant_charged_us, tenant_token_us, key_charged_us, key_token_us)
redis.call('HSET', KEYS[5], id, '\154' .. packed,  -- that is the head of an array of ten
  tenant_holds, (tonumber(held[2]) or 0) + R, key_holds, (tonumber(held[3]) or 0) + R,
  tenant_holds_month, (tonumber(held[4]) or 0) + R, key_holds_month, (tonumber(held[5]) or 0) + R,
  tenant_holds_day, (tonumber(held[6]) or 0) + R, key_holds_day, (tonumber(held[7]) or 0) + R)
return {'admitted', bound_in, output, day, month, math.floor(tenant_requests_us),
  math.floor(tenant_tokens_us), math.floor(key_requests_us), math.floor(key_tokens_us)}
