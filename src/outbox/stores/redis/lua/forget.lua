-- Ids that have been known for long enough, or are too many, the oldest first.
local since = string.format('%.0f', NOW - tonumber(args.remember))
local over = redis.call('ZCOUNT', GONE, '-inf', since)
local excess = redis.call('ZCARD', GONE) - tonumber(args.at_most)
local number = math.min(args.limit, math.max(over, excess))
if number <= 0 then return { now, 0 } end
local ids = redis.call('ZRANGE', GONE, 0, number - 1)
for _, id in ipairs(ids) do write('HDEL', ROW, id) end
flush()
redis.call('ZREMRANGEBYRANK', GONE, 0, number - 1)
return { now, number }
