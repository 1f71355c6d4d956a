-- Reads an organization's whole index at one moment.
-- KEYS  1 state  2 members  3 queues      ARGV  1 queue key prefix
-- Answers {epoch or "", version, {booking, record, …}, {queue, {booking, score, …}, …}}.
local queues = {}
for _, q in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  queues[#queues + 1] = q
  queues[#queues + 1] = redis.call('ZRANGE', ARGV[1] .. q, 0, -1, 'WITHSCORES')
end
return {
  redis.call('HGET', KEYS[1], 'epoch') or '',
  tonumber(redis.call('HGET', KEYS[1], 'version') or 0),
  redis.call('HGETALL', KEYS[2]),
  queues,
}
