-- What stands in registers, {now, {text or false, ...}}; with args.swaps each of them is written where its old text
-- stands (absent: where nothing does), and a third answer is 1 for those that were.
local fields = {}
for place, name in ipairs(args.names) do fields[place] = 'register:' .. name end
local texts, written = {}, {}
for place, found in ipairs(fetch(META, fields)) do
  texts[place] = found and string.match(found, '^%-?%d+\n(.*)$') or false
end
if args.swaps == nil then return { now, texts } end
go_on_when_full()
local begun = false
for place, swap in ipairs(args.swaps) do
  if texts[place] == (swap.old or false) then
    begun = begun or not texts[place]
    redis.call('HSET', META, fields[place], now .. '\n' .. swap.new)
    written[place] = 1
  else
    written[place] = 0
  end
end
-- Whoever begins one tidies up, now and then: those of relays that nobody speaks to any more.
if begun and redis.call('HLEN', META) % 100 < #fields then
  local all = redis.call('HGETALL', META)
  for place = 1, #all, 2 do
    local at = string.sub(all[place], 1, 9) == 'register:' and tonumber(string.match(all[place + 1], '^(%-?%d+)\n'))
    if at and at < NOW - 2 * 86400 * 1000000 then redis.call('HDEL', META, all[place]) end
  end
end
return { now, texts, written }
