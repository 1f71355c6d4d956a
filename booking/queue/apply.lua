-- Puts one booking where it stands now, and tells every node.
-- KEYS  1 state (hash: epoch, version)  2 members (hash: booking -> record)  3 queues (set of queue ids)
--       4 the builder's lock (its token will be the epoch)
-- ARGV  1 booking  2 its version  3 score  4 record for members ("" when it waits nowhere)
--       5 queue ids, joined by commas  6 queue key prefix  7 channel  8 seconds a tombstone lives
--       9 rest of the delta as JSON, beginning with a comma  10 "1" when the delta carries an event
--       11 the command that publishes  12 "1" to remove the booking from every queue first  13 tombstone key prefix
-- Returns {outcome, epoch, version}: "applied", "same", "stale" (a newer version was seen), "building" (taken in by
-- an index that is being built; no node is told) or "lost" (there is no index).
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local life = epoch or redis.call('GET', KEYS[4])
if not life then return {'lost', '', 0} end
-- A life of the index forgets who left in an earlier one: the database was read after that.
local tombstone = ARGV[13] .. life .. ':' .. ARGV[1]

local record = redis.call('HGET', KEYS[2], ARGV[1])
local seen, old = -1, ''
if record then
  local v, q = string.match(record, '^(%d+) (%S*)')
  seen, old = tonumber(v) or -1, q or ''
else
  seen = tonumber(redis.call('GET', tombstone) or -1)
end
local current = tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
local version = tonumber(ARGV[2])
if version < seen then return {'stale', epoch or '', current} end
local stays = record and ARGV[4] ~= '' and old == ARGV[5]
if version == seen and ARGV[10] ~= '1' and ARGV[12] ~= '1' and (stays or (not record and ARGV[4] == '')) then
  return {'same', epoch or '', current}
end

local function leave(q)
  redis.call('ZREM', ARGV[6] .. q, ARGV[1])
  if redis.call('EXISTS', ARGV[6] .. q) == 0 then redis.call('SREM', KEYS[3], q) end
end
if ARGV[12] == '1' then
  for _, q in ipairs(redis.call('SMEMBERS', KEYS[3])) do leave(q) end
elseif record and not stays then
  for q in string.gmatch(old, '[^,]+') do leave(q) end
end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('SET', tombstone, ARGV[2], 'EX', ARGV[8])
else
  for q in string.gmatch(ARGV[5], '[^,]+') do
    redis.call('ZADD', ARGV[6] .. q, ARGV[3], ARGV[1])
    redis.call('SADD', KEYS[3], q)
  end
  if not record then redis.call('DEL', tombstone) end
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end

current = redis.call('HINCRBY', KEYS[1], 'version', 1)
if not epoch then return {'building', '', current} end
redis.call(ARGV[11], ARGV[7], '{"epoch":"' .. epoch .. '","version":' .. current .. ARGV[9] .. '}')
return {'applied', epoch, current}
