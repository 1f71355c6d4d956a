-- Begins to build an organization's index from the database, unless it is whole or being built.
-- From now on apply.lua takes changes in, so what is read from the database later can't be missing any.
-- KEYS  1 state  2 members  3 queues  4 the builder's lock
-- ARGV  1 the builder's token, later the epoch  2 queue key prefix  3 channel  4 the command that publishes
--       5 milliseconds until the lock expires  6 the epoch of an index that is whole and to be replaced, or ""
-- Returns "begun", "whole" or "building" (by another builder).
if redis.call('EXISTS', KEYS[4]) == 1 then return 'building' end
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and epoch ~= ARGV[6] then return 'whole' end
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[5])
for _, q in ipairs(redis.call('SMEMBERS', KEYS[3])) do redis.call('UNLINK', ARGV[2] .. q) end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call(ARGV[4], ARGV[3], '{"epoch":"' .. ARGV[1] .. '","version":0}')
return 'begun'
