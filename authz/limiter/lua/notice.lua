-- Marks the loss of a tenant's hash: its rebuild must find the mark unchanged.
--
-- KEYS  1 tenant hash
-- ARGV  1 now · 2 run_id · 3 nonce
-- Returns {mark, when it was set in µs}, or {} if nothing is lost.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'mark', 'mark_us')
if found[1] == ARGV[2] then return {} end

-- A mark of another run came with a restored snapshot and says nothing about this loss.
local run = ARGV[2] .. ':'
if found[2] and string.sub(found[2], 1, #run) == run then return {found[2], tonumber(found[3])} end
local mark = run .. ARGV[3]
redis.call('HSET', KEYS[1], 'mark', mark, 'mark_us', int(now))
return {mark, now}
