-- The next so many ids that are known of messages that are gone, but for the first args.skipped of those that were settled at
-- args.settled, with their times and rows.
local first = redis.call('ZCOUNT', GONE, '-inf', '(' .. args.settled) + args.skipped
local found = redis.call('ZRANGE', GONE, first, first + args.many - 1, 'WITHSCORES')
local ids, times = {}, {}
for place = 1, #found, 2 do ids[#ids + 1], times[#times + 1] = found[place], found[place + 1] end
return { now, ids, times, fetch(ROW, ids) }
