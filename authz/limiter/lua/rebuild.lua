-- Writes a part of what Postgres holds of a lost tenant, at last its epoch: only while the mark stands that
-- the rebuild was started for, and while its reading of Postgres is young.
--
-- What is newer in Redis stays. Slots and reservations have names of this run, so those of an earlier one
-- are unread; before the epoch nothing is admitted, so these here are a rebuild's, of this reading or of
-- another under the same mark.
--
-- KEYS  1 tenant hash · 2 its slots · 3 open · 4 held · 5 closed · then the slots of keys
-- ARGV  1 now · 2 run · 3 mark · 4 time of the reading · 5 its greatest age (µs) · 6 whether this is the last
--       then four lists, each with its length first: versions: field, version · closed: id
--       totals: scope and window, used, version · open requests: id, which of KEYS, reservation, its end in µs
-- Returns 1, or 0 if it did nothing.
if redis.call('HGET', KEYS[1], 'mark') ~= ARGV[3] then return 0 end
local run = ARGV[2] .. ':'
if string.sub(ARGV[3], 1, #run) ~= run then return 0 end  -- the mark itself was restored
local age = now - tonumber(ARGV[4])
if age < 0 or age > tonumber(ARGV[5]) then return 0 end  -- below 0 the clock has stepped back since

local at = 6
local function take()
  at = at + 1
  return ARGV[at]
end

-- Every list is read and written with one call each: a call costs more than a row.
local function raise(count, versioned, values)
  if count == 0 then return end
  local fields, rows, writes = {}, {}, {}
  for i = 1, count do
    rows[i] = {field = take(), used = values and take(), version = take()}
    fields[i] = versioned .. rows[i].field
  end
  for i, known in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do
    if tonumber(rows[i].version) > (tonumber(known or nil) or -1) then
      writes[#writes + 1] = fields[i]
      writes[#writes + 1] = rows[i].version
      if values then
        writes[#writes + 1] = values .. rows[i].field
        writes[#writes + 1] = rows[i].used
      end
    end
  end
  if #writes > 0 then redis.call('HSET', KEYS[1], unpack(writes)) end
end

raise(tonumber(take()), '')
local tombstones = {}
for _ = 1, tonumber(take()) do
  tombstones[#tombstones + 1] = now
  tombstones[#tombstones + 1] = take()
end
if #tombstones > 0 then redis.call('ZADD', KEYS[5], unpack(tombstones)) end
raise(tonumber(take()), 'w:', 'u:')

for _ = 1, tonumber(take()) do
  local id, slots, packed, ends = take(), KEYS[tonumber(take())], take(), take()
  if not redis.call('ZSCORE', KEYS[5], id) and redis.call('HSETNX', KEYS[4], id, packed) == 1 then
    local key, input, output, day, month = reservation(packed)
    for _, zset in ipairs({KEYS[2], KEYS[3], slots}) do redis.call('ZADD', zset, ends, id) end
    for _, scope in ipairs({'t', key}) do
      for _, window in ipairs({'t', 'm:' .. month, 'd:' .. day}) do
        redis.call('HINCRBY', KEYS[4], 'h:' .. scope .. ':' .. window, input + output)
      end
    end
  end
end

if ARGV[6] == '1' then
  redis.call('HDEL', KEYS[1], 'mark', 'mark_us')
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
end
return 1
