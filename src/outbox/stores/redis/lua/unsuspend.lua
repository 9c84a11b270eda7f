local said = redis.call('HGET', STOPPED, args.name)
redis.call('HDEL', STOPPED, args.name)
local ends = said and tonumber(string.match(said, '^(-?%d+)\t'))
return { now, tell(), said and (ends == nil or ends > NOW) and 1 or 0 }
