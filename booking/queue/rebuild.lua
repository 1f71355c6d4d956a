-- Begins a new life of an organization's index from the database, unless one has begun already.
-- KEYS  1 state  2 members  3 queues
-- ARGV  1 epoch  2 queue key prefix  3 channel  4 the command that publishes
--       then for each booking: 5 id  6 score  7 record  8 queue ids joined by commas
-- Answers 1 when it built, 0 when there was an epoch.
if redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
for _, q in ipairs(redis.call('SMEMBERS', KEYS[3])) do redis.call('DEL', ARGV[2] .. q) end
redis.call('DEL', KEYS[2], KEYS[3])
for i = 5, #ARGV, 4 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
  for q in string.gmatch(ARGV[i + 3], '[^,]+') do
    redis.call('ZADD', ARGV[2] .. q, ARGV[i + 1], ARGV[i])
    redis.call('SADD', KEYS[3], q)
  end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'version', 1)
redis.call(ARGV[4], ARGV[3], '{"epoch":"' .. ARGV[1] .. '","version":1}')
return 1
