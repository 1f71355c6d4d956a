-- Tells every node of a change that moves no booking.
-- KEYS  1 state (hash: epoch, version)  2 the builder's lock
-- ARGV  1 channel  2 rest of the delta as JSON, beginning with a comma  3 the command that publishes
-- Returns {outcome, epoch, version}: "applied", "building" (no node is told: all will read the index) or "lost".
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return {redis.call('EXISTS', KEYS[2]) == 1 and 'building' or 'lost', '', 0} end
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call(ARGV[3], ARGV[1], '{"epoch":"' .. epoch .. '","version":' .. version .. ARGV[2] .. '}')
return {'applied', epoch, version}
