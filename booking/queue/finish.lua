-- Makes an index that has been built whole, and tells every node.
-- KEYS  1 state  2 the builder's lock    ARGV  1 the builder's token  2 channel  3 the command that publishes
-- Returns 1, or 0 when the caller is no longer the builder.
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call(ARGV[3], ARGV[2], '{"epoch":"' .. ARGV[1] .. '","version":' .. version .. '}')
return 1
