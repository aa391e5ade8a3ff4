-- Forgets what was used in windows that no request can be admitted to any more.
--
-- KEYS  1 tenant hash
-- ARGV  1 now · 2 first day to keep · 3 first month to keep
-- Returns how many fields it dropped.
local first, dropped = {d = ARGV[2], m = ARGV[3]}, 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local period, start = string.match(field, '^[uw]:.+:([dm]):([%d-]+)$')
  if period and start < first[period] then dropped = dropped + redis.call('HDEL', KEYS[1], field) end
end
return dropped
