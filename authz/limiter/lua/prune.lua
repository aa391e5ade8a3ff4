-- Forgets what was used in windows that no request can be admitted to any more: one step of a scan.
--
-- KEYS  1 tenant hash
-- ARGV  1 now · 2 first day to keep · 3 first month to keep · 4 where the step begins · 5 how many fields
-- Returns where the next step begins, 0 after the last.
local first, old = {d = ARGV[2], m = ARGV[3]}, {}
local found = redis.call('HSCAN', KEYS[1], ARGV[4], 'COUNT', ARGV[5])
for i = 1, #found[2], 2 do
  local field = found[2][i]
  local period, start = string.match(field, '^[uw]:.+:([dm]):([%d-]+)$')
  local is_earlier = string.find(field, '^[hnqk]:')  -- of the first layout
  if is_earlier or (period and start < first[period]) then old[#old + 1] = field end
end
if #old > 0 then redis.call('HDEL', KEYS[1], unpack(old)) end
return found[1]
