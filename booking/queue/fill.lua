-- Adds some bookings to an index that is being built. A booking that has changed since it was read is left as it is.
-- KEYS  1 state  2 members  3 queues  4 the builder's lock
-- ARGV  1 the builder's token  2 queue key prefix  3 tombstone key prefix  4 milliseconds until the lock expires
--       then for each booking: 5 id  6 score  7 record
-- Returns 1, or 0 when the caller is no longer the builder.
if redis.call('GET', KEYS[4]) ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
redis.call('PEXPIRE', KEYS[4], ARGV[4])
local ids, tombstones = {}, {}
for i = 5, #ARGV, 3 do
  ids[#ids + 1] = ARGV[i]
  tombstones[#tombstones + 1] = ARGV[3] .. ARGV[1] .. ':' .. ARGV[i]
end
local records = redis.call('HMGET', KEYS[2], unpack(ids))
local gone = redis.call('MGET', unpack(tombstones))
local fields, sets = {}, {}
for n, id in ipairs(ids) do
  local i = 2 + 3 * n
  local version, queues = string.match(ARGV[i + 2], '^(%d+) (%S*)')
  version = tonumber(version)
  local known = records[n] and tonumber(string.match(records[n], '^%d+')) or -1
  local left = gone[n] and tonumber(gone[n]) or -1
  if version > known and version >= left then
    fields[#fields + 1] = id
    fields[#fields + 1] = ARGV[i + 2]
    local set = sets[queues]
    if not set then
      set = {}
      sets[queues] = set
    end
    set[#set + 1] = ARGV[i + 1]
    set[#set + 1] = id
    -- A booking is in the index already with an older version only when that change was applied late.
    if known >= 0 then
      for q in string.gmatch(string.match(records[n], '^%d+ (%S*)'), '[^,]+') do redis.call('ZREM', ARGV[2] .. q, id) end
    end
  end
end
if #fields > 0 then redis.call('HSET', KEYS[2], unpack(fields)) end
for queues, set in pairs(sets) do
  for q in string.gmatch(queues, '[^,]+') do
    redis.call('ZADD', ARGV[2] .. q, unpack(set))
    redis.call('SADD', KEYS[3], q)
  end
end
return 1
