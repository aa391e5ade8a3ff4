-- Ends the loss of a tenant's hash: only if the mark it was started for still stands and its reading
-- of Postgres is young. Keeps what is newer in Redis, replaces what is held, sets the epoch last.
--
-- KEYS  1 tenant hash · 2 its slots · 3 open · 4 held · 5 closed · then the slots of every key
-- ARGV  1 now · 2 run_id · 3 mark · 4 time of the reading · 5 its greatest age (µs)
--       then four lists, each with its length first: versions: field, version · closed: id
--       totals: scope and window, used, version · open requests: id, which of KEYS, reservation, its end in µs
-- Returns 1, or 0 if it did nothing.
if redis.call('HGET', KEYS[1], 'mark') ~= ARGV[3] then return 0 end
local run = ARGV[2] .. ':'
if string.sub(ARGV[3], 1, #run) ~= run then return 0 end  -- the mark itself was restored
if now - tonumber(ARGV[4]) > tonumber(ARGV[5]) then return 0 end

local at = 5
local function take()
  at = at + 1
  return ARGV[at]
end
local function raise(field, version)
  if tonumber(version) <= (tonumber(redis.call('HGET', KEYS[1], field)) or -1) then return false end
  redis.call('HSET', KEYS[1], field, version)
  return true
end

for _ = 1, tonumber(take()) do raise(take(), take()) end
for _ = 1, tonumber(take()) do redis.call('ZADD', KEYS[5], int(now), take()) end
for _ = 1, tonumber(take()) do
  local window, used, version = take(), take(), take()
  if raise('w:' .. window, version) then redis.call('HSET', KEYS[1], 'u:' .. window, used) end
end

-- Slots and reservations of another run are dropped, not merged: the open requests are all there are.
for i = 2, #KEYS do
  if i ~= 5 then redis.call('DEL', KEYS[i]) end
end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'h:' then redis.call('HDEL', KEYS[1], field) end
end
for _ = 1, tonumber(take()) do
  local id, slots, packed, ends = take(), KEYS[tonumber(take())], take(), take()
  if not redis.call('ZSCORE', KEYS[5], id) then
    local reservation = cjson.decode(packed)
    local reserved = int(tonumber(reservation.input) + tonumber(reservation.output))
    redis.call('HSET', KEYS[4], id, packed)
    for _, zset in ipairs({KEYS[2], KEYS[3], slots}) do redis.call('ZADD', zset, ends, id) end
    for _, scope in ipairs({'t', reservation.key}) do
      for _, window in ipairs({'t', 'm:' .. reservation.month, 'd:' .. reservation.day}) do
        redis.call('HINCRBY', KEYS[1], 'h:' .. scope .. ':' .. window, reserved)
      end
    end
  end
end

redis.call('HDEL', KEYS[1], 'mark', 'mark_us')
redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
return 1
