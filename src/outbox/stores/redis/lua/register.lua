-- What stands in a register, {now, text or false}; with args.new that is written first, where args.old stands (absent:
-- where nothing does), and a third answer is 1 where it was.
local field = 'register:' .. args.name
local found = redis.call('HGET', META, field)
local text = found and string.match(found, '^%-?%d+\n(.*)$') or nil
if args.new == nil then return { now, text or false } end
if text ~= args.old then return { now, text or false, 0 } end
go_on_when_full()
redis.call('HSET', META, field, now .. '\n' .. args.new)
-- Whoever begins one tidies up, now and then: those of relays that nobody speaks to any more.
if text == nil and redis.call('HLEN', META) % 100 == 0 then
  local all = redis.call('HGETALL', META)
  for place = 1, #all, 2 do
    local at = string.sub(all[place], 1, 9) == 'register:' and tonumber(string.match(all[place + 1], '^(%-?%d+)\n'))
    if at and at < NOW - 2 * 86400 * 1000000 then redis.call('HDEL', META, all[place]) end
  end
end
return { now, args.new, 1 }
