-- Admits one request or says why not: all or nothing, idempotent by id. A refusal writes nothing.
--
-- KEYS  1 tenant hash · 2 its slots · 3 the key's slots · 4 open · 5 held · 6 closed
-- ARGV  1 now · 2 run · 3 the question, packed (Admission.question). All times are µs. `minted` is when the
--       id was, `age` its greatest age; of what a budget has left, an answer without a cap takes one in
--       `share`, but always `least_share`; `share` is 0 for one with a cap. Limits are those of requests and
--       tokens per minute, of concurrency, and of tokens per day, month and in total.
-- Returns {"admitted", the most input, the most output, day, month, µs until the tenant's requests
--          and tokens, then the key's requests and tokens are full again}
--      or {"refused", limit, scope, used, value, wait in µs, held, tokens that it needs of a budget}
--      or {"lost" | "stale" | "closed" | "late" | "calendar", now}
local MINUTE = 60000000
local id, minted, age, tenant_version, key, key_version, day, month, valid_from, valid_until,
  bound_in, wanted, share, least_share, estimate, life, limits_of_tenant, limits_of_key
  = unpack(cmsgpack.unpack(ARGV[3]))

-- All that the hash knows, at once: each call costs as much as ten fields. From 5 on six fields of the tenant,
-- from 11 on six of the key.
local function total(name) return name .. ':t' end
local function in_month(name) return name .. ':m:' .. month end
local function on_day(name) return name .. ':d:' .. day end
local head = redis.call('HMGET', KEYS[1], 'epoch', 'v', 'v:' .. key, 'cleared',
  'n:t', 'q:t', 'k:t', 'u:' .. total('t'), 'u:' .. in_month('t'), 'u:' .. on_day('t'),
  'n:' .. key, 'q:' .. key, 'k:' .. key, 'u:' .. total(key), 'u:' .. in_month(key), 'u:' .. on_day(key))
if head[1] ~= ARGV[2] then return {'lost', now} end
if tonumber(head[2]) ~= tenant_version or tonumber(head[3]) ~= key_version then return {'stale', now} end
if redis.call('ZSCORE', KEYS[6], id) then return {'closed', now} end

-- Beyond this age an id's tombstone may have been removed; after a step of the clock, so may that of an id
-- that looks younger. Those were minted no later than the newest that was removed. One that lies further
-- ahead than tombstones live is of before a step back so great that what looks young now is as old.
local cleared = tonumber(head[4]) or 0
local is_removed = minted <= cleared and cleared - now <= 2 * age
if is_removed or now - minted > age or minted - now > age then return {'late', now} end

-- What is held has names of this run: the request itself, if it is a repeated one, and what each window holds.
local held = redis.call('HMGET', KEYS[5], id,
  'h:' .. total('t'), 'h:' .. in_month('t'), 'h:' .. on_day('t'),
  'h:' .. total(key), 'h:' .. in_month(key), 'h:' .. on_day(key))

-- What the hash knows of a scope. A bucket is the time until it is full again (GCRA, its burst is
-- the limit). A clock that stepped back stops it until it has caught up; after a step of more than a
-- minute it is full.
local function read_scope(name, slots, limit, first_known, first_held)
  local found = {}
  for i = 1, 6 do found[i] = tonumber(head[first_known + i - 1]) or 0 end
  local function held_of(i) return tonumber(held[first_held + i]) or 0 end
  local passed, behind_us = now - found[1], 0
  if passed < -MINUTE then passed = math.huge end
  if passed < 0 then passed, behind_us = 0, -passed end
  return {
    name = name, slots = slots, rpm = limit[1], tpm = limit[2], concurrency = limit[3],
    requests_us = math.max(0, found[2] - passed), tokens_us = math.max(0, found[3] - passed),
    behind_us = behind_us, charged_us = 0, token_us = 0,
    budgets = {
      {name = 'total', window = total(name), limit = limit[6], used = found[4], held = held_of(0)},
      {name = 'month', window = in_month(name), limit = limit[5], used = found[5], held = held_of(1)},
      {name = 'day', window = on_day(name), limit = limit[4], used = found[6], held = held_of(2)},
    },
  }
end
local scopes = {read_scope('t', KEYS[2], limits_of_tenant, 5, 2), read_scope(key, KEYS[3], limits_of_key, 11, 5)}

local function admitted(input, output, of_day, of_month)
  local answer = {'admitted', input, output, of_day, of_month}
  for _, scope in ipairs(scopes) do
    answer[#answer + 1] = math.floor(scope.requests_us)
    answer[#answer + 1] = math.floor(scope.tokens_us)
  end
  return answer
end

local function refused(limit, scope, used, value, wait, held, needed)
  return {'refused', limit, scope.name, used, value, wait, held, needed}
end

if held[1] then
  local was = cjson.decode(held[1])
  return admitted(tonumber(was.input), tonumber(was.output), was.day, was.month)
end
if now < valid_from or now >= valid_until then return {'calendar', now} end

-- Budgets: R is what is wanted, or less if one has less left. An answer without a cap of its own wants
-- a share of that, so that others fit beside it, and no more than leaves room for its like. Less than a
-- prompt and one token of answer is a budget's end; enough of it, but held by others, is worth a wait.
-- So the last answer is a short one, and what others merely hold shortens none. Of several ends the one
-- that lasts longest is named.
local left, budgets = math.huge, {}
for i = 1, 3 do
  for _, scope in ipairs(scopes) do
    local budget = scope.budgets[i]
    if budget.limit then
      budget.scope = scope
      budgets[#budgets + 1] = budget
      left = math.min(left, budget.limit - budget.used)
    end
  end
end
if share > 0 and #budgets > 0 then
  local part = math.min(math.floor(left / share), math.floor(left / 2) - bound_in)
  wanted = math.min(wanted, math.max(least_share, part))
end
local R = math.min(bound_in + wanted, left)
local least = math.max(1, bound_in + math.min(1, wanted))
for _, budget in ipairs(budgets) do
  if budget.limit - budget.used < least then
    return refused(budget.name, budget.scope, budget.used, budget.limit, 0, budget.held, least)
  end
end
for _, budget in ipairs(budgets) do
  if R > budget.limit - budget.used - budget.held then
    return refused('held_' .. budget.name, budget.scope, budget.used, budget.limit, 0, budget.held, R)
  end
end

for _, scope in ipairs(scopes) do
  if scope.concurrency then
    local running = redis.call('ZCOUNT', scope.slots, '(' .. int(now), '+inf')
    if running >= scope.concurrency then
      return refused('concurrency', scope, running, scope.concurrency, 0, 0, 0)
    end
  end
end

-- Rates: of the buckets that refuse, the one with the longest wait is named, so that it suffices.
local worst
local function fill(scope, name, limit, full_in_us, cost_us)
  local filled_us = full_in_us + cost_us
  local wait = math.ceil(filled_us - MINUTE - 0.5)  -- rounding must not cost the last of a burst
  if wait <= 0 then return filled_us end
  wait = wait + scope.behind_us
  if not worst or wait > worst[5] then
    worst = {name, scope, math.ceil(full_in_us * limit / MINUTE - 0.001), limit, wait, 0, 0}
  end
  return filled_us
end
for _, scope in ipairs(scopes) do
  if scope.rpm then
    scope.requests_us = fill(scope, 'requests', scope.rpm, scope.requests_us, MINUTE / scope.rpm)
  end
  if scope.tpm then
    -- A charge above the burst would make a small limit unusable: the debt follows at settlement.
    scope.token_us = MINUTE / scope.tpm
    scope.charged_us = math.min(estimate * scope.token_us, MINUTE)
    scope.tokens_us = fill(scope, 'tokens', scope.tpm, scope.tokens_us, scope.charged_us)
  end
end
if worst then return refused(unpack(worst)) end

-- Admitted: only now anything is written. What is held is the most that the request can be charged,
-- budget or not, so that a budget which is set while it runs counts it at its worst.
local output = R - bound_in
local rates, holds, charges = {}, {}, {}
local function write(to, field, value)
  to[#to + 1] = field
  to[#to + 1] = value
end
for i, scope in ipairs(scopes) do
  for _, budget in ipairs(scope.budgets) do
    write(holds, 'h:' .. budget.window, int(budget.held + R))
  end
  if scope.rpm or scope.tpm then
    write(rates, 'n:' .. scope.name, int(now))
    write(rates, 'q:' .. scope.name, exact(scope.requests_us))
    write(rates, 'k:' .. scope.name, exact(scope.tokens_us))
  end
  charges[i] = {charged_us = exact(scope.charged_us), token_us = exact(scope.token_us)}
end
if #rates > 0 then redis.call('HSET', KEYS[1], unpack(rates)) end
local ends = int(now + life)
redis.call('ZADD', KEYS[2], ends, id)
redis.call('ZADD', KEYS[3], ends, id)
redis.call('ZADD', KEYS[4], ends, id)
write(holds, id, cjson.encode({
  key = key, input = int(bound_in), output = int(output), day = day, month = month,
  admitted_us = int(now), charges = {tenant = charges[1], key = charges[2]},
}))
redis.call('HSET', KEYS[5], unpack(holds))
return admitted(bound_in, output, day, month)
