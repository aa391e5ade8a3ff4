-- Takes one of the reads that a key has in a minute, or says how long to wait for it (GCRA, its burst is
-- the limit). A refusal writes nothing, and what is full again is forgotten.
--
-- KEYS  1 the bucket: when it is full again
-- ARGV  1 now · 2 reads a minute
-- Returns the wait in µs, 0 if the read is taken.
local MINUTE = 60000000
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1])) or 0)
if full_at - now > MINUTE then full_at = now end  -- the clock has stepped back
full_at = full_at + MINUTE / tonumber(ARGV[2])
local wait = math.ceil(full_at - now - MINUTE)
if wait > 0 then return wait end
redis.call('SET', KEYS[1], full_at, 'PX', math.ceil((full_at - now) / 1000))
return 0
