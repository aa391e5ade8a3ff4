-- Raises versions in a tenant's hash, never lowers one.
--
-- KEYS  1 tenant hash
-- ARGV  1 now · then pairs of field and version
for i = 2, #ARGV, 2 do
  if tonumber(ARGV[i + 1]) > (tonumber(redis.call('HGET', KEYS[1], ARGV[i])) or -1) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return 1
