-- In front of every script. ARGV[1] is the time in µs: 0, as always outside of tests, is Redis's own.
--
-- Numbers go to redis.call as they are: it writes whole ones in full and all others with 17 digits, where
-- Lua's own conversion keeps 14. That one (`..`, tostring) is for names alone.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- What is held for a request, as wire.Reservation has it: its key, input, output, day, month, when it was
-- admitted, then the charge and the worth of a token, of the tenant and the key each.
local function reservation(packed) return unpack(cmsgpack.unpack(packed)) end
