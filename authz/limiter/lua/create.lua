-- Publishes the hash of a tenant that is about to be committed, only where there is no epoch.
--
-- KEYS  1 tenant hash
-- ARGV  1 now · 2 run · 3 tenant version
if redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
redis.call('HDEL', KEYS[1], 'mark', 'mark_us')
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'v', ARGV[3])
return 1
