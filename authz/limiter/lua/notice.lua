-- Marks the loss of a tenant's hash: its rebuild must find the mark unchanged.
--
-- KEYS  1 tenant hash · 2 past
-- ARGV  1 now · 2 run · 3 nonce
-- Returns {mark, when it was set in µs}, or {} if nothing is lost.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'mark', 'mark_us')
if found[1] == ARGV[2] then return {} end
if found[1] then
  -- A process that still takes Redis for the earlier run must not go on admitting behind the mark.
  redis.call('SADD', KEYS[2], found[1])
  redis.call('HDEL', KEYS[1], 'epoch')
end

-- A mark of another run came with a restored snapshot and says nothing about this loss; one of the future
-- is of before the clock stepped back, and would be waited for as long.
local run = ARGV[2] .. ':'
if found[2] then
  local is_ours = string.sub(found[2], 1, #run) == run
  if is_ours and tonumber(found[3]) <= now then return {found[2], tonumber(found[3])} end
  if not is_ours then redis.call('SADD', KEYS[2], (string.match(found[2], '^[^:]*'))) end
end
local mark = run .. ARGV[3]
redis.call('HSET', KEYS[1], 'mark', mark, 'mark_us', now)
return {mark, now}
