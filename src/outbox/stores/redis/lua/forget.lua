-- Ids that have been known for long enough, or are too many, the oldest first.
local since = string.format('%.0f', NOW - tonumber(args.remember))
local over = redis.call('ZCOUNT', GONE, '-inf', since)
local excess = redis.call('ZCARD', GONE) - tonumber(args.at_most)
local number = math.min(args.limit, math.max(over, excess))
if number <= 0 then return { now, 0 } end
local ids = redis.call('ZRANGE', GONE, 0, number - 1)
for place, text in ipairs(fetch(ROW, ids)) do
  if text and (is_gone(text) or not redis.call('ZSCORE', IDS, ids[place])) then write('HDEL', ROW, ids[place]) end
end
flush()
redis.call('ZREMRANGEBYRANK', GONE, 0, number - 1)
return { now, number }
